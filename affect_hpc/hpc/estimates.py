"""What a run will need, said before it starts: parameters, memory of a rank, arithmetic. Counted, not measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from affect_hpc.config.cluster import ClusterConfig, Resources
from affect_hpc.config.edit import Inverter, Spacing
from affect_hpc.config.layers import Size
from affect_hpc.config.model import ConditionConfig, FirstStageConfig, UnetConfig
from affect_hpc.config.sizes import (
    THERE_AND_BACK,
    decoder_size,
    discriminator_size,
    encoder_size,
    perceptual_size,
    trunk_size,
    unet_size,
)
from affect_hpc.config.stages import InvertLatentsConfig, TrainLdmConfig, TrainRefereeConfig, TrainVqganConfig
from affect_hpc.config.train import EngineName, Precision, TrainConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.io import read_json
from affect_hpc.hpc.catalog import CATALOG
from affect_hpc.hpc.graph import External, Node

DEEPSPEED_BUCKET = 4 * 50_000_000
"""Bytes of the buffer through which ZeRO reduces gradients: train/deepspeed_engine.py says its numbers, of float32."""
DEEPSPEED_LIVE = 1_000_000_000
"""Weights that ZeRO-3 leaves gathered for their next use: DeepSpeed's own stage3_max_live_parameters."""

INFERENCES = ("encode_latents", "reconstruct", "invert_latents", "manipulate")
"""Kinds that run networks without training them."""


@dataclass(frozen=True)
class Estimate:
    """Of one run. Left out are validation, pictures, the reading of data, and what libraries take for themselves."""

    parameters: int
    """Of the networks at work; of a training those that learn."""
    flops: float
    """For one sample: of a forward pass in trainings, else of all that is done to it."""
    memory: Mapping[str, float]
    """Bytes of one rank at its fullest, by what they hold."""
    batch: int
    """Samples whose activations are in memory at once."""
    precision: Precision
    flops_run: float = 0.0
    """Of the whole run, backward passes included; 0 = only the prepared corpus can tell."""
    trains: bool = False

    @property
    def total_memory(self) -> float:
        """Bytes of one rank."""
        return sum(self.memory.values())


def resources_of(node: Node, cluster: ClusterConfig) -> Resources:
    """What the jobs of a run ask for."""
    spec = CATALOG[node.kind]
    return cluster.resources_of(spec.stage, spec.resource_class)


def ranks_of(asked: Resources) -> int:
    """Processes of one training."""
    return asked.nodes * asked.tasks_per_node


def trainings(node: Node) -> dict[str, TrainConfig]:
    """The optimisations of a run, by their key below its stage's."""
    names = {"train_vqgan": ("train",), "train_ldm": ("train",), "train_referee": ("emotion", "identity")}
    return {name: getattr(node.config, name) for name in names.get(node.kind, ())}


def training_memory(parameters: int, config: TrainConfig, ranks: int, on_gpu: bool) -> dict[str, float]:
    """Bytes of one rank for what a training keeps between steps, by what they hold (train/deepspeed_engine.py).

    Args:
        parameters: that learn.
        on_gpu: whether a buffer that is never filled takes memory all the same.
    """
    stage = config.zero_stage if config.engine is EngineName.deepspeed else 0
    whole = 4.0 * parameters
    share = whole / ranks
    bucket = DEEPSPEED_BUCKET if on_gpu else min(DEEPSPEED_BUCKET, whole)
    return {
        "weights": share if stage == 3 else whole,
        "gradients": share if stage >= 2 else whole,
        # Two moments; divided, a master copy of the rank's share of the weights comes with them.
        "optimiser": 3 * share if stage else 2 * whole,
        "gathered weights": min(whole, 4.0 * DEEPSPEED_LIVE) if stage == 3 else 0.0,
        "ZeRO's buffer": bucket if stage else 0.0,
        "half-precision copies": whole / 2 if config.precision is not Precision.fp32 else 0.0,
    }


def estimate(node: Node, asked: Resources) -> Estimate | None:
    """What a run needs; None for kinds that run no network of ours, and where sizes cannot be told."""
    side = _side(node)
    if not side:
        return None
    if node.kind == "train_referee":
        return _train_referee(node.config, side, asked)
    if node.kind == "train_vqgan":
        return _train_vqgan(node.config, side, asked)
    first_stage = _first_stage(node)
    if first_stage is None:
        return None
    if node.kind == "train_ldm":
        return _train_ldm(node, first_stage, side, asked)
    return _inference(node, first_stage, side) if node.kind in INFERENCES else None


