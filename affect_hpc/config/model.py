"""Sizes of the networks and the diffusion process. Keys follow the thesis; values live in hydra_configs/model."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from affect_hpc.config.checks import in_range, one_of


class LatentScale(Enum):
    """How latents are normalised before diffusion."""

    fixed = "one given factor (thesis: 1.0)"
    per_channel = "zero mean and unit variance of each channel, measured on the train split"


@dataclass
class FirstStageConfig:
    """VQGAN autoencoder (diffusers VQModel): image in [-1, 1] <-> latent of embed_dim channels."""

    block_out_channels: list[int] = MISSING
    layers_per_block: int = MISSING
    norm_num_groups: int = 32
    attention_levels: list[int] = MISSING
    """Levels (0 = full resolution) with self-attention after every block."""
    mid_block_attention: bool = True
    codebook_size: int = MISSING
    embed_dim: int = 3
    legacy_beta: bool = True
    """beta weighs the codebook term instead of the commitment term (D-06)."""
    commitment_weight: float = 0.25


@dataclass
class DiscriminatorConfig:
    """PatchGAN on images."""

    base_channels: int = 64
    num_layers: int = 3


@dataclass
class UnetConfig:
    """Noise predictor (diffusers UNet2DConditionModel)."""

    block_out_channels: list[int] = MISSING
    layers_per_block: int = MISSING
    norm_num_groups: int = 32
    head_channels: int = MISSING
    """Channels of one attention head."""
    attention_levels: list[int] = MISSING
    """Levels with transformer blocks; the middle always has one."""


@dataclass
class ConditionConfig:
    """Class embedding handed to the cross-attention as its one context token; row null_index means no label."""

    num_classes: int = 8
    dim: int = MISSING
    null_index: int = 8


@dataclass
class DiffusionConfig:
    """Forward process (thesis section 4.3.3; D-09)."""

    num_timesteps: int = 1000
    beta_schedule: str = "scaled_linear"
    beta_start: float = 0.0015
    beta_end: float = 0.0205
    prediction: str = "eps"


@dataclass
class LatentConfig:
    """From encoder output to what is diffused."""

    scale: LatentScale = LatentScale.fixed
    scale_factor: float = 1.0


@dataclass
class ModelConfig:
    """Everything that fixes the shape of the networks."""

    name: str = MISSING
    first_stage: FirstStageConfig = field(default_factory=FirstStageConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    unet: UnetConfig = field(default_factory=UnetConfig)
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)

    def check(self) -> None:
        """Raise UserError where a value is out of range."""
        in_range("model.diffusion.num_timesteps", self.diffusion.num_timesteps, 2, 100_000)
        one_of("model.diffusion.beta_schedule", self.diffusion.beta_schedule, ("scaled_linear", "linear"))
        one_of("model.diffusion.prediction", self.diffusion.prediction, ("eps",))
