"""A latent diffusion model trained with the CompVis code, as networks of ours.

The two write down the same networks under other names. The names here are worked out from the order in which the
original makes its modules: ``input_blocks`` counts the first convolution, then the residual blocks of each level and
its downsampling; ``output_blocks`` counts the blocks of each level from the deepest on, one more a level.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel, VQModel
from torch import Tensor, nn

from affect_hpc.config.model import ConditionConfig, DiffusionConfig
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import sha256_file, write_json, writing_folder
from affect_hpc.models.compvis import Terms, read_terms
from affect_hpc.models.conditioning import LabelEmbedding
from affect_hpc.models.denoiser import Denoiser, count_parameters, write_scheduler_config
from affect_hpc.models.ldm import LatentNorm, Ldm, write_description
from affect_hpc.models.unpickle import read_tensors

Namer = Callable[[str], str]
UNET, FIRST_STAGE, CONDITION, AVERAGE = "model.", "first_stage_model.", "cond_stage_model.", "model_ema."
EXTRAS = re.compile(
    r"betas|(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?|posterior_\w+|lvlb_weights|logvar|scale_factor"
    r"|model_ema\.(decay|num_updates)|(first_stage_model\.)?loss\..+|first_stage_model\.model_ema\..+"
)
"""What a training keeps besides the networks: schedule, counters, losses with their networks."""
UNET_PARTS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET_PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ATTENTION_PARTS = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)\.(weight|bias)")
MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)\.(weight|bias)")


class Weights(Enum):
    """Which weights of the U-Net are used."""

    ema = "averaged over the training"
    raw = "as of the last step"


def unet_namer(terms: Terms) -> Namer:
    """Name in diffusers' UNet2DConditionModel -> name in the original's U-Net."""
    layers, levels = terms.layers, len(terms.layers)
    down = [1 + sum(layers[:level]) + level for level in range(levels)]
    up = [sum(layers[i] + 1 for i in range(level + 1, levels)) for level in range(levels)]

    def name(key: str) -> str:
        if match := BLOCK.fullmatch(key):
            side, block, kind, number, part, end = match.groups()
            # The up path of diffusers counts from the deepest level.
            level = int(block) if side == "down" else levels - 1 - int(block)
            first = f"input_blocks.{down[level]}" if side == "down" else f"output_blocks.{up[level]}"
            stem, _, start = first.partition(".")
            if kind == "downsamplers":
                return f"{stem}.{int(start) + layers[level]}.0.op.{end}"
            if kind == "upsamplers":
                return f"{stem}.{int(start) + layers[level]}.{terms.upsampler_slots[level]}.{part}.{end}"
            index = int(start) + int(number)
            return (
                f"{stem}.{index}.0.{RESNET_PARTS[part]}.{end}"
                if kind == "resnets"
                else f"{stem}.{index}.1.{part}.{end}"
            )
        if match := MIDDLE.fullmatch(key):
            kind, number, part, end = match.groups()
            if kind == "resnets":
                return f"middle_block.{2 * int(number)}.{RESNET_PARTS[part]}.{end}"
            return f"middle_block.1.{part}.{end}"
        stem, _, end = key.rpartition(".")
        return f"{UNET_PARTS[stem]}.{end}"

    return name


def first_stage_namer(levels: int) -> Namer:
    """Name in diffusers' VQModel -> name in the original's; ``levels`` is the number of resolutions."""

    def part_of(kind: str, part: str) -> str:
        return ATTENTION_PARTS[part] if kind == "attentions" else part.replace("conv_shortcut", "nin_shortcut")

    def name(key: str) -> str:
        coder, _, rest = key.partition(".")
        if match := BLOCK.fullmatch(rest):
            side, block, kind, number, part, end = match.groups()
            level = int(block) if side == "down" else levels - 1 - int(block)
            if kind in ("downsamplers", "upsamplers"):
                return f"{coder}.{side}.{level}.{side}sample.{part}.{end}"
            module = "block" if kind == "resnets" else "attn"
            return f"{coder}.{side}.{level}.{module}.{number}.{part_of(kind, part)}.{end}"
        if match := MIDDLE.fullmatch(rest):
            kind, number, part, end = match.groups()
            module = "block" if kind == "resnets" else "attn"
            return f"{coder}.mid.{module}_{int(number) + 1}.{part_of(kind, part)}.{end}"
        return key.replace("conv_norm_out", "norm_out")

    return name


class StateDict:
    """The tensors of a checkpoint; knows which of them have been taken.

    Args:
        tensors: by the original's names.
        checkpoint: where they are from.
        config: file that says which there must be.
    """

    def __init__(self, tensors: Mapping[str, Tensor], checkpoint: Path, config: Path) -> None:
        self.tensors, self.checkpoint, self.config = tensors, checkpoint, config
        self.taken: set[str] = set()

    def take(self, names: Mapping[str, str], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """Tensors in float32 by our names.

        Args:
            names: our name -> the original's.
            shapes: our name -> the shape that we need.

        Raises:
            UserError: one is missing, or has another shape.
        """
        missing = [name for name in names.values() if name not in self.tensors]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(
                f"{self.checkpoint} holds no {missing[0]}{more}, which the sizes in {self.config} ask for: give the "
                "config that the model was trained with."
            )
        self.taken |= set(names.values())
        return {ours: self._shaped(name, shapes[ours]) for ours, name in names.items()}

    def _shaped(self, name: str, shape: torch.Size) -> Tensor:
        tensor = self.tensors[name]
        # A convolution over single pixels is a linear layer, and diffusers' attention has those.
        same = tensor.shape == shape or (len(shape) == 2 and tensor.shape == (*shape, 1, 1))
        if not same or not tensor.is_floating_point():
            raise UserError(
                f"{self.checkpoint}: {name} is {_size(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}, "
                f"where the sizes in {self.config} make it {_size(shape)} of floats: give the config that the model "
                "was trained with."
            )
        return tensor.reshape(shape).float().contiguous()

    def fill(self, network: nn.Module, name: Namer) -> None:
        """Give a network on the meta device its weights."""
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        weights = self.take({key: name(key) for key in shapes}, shapes)
        network.load_state_dict(weights, assign=True)

    def finish(self) -> int:
        """Refuse tensors that are neither used nor known as extras; returns how many of the latter there are."""
        left = [name for name in self.tensors if name not in self.taken]
        unknown = [name for name in left if not EXTRAS.fullmatch(name)]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise UserError(
                f"{self.checkpoint} holds {unknown[0]}{more}, which the sizes in {self.config} leave no place for: "
                "give the config that the model was trained with."
            )
        return len(left)


def _size(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "a single number"


@dataclass(frozen=True)
class Pretrained:
    """All of a model of others, frozen and in eval mode.

    Args:
        averaged: the U-Net with averaged weights; None where the checkpoint has none.
        used: tensors that went into the networks.
        extras: tensors that did not: schedule, losses.
    """

    first_stage: VQModel
    raw: UNet2DConditionModel
    averaged: UNet2DConditionModel | None
    embedding: LabelEmbedding
    condition: ConditionConfig
    diffusion: DiffusionConfig
    norm: LatentNorm
    checkpoint: Path
    used: int
    extras: int

    def denoiser(self, weights: Weights) -> Denoiser:
        """U-Net and label embedding, of which there is one only.

        Raises:
            UserError: averaged weights are asked for, and the checkpoint has none.
        """
        unet = self.averaged if weights is Weights.ema else self.raw
        if unet is None:
            raise UserError(f"{self.checkpoint} holds no averaged weights ({AVERAGE}*): give --weights raw.")
        return Denoiser(unet, self.embedding).eval().requires_grad_(False)

    def ldm(self, weights: Weights) -> Ldm:
        """The model as the rest of the program uses it; errors as ``denoiser``."""
        return Ldm(self.denoiser(weights), self.diffusion, self.condition, self.norm)

    def write(self, out: Path, weights: Weights) -> None:
        """Write a folder that is at once a train_ldm and a train_vqgan output, whole or not at all.

        Args:
            out: must not exist.
            weights: of ``unet/``; ``unet_raw/`` always has the raw ones.

        Raises:
            UserError: ``out`` exists, or the weights are not there.
        """
        if out.exists():
            raise UserError(f"{out} exists: give a folder that does not, or remove it.")
        chosen, raw = self.denoiser(weights), self.denoiser(Weights.raw)
        with writing_folder(out) as folder:
            self.first_stage.save_pretrained(folder / "first_stage")
            raw.save(folder / "unet_raw", folder / "conditioner.safetensors")
            chosen.save(folder / "unet", folder / "conditioner.safetensors")
            write_description(folder, self.diffusion, self.condition, self.norm)
            settings: dict[str, object] = {
                "num_train_timesteps": self.diffusion.num_timesteps,
                "beta_schedule": self.diffusion.beta_schedule,
                "beta_start": self.diffusion.beta_start,
                "beta_end": self.diffusion.beta_end,
                "prediction_type": "epsilon",
            }
            write_scheduler_config(folder / "scheduler", settings)
            write_json(folder / "imported.json", {**self.summary(), "weights": weights.name})

    def summary(self) -> dict[str, Any]:
        """Where the model is from, and how much of it there is."""
        return {
            "source": self.checkpoint.name,
            "sha256": sha256_file(self.checkpoint),
            "tensors_used": self.used,
            "tensors_left": self.extras,
            "first_stage_parameters": count_parameters(self.first_stage),
            "unet_parameters": count_parameters(self.raw),
        }


def read(checkpoint: Path, config: Path) -> Pretrained:
    """Read a checkpoint in the layout of CompVis and Lightning; nothing in it is run.

    Args:
        checkpoint: with ``model.diffusion_model.*``, ``first_stage_model.*``, ``cond_stage_model.*`` and, where
            averages were kept, ``model_ema.*``.
        config: JSON file with the sizes, see ``compvis.read_terms``.

    Raises:
        UserError: a file is missing or damaged, or checkpoint and config do not fit together in every tensor.
    """
    terms = read_terms(config)
    state = StateDict(read_tensors(checkpoint), checkpoint, config)
    with torch.device("meta"):
        first_stage = VQModel(**terms.first_stage)
        raw, averaged = UNet2DConditionModel(**terms.unet), UNet2DConditionModel(**terms.unet)
        embedding = LabelEmbedding(terms.condition)
    first_stage_name = first_stage_namer(len(terms.first_stage["block_out_channels"]))
    unet_name = unet_namer(terms)
    state.fill(first_stage, lambda key: FIRST_STAGE + first_stage_name(key))
    state.fill(raw, lambda key: f"{UNET}diffusion_model.{unet_name(key)}")
    # The original's averages are buffers, whose names may hold no dots.
    has_average = any(name.startswith(f"{AVERAGE}diffusion_model") for name in state.tensors)
    if has_average:
        state.fill(averaged, lambda key: AVERAGE + f"diffusion_model.{unet_name(key)}".replace(".", ""))
    _fill_embedding(embedding, state)
    _check_schedule(state, terms.diffusion)
    norm = _norm(state, terms, first_stage.config.vq_embed_dim)
    extras = state.finish()
    for network in (first_stage, raw, averaged):
        network.eval().requires_grad_(False)
    return Pretrained(
        first_stage,
        raw,
        averaged if has_average else None,
        embedding,
        terms.condition,
        terms.diffusion,
        norm,
        checkpoint,
        len(state.taken),
        extras,
    )


def _fill_embedding(embedding: LabelEmbedding, state: StateDict) -> None:
    table, null = f"{CONDITION}embedding.weight", f"{CONDITION}uncond_embedding.weight"
    shape = embedding.table.weight.shape
    if null in state.tensors:
        # The original keeps the row for no label in a table of its own (D-48).
        shapes = {table: torch.Size([shape[0] - 1, shape[1]]), null: torch.Size([1, shape[1]])}
        rows = state.take({name: name for name in shapes}, shapes)
        weight = torch.cat([rows[table], rows[null]])
    else:
        weight = state.take({table: table}, {table: shape})[table]
    embedding.load_state_dict({"table.weight": weight}, assign=True)


def _check_schedule(state: StateDict, diffusion: DiffusionConfig) -> None:
    """Compare the schedule with the one that the checkpoint keeps, if any."""
    kept = state.tensors.get("betas")
    if kept is None:
        return
    power = 0.5 if diffusion.beta_schedule == "scaled_linear" else 1.0
    start, end = diffusion.beta_start**power, diffusion.beta_end**power
    betas = torch.linspace(start, end, diffusion.num_timesteps, dtype=torch.float64) ** (1 / power)
    if kept.shape != betas.shape or not torch.allclose(kept.double(), betas, rtol=1e-4, atol=0):
        raise UserError(
            f"{state.checkpoint}: betas are {len(kept.flatten())} values from {float(kept.flatten()[0]):.4g} to "
            f"{float(kept.flatten()[-1]):.4g}, which {state.config} does not give: mend linear_start, linear_end, "
            "timesteps or beta_schedule there."
        )


def _norm(state: StateDict, terms: Terms, channels: int) -> LatentNorm:
    kept, given = state.tensors.get("scale_factor"), terms.scale_factor
    factor = float(kept) if kept is not None else given
    factor = 1.0 if factor is None else factor
    if given is not None and abs(factor - given) > 1e-5 * abs(given):
        raise UserError(f"{state.checkpoint}: scale_factor is {factor}, but {given} in {state.config}: mend it there.")
    return LatentNorm(torch.zeros(channels), torch.full((channels,), 1 / factor))
