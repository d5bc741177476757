"""Which networks a run has, told from the graph: the plan counts them and loads none."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from affect_hpc.config.layers import Size
from affect_hpc.config.model import ConditionConfig, FirstStageConfig, UnetConfig
from affect_hpc.config.sizes import classifier_size, decoder_size, encoder_size, unet_size
from affect_hpc.config.stages import TrainLdmConfig
from affect_hpc.core.io import read_json
from affect_hpc.hpc.graph import External, Node


@dataclass(frozen=True)
class DiffusionModel:
    """A latent diffusion model.

    Args:
        num_timesteps: levels of its process.
        latent_side: in px, where the model itself says it; else 0.
    """

    unet: UnetConfig
    condition: ConditionConfig
    num_timesteps: int
    latent_side: int = 0


@dataclass(frozen=True)
class Networks:
    """First stage and diffusion model of a run.

    Args:
        side: of the faces in px.
        ldm: None where the run has none.
    """

    side: int
    first_stage: FirstStageConfig
    ldm: DiffusionModel | None

    @classmethod
    def of(cls, node: Node) -> "Networks | None":
        """None where the run has no first stage, or sizes cannot be told."""
        first_stage, ldm = _first_stage(node), _ldm(node)
        if first_stage is None:
            return None
        side = side_of(node)
        if not side and ldm is not None:  # nothing but given networks lies before it
            side = ldm.latent_side * _shrinks(first_stage)
        return cls(side, first_stage, ldm) if side else None

    @property
    def latent_side(self) -> int:
        """Side of a latent in px."""
        return self.side // _shrinks(self.first_stage)

    @property
    def encoder(self) -> Size:
        """Image to latent."""
        return counted(encoder_size, self.first_stage, self.side)

    @property
    def decoder(self) -> Size:
        """Latent to image."""
        return counted(decoder_size, self.first_stage, self.side)

    def unet(self, config: UnetConfig, condition: ConditionConfig, again: bool = False) -> Size:
        """Noise predictor with label embedding; ``again`` for gradient checkpointing."""
        size = counted(unet_size, config, condition, self.first_stage.embed_dim, self.latent_side, again)
        return size + Size(parameters=(condition.num_classes + 1) * condition.dim)

    def classifier(self, channels: list[int], num_classes: int) -> Size:
        """Classifier of noisy latents."""
        return counted(classifier_size, channels, self.first_stage.embed_dim, num_classes, self.latent_side)


_counted: dict[str, Size] = {}


def counted(count: Callable[..., Size], *arguments: Any) -> Size:
    """``count(*arguments)``, once for equal arguments: a sweep asks for the same networks ninety times."""
    key = f"{count.__name__} {arguments}"
    if key not in _counted:
        _counted[key] = count(*arguments)
    return _counted[key]


def side_of(node: Node) -> int:
    """Side in px of the faces that a run comes from; 0 where no faces stand at its beginning."""
    if node.kind == "prepare_shards":
        return int(node.config.data.size)
    return next((side for edge in node.edges() if (side := side_of(edge.node))), 0)


def _shrinks(config: FirstStageConfig) -> int:
    factor: int = 2 ** (len(config.block_out_channels) - 1)
    return factor


def _first_stage(node: Node) -> FirstStageConfig | None:
    for parent in node.parents.get("first_stage", ()):
        return _given_first_stage(parent) if isinstance(parent, External) else parent.node.config.first_stage
    return None


def _ldm(node: Node) -> DiffusionModel | None:
    for parent in node.parents.get("ldm", ()):
        if isinstance(parent, External):
            return _given_ldm(parent)
        cfg: TrainLdmConfig = parent.node.config
        return DiffusionModel(cfg.unet, cfg.condition, cfg.diffusion.num_timesteps)
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
def _given_ldm(external: External) -> DiffusionModel | None:
    try:
        found, description = (read_json(external.path / name) for name in ("unet/config.json", "ldm.json"))
        unet = UnetConfig(
            block_out_channels=found["block_out_channels"],
            layers_per_block=found["layers_per_block"],
            norm_num_groups=found["norm_num_groups"],
            head_channels=1,  # how many heads share the width changes no size
            attention_levels=_attention(found["down_block_types"]),
        )
        condition = ConditionConfig(**description["condition"])
        side = int(found.get("sample_size") or 0)
        return DiffusionModel(unet, condition, int(description["diffusion"]["num_timesteps"]), side)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _attention(block_types: list[str]) -> list[int]:
    return [level for level, name in enumerate(block_types) if "Attn" in name]
