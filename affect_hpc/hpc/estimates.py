"""What a run will need, said before it starts: parameters, memory of a rank, arithmetic. Counted, not measured."""

from collections.abc import Mapping
from dataclasses import dataclass

from affect_hpc.config.cluster import ClusterConfig, Resources
from affect_hpc.config.drawing import TrainClassifierConfig
from affect_hpc.config.layers import Size
from affect_hpc.config.sizes import THERE_AND_BACK, discriminator_size, perceptual_size, trunk_size
from affect_hpc.config.stages import TrainLdmConfig, TrainRefereeConfig, TrainVqganConfig
from affect_hpc.config.train import EngineName, Precision, TrainConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.hpc.catalog import CATALOG
from affect_hpc.hpc.graph import Node
from affect_hpc.hpc.inference import work
from affect_hpc.hpc.networks import Networks, counted, side_of

DEEPSPEED_BUCKET = 4 * 50_000_000
"""Bytes of the buffer through which ZeRO reduces gradients: train/deepspeed_engine.py says its numbers, of float32."""
DEEPSPEED_LIVE = 1_000_000_000
"""Weights that ZeRO-3 leaves gathered for their next use: DeepSpeed's own stage3_max_live_parameters."""


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
    sample: str = "face"
    """What one is."""

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
    names = ("emotion", "identity") if node.kind == "train_referee" else ("train",)
    return {name: getattr(node.config, name) for name in names if hasattr(node.config, name)}


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
    side, on_gpu = side_of(node), asked.gpus_per_node > 0
    if node.kind == "train_referee":
        return _train_referee(node.config, side, asked) if side else None
    if node.kind == "train_vqgan":
        return _train_vqgan(node.config, side, asked) if side else None
    networks = Networks.of(node)
    if networks is None:
        return None
    if node.kind == "train_ldm":
        return _train_ldm(node, networks, asked)
    if node.kind == "train_classifier":
        return _train_classifier(node.config, networks, asked)
    done = work(node, networks, on_gpu)
    if done is None:
        return None
    memory = {"weights": 4.0 * done.parameters, "activations": done.live}
    if networks.ldm is not None and done.precision is Precision.bf16:
        # The U-Net stands there a second time, as a copy in bfloat16.
        memory["weights"] += 2.0 * networks.unet(networks.ldm.unet, networks.ldm.condition).parameters
    run = 2.0 * done.macs * done.samples
    return Estimate(done.parameters, 2.0 * done.macs, memory, done.batch, done.precision, run, sample=done.sample)


def _train_referee(cfg: TrainRefereeConfig, side: int, asked: Resources) -> Estimate:
    ranks, on_gpu = ranks_of(asked), asked.gpus_per_node > 0
    found = []
    # The identity judge sees two faces of a person.
    for config, outputs, images in ((cfg.emotion, len(EMOTIONS), 1), (cfg.identity, cfg.embed_dim, 2)):
        size = counted(trunk_size, cfg.channels, outputs, side)
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
    parts = Networks(side, cfg.first_stage, None)
    network = parts.encoder + parts.decoder
    critic = counted(discriminator_size, cfg.discriminator, side)
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


def _train_ldm(node: Node, networks: Networks, asked: Resources) -> Estimate:
    cfg: TrainLdmConfig = node.config
    config, ranks = cfg.train, ranks_of(asked)
    unet = networks.unet(cfg.unet, cfg.condition, cfg.gradient_checkpointing)
    memory = training_memory(unet.parameters, config, ranks, asked.gpus_per_node > 0)
    memory["weights"] += 4.0 * (networks.encoder + networks.decoder).parameters
    memory["average"] = 4.0 * unet.parameters
    micro = config.micro_batch(ranks)
    memory = _with_activations(memory, unet, micro, config)
    passes = THERE_AND_BACK + (1 if cfg.gradient_checkpointing else 0)
    macs = passes * unet.macs
    if "latents" not in node.parents:  # faces are encoded in each step
        macs += networks.encoder.macs
        memory["activations"] = max(memory["activations"], float(micro * networks.encoder.live))
    run = 2.0 * macs * config.samples_total
    return Estimate(unet.parameters, 2.0 * unet.macs, memory, micro, config.precision, run, trains=True)


def _train_classifier(cfg: TrainClassifierConfig, networks: Networks, asked: Resources) -> Estimate | None:
    if networks.ldm is None:
        return None
    config, ranks = cfg.train, ranks_of(asked)
    size = networks.classifier(cfg.channels, networks.ldm.condition.num_classes)
    memory = training_memory(size.parameters, config, ranks, asked.gpus_per_node > 0)
    memory["weights"] += 4.0 * (networks.encoder + networks.decoder).parameters
    micro = config.micro_batch(ranks)
    memory = _with_activations(memory, size, micro, config)
    run = 2.0 * THERE_AND_BACK * size.macs * config.samples_total
    return Estimate(size.parameters, 2.0 * size.macs, memory, micro, config.precision, run, trains=True)


def _with_activations(memory: dict[str, float], size: Size, micro: int, config: TrainConfig) -> dict[str, float]:
    saved = size.saved if config.precision is Precision.fp32 else size.saved_mixed
    return {**memory, "activations": float(saved * micro)}
