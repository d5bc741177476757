"""Sizes of a model as the CompVis code of Rombach et al. (2022) names them, turned into what diffusers builds.

Both know the same networks in other words. What diffusers cannot build is refused with the reason.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affect_hpc.config.model import ConditionConfig, DiffusionConfig
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json

GROUPS = 32
"""Of every group normalisation of the original code."""
UNET_IGNORED = frozenset("use_checkpoint use_fp16 use_bf16 legacy num_heads_upsample use_new_attention_order".split())
"""Terms of the U-Net that change no result where it has spatial transformers."""
FIRST_STAGE_IGNORED = frozenset("dropout sane_index_shape ckpt_path monitor image_key lossconfig use_ema".split())


@dataclass(frozen=True)
class Terms:
    """What a config fixes.

    Args:
        unet: arguments of diffusers' UNet2DConditionModel.
        first_stage: arguments of diffusers' VQModel.
        layers: residual blocks of each level of the U-Net on its way down.
        upsampler_slots: place of the upsampling among the modules of its block, for each level of the U-Net.
        scale_factor: of the latents; None where the config does not say.
    """

    unet: dict[str, Any]
    first_stage: dict[str, Any]
    layers: list[int]
    upsampler_slots: list[int]
    condition: ConditionConfig
    diffusion: DiffusionConfig
    scale_factor: float | None


class Section:
    """One mapping of the config; says what is wrong with a value in one sentence.

    Args:
        content: the mapping.
        name: what to put before its keys, such as ``unet.``.
        path: file it is from.
    """

    def __init__(self, content: Any, name: str, path: Path) -> None:
        if not isinstance(content, dict):
            raise UserError(f"{path}: {name.rstrip('.') or 'the config'} is no mapping: give one of terms and values.")
        self.content, self.name, self.path = content, name, path
        self.known: set[str] = set()

    def refuse(self, key: str, why: str) -> UserError:
        """The sentence that ``key`` has a wrong value."""
        return UserError(f"{self.path}: {self.name}{key}={self.content.get(key)!r} {why}.")

    def get(self, key: str, default: Any = None) -> Any:
        """Any value."""
        self.known.add(key)
        value = self.content.get(key)
        value = default if value is None else value
        if value is None:
            raise UserError(f"{self.path}: {self.name}{key} is missing: add it.")
        return value

    def section(self, key: str) -> "Section":
        """A mapping within this one."""
        return Section(self.get(key), f"{self.name}{key}.", self.path)

    def whole(self, key: str, default: int | None = None, least: int = 1) -> int:
        """An integer."""
        value = self.get(key, default)
        if type(value) is not int or value < least:
            raise self.refuse(key, f"must be an integer of {least} or more")
        return value

    def wholes(self, key: str) -> list[int]:
        """A list of positive integers."""
        value = self.get(key)
        if not isinstance(value, list) or any(type(item) is not int or item < 1 for item in value):
            raise self.refuse(key, "must be a list of positive integers")
        return list(value)

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(key, "must be a number")
        return float(value)

    def flag(self, key: str) -> bool:
        """True or false; false where the term is missing."""
        value = self.get(key, False)
        if not isinstance(value, bool):
            raise self.refuse(key, "must be true or false")
        return value

    def only(self, key: str, value: Any, default: Any, why: str) -> None:
        """A term for which diffusers knows but one value."""
        if self.get(key, default) != value:
            raise UserError(f"{self.path}: {self.name}{key} must be {value!r} here: {why}.")

    def absent(self, key: str, why: str) -> None:
        """A term that diffusers does not know."""
        self.known.add(key)
        if self.content.get(key) is not None:
            raise self.refuse(key, f"cannot be built: {why}")

    def finish(self, ignored: frozenset[str]) -> None:
        """Refuse terms that nobody has asked for: each may change the network."""
        unknown = [key for key in self.content if key not in self.known | ignored and self.content[key] is not None]
        if unknown:
            raise UserError(
                f"{self.path}: {self.name}{unknown[0]} is unknown: the terms of this part are "
                f"{', '.join(sorted(self.known | ignored))}."
            )


def read_terms(path: Path) -> Terms:
    """The terms in a JSON file: ``unet``, ``first_stage``, ``n_classes``, schedule.

    Terms beside these at the top are not looked at: they may describe the file.

    Raises:
        UserError: no such file, no JSON, a term that is missing or has a value that cannot be built.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path} is no file: give a JSON file with the sizes in the terms of the original.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON ({str(error).splitlines()[0]}): mend it.") from None
    top = Section(content, "", path)
    unet, first_stage = top.section("unet"), top.section("first_stage")
    dim = unet.whole("context_dim", top.content.get("context_dim"))
    if top.whole("context_dim", dim) != dim:
        raise top.refuse("context_dim", f"differs from unet.context_dim={dim}: they are one size")
    embed_dim = first_stage.whole("embed_dim")
    for key in ("in_channels", "out_channels"):
        if unet.whole(key) != embed_dim:
            raise unet.refuse(key, f"differs from first_stage.embed_dim={embed_dim}: the latents are what is diffused")
    classes = top.whole("n_classes")
    scale = top.content.get("scale_factor")
    layers, slots = _layers(unet)
    return Terms(
        unet=_unet_arguments(unet, layers, dim),
        first_stage=_first_stage_arguments(first_stage),
        layers=layers,
        upsampler_slots=slots,
        condition=ConditionConfig(num_classes=classes, dim=dim, null_index=classes),
        diffusion=_diffusion(top),
        scale_factor=None if scale is None else top.number("scale_factor"),
    )