def _train_referee(cfg: TrainRefereeConfig, side: int, asked: Resources) -> Estimate:
    ranks, on_gpu = ranks_of(asked), asked.gpus_per_node > 0
    found = []
    # The identity judge sees two faces of a person.
    for config, outputs, images in ((cfg.emotion, len(EMOTIONS), 1), (cfg.identity, cfg.embed_dim, 2)):
        size = _size(trunk_size, cfg.channels, outputs, side)
        micro = images * config.micro_batch(ranks)
        memory = _with_activations(training_memory(size.parameters, config, ranks, on_gpu), size, micro, config)
        flops = 2.0 * images * size.macs
        run = THERE_AND_BACK * flops * config.samples_total
        found.append(Estimate(size.parameters, flops, memory, micro, config.precision, run, trains=True))
    first, second = found
    larger = max(found, key=lambda one: one.total_memory)
    return Estimate(
        first.parameters + second.parameters,
        first.flops + second.flops,
        larger.memory,
        larger.batch,
        first.precision,
        first.flops_run + second.flops_run,
        trains=True,
    )


def _train_vqgan(cfg: TrainVqganConfig, side: int, asked: Resources) -> Estimate:
    config, ranks = cfg.train, ranks_of(asked)
    network = _size(encoder_size, cfg.first_stage, side) + _size(decoder_size, cfg.first_stage, side)
    critic = _size(discriminator_size, cfg.discriminator, side)
    perceptual = perceptual_size(cfg.perceptual, side)
    parameters = network.parameters + critic.parameters
    memory = training_memory(parameters, config, ranks, asked.gpus_per_node > 0)
    memory["weights"] += 4.0 * perceptual.parameters
    # While the autoencoder waits for its gradient, the losses run one after the other.
    losses = max(perceptual, critic if cfg.disc_start >= 0 else Size(), key=lambda size: size.saved)
    micro = config.micro_batch(ranks)
    memory = _with_activations(memory, network + losses, micro, config)
    steps = config.samples_total / config.global_batch_size
    judged = max(0.0, 1 - cfg.disc_start / steps) if cfg.disc_start >= 0 else 0.0
    # Perceptual: both images forward, one backward to its pixels. Discriminator: to the pixels and back, then a step of
    # its own on two images.
    macs = THERE_AND_BACK * network.macs + 3 * perceptual.macs + judged * (2 + 2 * THERE_AND_BACK) * critic.macs
    run = 2.0 * macs * config.samples_total
    return Estimate(parameters, 2.0 * network.macs, memory, micro, config.precision, run, trains=True)


def _train_ldm(node: Node, first_stage: FirstStageConfig, side: int, asked: Resources) -> Estimate:
    cfg: TrainLdmConfig = node.config
    config, ranks = cfg.train, ranks_of(asked)
    encoder, decoder = _size(encoder_size, first_stage, side), _size(decoder_size, first_stage, side)
    unet = _unet(cfg.unet, cfg.condition, first_stage, side, cfg.gradient_checkpointing)
    memory = training_memory(unet.parameters, config, ranks, asked.gpus_per_node > 0)
    memory["weights"] += 4.0 * (encoder.parameters + decoder.parameters)
    memory["average"] = 4.0 * unet.parameters
    micro = config.micro_batch(ranks)
    memory = _with_activations(memory, unet, micro, config)
    passes = THERE_AND_BACK + (1 if cfg.gradient_checkpointing else 0)
    macs = passes * unet.macs
    if "latents" not in node.parents:  # faces are encoded in each step
        macs += encoder.macs
        memory["activations"] = max(memory["activations"], float(micro * encoder.live))
    run = 2.0 * macs * config.samples_total
    return Estimate(unet.parameters, 2.0 * unet.macs, memory, micro, config.precision, run, trains=True)


def _inference(node: Node, first_stage: FirstStageConfig, side: int) -> Estimate | None:
    cfg = node.config
    encoder, decoder = _size(encoder_size, first_stage, side), _size(decoder_size, first_stage, side)
    parameters, batch, precision = encoder.parameters + decoder.parameters, cfg.batch_size, Precision.fp32
    if node.kind == "encode_latents":
        macs, live = encoder.macs * (2 if cfg.flip else 1), batch * encoder.live
    elif node.kind == "reconstruct":
        macs, live = decoder.macs, batch * decoder.live
    else:
        ldm = _ldm(node)
        if ldm is None:
            return None
        unet_config, condition, num_timesteps = ldm
        unet = _unet(unet_config, condition, first_stage, side)
        parameters, precision = parameters + unet.parameters, cfg.precision
        sides = 1 if cfg.gamma == 1 else 2
        passes = levels(cfg.spacing, cfg.num_steps, cfg.t0, num_timesteps) * sides
        if node.kind == "invert_latents":
            # The certificate costs one pass back, and both ends of it as images.
            macs = (_inverting(cfg) + 1) * passes * unet.macs + 2 * decoder.macs
            live = batch * max(sides * unet.live, decoder.live)
        else:
            images = len(cfg.targets) + (1 if cfg.round_trip else 0)
            # The round trip is in the inversion already, where both passes have the same guidance.
            encoding: InvertLatentsConfig = next(node.edges()).node.config
            edited = images if encoding.gamma != cfg.gamma else len(cfg.targets)
            batch *= images
            macs = edited * _decoding(encoding) * passes * unet.macs + images * decoder.macs
            live = batch * max(sides * unet.live, decoder.live)
    memory = {"weights": 4.0 * parameters, "activations": float(live)}
    run = 2.0 * macs * _faces(node)
    return Estimate(parameters, 2.0 * macs, memory, batch, precision, run)


def _inverting(cfg: InvertLatentsConfig) -> int:
    """Passes over all levels that following a face back takes (diffusion/inversion.py); of auto its first try."""
    return {Inverter.fixed_point: 1 + cfg.refinements, Inverter.coupled: 2, Inverter.direct: 2}.get(cfg.inverter, 1)


def _decoding(cfg: InvertLatentsConfig) -> int:
    return 2 if cfg.inverter is Inverter.coupled else 1


def _faces(node: Node) -> int:
    """How many faces a run comes from, where its config or that of a parent fixes it; else 0."""
    own = int(getattr(node.config, "num_samples", 0))
    return own or next((count for edge in node.edges() if (count := _faces(edge.node))), 0)


def levels(spacing: Spacing, num_steps: int, t0: int, num_timesteps: int) -> int:
    """How many noise levels an edit visits (diffusion/ddim.py)."""
    if spacing is Spacing.linspace:
        return num_steps
    return len([t for t in range(0, num_timesteps, num_timesteps // num_steps) if t + 1 <= t0])


def _with_activations(memory: dict[str, float], size: Size, micro: int, config: TrainConfig) -> dict[str, float]:
    saved = size.saved if config.precision is Precision.fp32 else size.saved_mixed
    return {**memory, "activations": float(saved * micro)}


_counted: dict[str, Size] = {}


def _size(count: Callable[..., Size], *arguments: Any) -> Size:
    """``count(*arguments)``, once for equal arguments: a sweep asks for the same networks ninety times."""
    key = f"{count.__name__} {arguments}"
    if key not in _counted:
        _counted[key] = count(*arguments)
    return _counted[key]


def _unet(
    config: UnetConfig, condition: ConditionConfig, first_stage: FirstStageConfig, side: int, again: bool = False
) -> Size:
    """U-Net with label embedding; ``again`` for gradient checkpointing."""
    latent_side = side >> (len(first_stage.block_out_channels) - 1)
    size = _size(unet_size, config, condition, first_stage.embed_dim, latent_side, again)
    return size + Size(parameters=(condition.num_classes + 1) * condition.dim)


def _side(node: Node) -> int:
    """Side in px of the faces that a run comes from; 0 where no faces stand at its beginning."""
    if node.kind == "prepare_shards":
        return int(node.config.data.size)
    return next((side for edge in node.edges() if (side := _side(edge.node))), 0)


def _first_stage(node: Node) -> FirstStageConfig | None:
    for parent in node.parents.get("first_stage", ()):
        return _given_first_stage(parent) if isinstance(parent, External) else parent.node.config.first_stage
    return None


def _ldm(node: Node) -> tuple[UnetConfig, ConditionConfig, int] | None:
    """U-Net, its condition, and how many levels its diffusion has."""
    for parent in node.parents.get("ldm", ()):
        if isinstance(parent, External):
            return _given_ldm(parent)
        cfg: TrainLdmConfig = parent.node.config
        return cfg.unet, cfg.condition, cfg.diffusion.num_timesteps
    return None


@cache
def _given_first_stage(external: External) -> FirstStageConfig | None:
    try:
        found = read_json(external.path / "first_stage" / "config.json")
        return FirstStageConfig(
            block_out_channels=found["block_out_channels"],
            layers_per_block=found["layers_per_block"],
            norm_num_groups=found["norm_num_groups"],
            attention_levels=_attention(found["down_block_types"]),
            mid_block_attention=found["mid_block_add_attention"],
            codebook_size=found["num_vq_embeddings"],
            embed_dim=found["latent_channels"],
        )
    except (OSError, ValueError, KeyError):
        return None  # a stage that loads it will say what is wrong


@cache
def _given_ldm(external: External) -> tuple[UnetConfig, ConditionConfig, int] | None:
    try:
        found, description = (read_json(external.path / name) for name in ("unet/config.json", "ldm.json"))
        unet = UnetConfig(
            block_out_channels=found["block_out_channels"],
            layers_per_block=found["layers_per_block"],
            norm_num_groups=found["norm_num_groups"],
            head_channels=1,  # how many heads share the width changes no size
            attention_levels=_attention(found["down_block_types"]),
        )
        return unet, ConditionConfig(**description["condition"]), int(description["diffusion"]["num_timesteps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _attention(block_types: list[str]) -> list[int]:
    return [level for level, name in enumerate(block_types) if "Attn" in name]