def _layers(section: Section) -> tuple[list[int], list[int]]:
    """Residual blocks of each level, and where its upsampling stands: after the block and its attention, if any."""
    levels = len(section.wholes("channel_mult"))
    if isinstance(section.content.get("num_res_blocks"), list):
        layers = section.wholes("num_res_blocks")
        if len(layers) != levels:
            raise section.refuse("num_res_blocks", f"must name each of the {levels} levels, or be one number")
    else:
        layers = [section.whole("num_res_blocks")] * levels
    at = section.wholes("attention_resolutions")
    return layers, [2 if 2**level in at else 1 for level in range(levels)]


def _widths(section: Section, base: str, multipliers: str) -> list[int]:
    width, factors = section.whole(base), section.wholes(multipliers)
    if factors[:1] != [1]:
        raise section.refuse(multipliers, "must begin with 1: diffusers gives the first convolution the first width")
    if width % GROUPS:
        raise section.refuse(base, f"must be a multiple of {GROUPS}, the groups of each normalisation")
    return [width * factor for factor in factors]


def _heads(section: Section, widths: list[int], attention: list[bool]) -> tuple[int, ...]:
    """Heads of each level: a fixed number, or as many as channels allow."""
    size = section.get("num_head_channels", -1)
    if size == -1:
        heads = [section.whole("num_heads")] * len(widths)
    else:
        size = section.whole("num_head_channels")
        section.get("num_heads", -1)  # without effect beside the other
        heads = [max(1, width // size) for width in widths]
    # The middle has attention at the last width, whatever the levels have.
    for width, count, used in zip(widths, heads, [*attention[:-1], True], strict=True):
        if used and (width % count or (size != -1 and width != count * size)):
            key = "num_heads" if size == -1 else "num_head_channels"
            raise section.refuse(key, f"does not divide {width}, the channels of a level with attention")
    return tuple(heads)


def _unet_arguments(section: Section, layers: list[int], dim: int) -> dict[str, Any]:
    section.only("use_spatial_transformer", True, False, "other attention blocks cannot take a class token")
    section.only("conv_resample", True, True, "diffusers resamples with convolutions")
    section.only("resblock_updown", False, False, "diffusers has no residual blocks that resample beside transformers")
    section.only("dims", 2, 2, "latents are images")
    section.absent("num_classes", "the class is told by cross-attention, not by the time embedding")
    section.absent("n_embed", "the network predicts noise, not indices of codes")
    section.absent("disable_self_attentions", "diffusers' transformers attend to themselves")
    widths = _widths(section, "model_channels", "channel_mult")
    at = section.wholes("attention_resolutions")
    attention = [2**level in at for level in range(len(widths))]
    arguments = {
        "sample_size": section.whole("image_size"),
        "in_channels": section.whole("in_channels"),
        "out_channels": section.whole("out_channels"),
        "block_out_channels": tuple(widths),
        "layers_per_block": tuple(layers) if len(set(layers)) > 1 else layers[0],
        "norm_num_groups": GROUPS,
        "cross_attention_dim": dim,
        # diffusers reads attention_head_dim as the NUMBER of heads.
        "attention_head_dim": _heads(section, widths, attention),
        "transformer_layers_per_block": section.whole("transformer_depth", 1),
        "use_linear_projection": section.flag("use_linear_in_transformer"),
        "resnet_time_scale_shift": "scale_shift" if section.flag("use_scale_shift_norm") else "default",
        "dropout": section.number("dropout", 0.0),
        "down_block_types": tuple("CrossAttnDownBlock2D" if used else "DownBlock2D" for used in attention),
        "up_block_types": tuple("CrossAttnUpBlock2D" if used else "UpBlock2D" for used in reversed(attention)),
    }
    section.finish(UNET_IGNORED)
    return arguments


def _first_stage_arguments(section: Section) -> dict[str, Any]:
    section.only("double_z", False, False, "a first stage with a codebook has no variances")
    section.only("resamp_with_conv", True, True, "diffusers resamples with convolutions")
    section.only("use_linear_attn", False, False, "diffusers has no linear attention here")
    section.only("tanh_out", False, False, "diffusers' decoder ends with a convolution")
    section.only("give_pre_end", False, False, "diffusers' decoder ends with a convolution")
    section.absent("remap", "codes keep their indices")
    kind = section.get("attn_type", "vanilla")
    if kind not in ("vanilla", "none"):
        raise section.refuse("attn_type", "cannot be built: diffusers knows vanilla and none")
    widths = _widths(section, "ch", "ch_mult")
    resolution, at = section.whole("resolution"), section.wholes("attn_resolutions")
    # In the original, a level knows its side in pixels, counted from the nominal resolution.
    attention = [kind == "vanilla" and resolution // 2**level in at for level in range(len(widths))]
    arguments = {
        "in_channels": section.whole("in_channels"),
        "out_channels": section.whole("out_ch"),
        "latent_channels": section.whole("z_channels"),
        "sample_size": resolution,
        "block_out_channels": tuple(widths),
        "layers_per_block": section.whole("num_res_blocks"),
        "norm_num_groups": GROUPS,
        "mid_block_add_attention": kind == "vanilla",
        "num_vq_embeddings": section.whole("n_embed"),
        "vq_embed_dim": section.whole("embed_dim"),
        "down_block_types": tuple("AttnDownEncoderBlock2D" if used else "DownEncoderBlock2D" for used in attention),
        "up_block_types": tuple("AttnUpDecoderBlock2D" if used else "UpDecoderBlock2D" for used in reversed(attention)),
    }
    for key in ("in_channels", "out_ch"):
        if section.whole(key) != 3:
            raise section.refuse(key, "must be 3: faces have three colours")
    section.finish(FIRST_STAGE_IGNORED)
    return arguments


def _diffusion(top: Section) -> DiffusionConfig:
    # What the original calls linear is linear in the square root of beta (D-09).
    schedules = {"linear": "scaled_linear", "sqrt_linear": "linear"}
    schedule = top.get("beta_schedule", "linear")
    if schedule not in schedules:
        raise top.refuse("beta_schedule", f"is unknown: the valid ones are {', '.join(schedules)}")
    top.only("parameterization", "eps", "eps", "the network predicts noise")
    start, end = top.number("linear_start"), top.number("linear_end")
    if not 0 < start <= end < 1:
        raise top.refuse("linear_start", f"must lie between 0 and linear_end={end}, which must be below 1")
    return DiffusionConfig(top.whole("timesteps", least=2), schedules[schedule], start, end)
