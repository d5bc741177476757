"""Noise predictor: diffusers' UNet2DConditionModel at our sizes, with the label embedding as its one context token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from affect_hpc.config.model import ConditionConfig, UnetConfig
from affect_hpc.core.io import write_json
from affect_hpc.models.conditioning import LabelEmbedding


def build_unet(config: UnetConfig, condition: ConditionConfig, channels: int, size: int) -> UNet2DConditionModel:
    """A new U-Net (thesis section 4.3.3; Rombach et al. 2022).

    Args:
        channels: of the latents.
        size: side of the latents in pixels.
    """
    levels = len(config.block_out_channels)
    attention = set(config.attention_levels)
    down = tuple("CrossAttnDownBlock2D" if i in attention else "DownBlock2D" for i in range(levels))
    up = tuple("CrossAttnUpBlock2D" if i in attention else "UpBlock2D" for i in reversed(range(levels)))
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(config.block_out_channels),
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_num_groups,
        cross_attention_dim=condition.dim,
        # diffusers reads attention_head_dim as the NUMBER of heads.
        attention_head_dim=tuple(width // config.head_channels for width in config.block_out_channels),
        down_block_types=down,
        up_block_types=up,
    )


class OneToken:
    """Cross-attention to a single context token: the softmax over one key is 1, so queries and keys do nothing.

    For frozen networks only: in training, weights without a gradient would be missed by those who count gradients.
    """

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **unused: Any) -> Tensor:
        """What attention gives every place, (B, 1, width), for ``encoder_hidden_states`` (B, 1, dim)."""
        token: Tensor = attn.to_out[0](attn.to_v(encoder_hidden_states))
        return token


class Denoiser(nn.Module):
    """U-Net and label embedding: noisy latent, time and label -> predicted noise.

    Attention is torch's scaled_dot_product_attention (diffusers' default), which takes the fastest kernel there is.
    """

    def __init__(self, unet: nn.Module, embedding: LabelEmbedding) -> None:
        super().__init__()
        self.unet, self.embedding = unet, embedding

    @classmethod
    def build(cls, unet: UnetConfig, condition: ConditionConfig, channels: int, size: int) -> "Denoiser":
        """A new one; see ``build_unet``."""
        return cls(build_unet(unet, condition, channels, size), LabelEmbedding(condition))

    def forward(self, z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Predicted noise (B, C, h, w).

        Args:
            z: noisy latents (B, C, h, w).
            t: (B,) int64, level index.
            label: (B,) int64; the embedding's null index means no label.
        """
        eps: Tensor = self.unet(z, t, encoder_hidden_states=self.embedding(label)).sample
        return eps

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the latents that it was built for."""
        unet: Any = self.unet
        return unet.config.in_channels, unet.config.sample_size, unet.config.sample_size

    def checkpoint_activations(self) -> None:
        """Compute activations again on the way back instead of keeping them: the same gradients in less memory."""
        unet: Any = self.unet
        unet.enable_gradient_checkpointing()

    def tune(self) -> None:
        """Make a frozen network faster, in place: the same function, rounded otherwise."""
        unet: Any = self.unet
        blocks = (block for block in unet.modules() if getattr(block, "attn2", None) is not None)
        for block in blocks:
            block.attn2.set_processor(OneToken())
        if unet.device.type == "cpu":
            # On GPUs the usual order of memory is the faster one.
            unet.to(memory_format=torch.channels_last)

    def compile_unet(self, backend: str | Callable[..., Any]) -> None:
        """Run the U-Net by torch.compile from now on, in place: weights keep their names, copies are not compiled."""
        self.unet.compile(backend=backend)

    def save(self, unet_folder: Path, embedding_file: Path) -> None:
        """Write the U-Net as a diffusers folder and the embedding as safetensors."""
        unet: Any = self.unet
        unet.save_pretrained(unet_folder)
        save_file({"weight": self.embedding.table.weight.detach().contiguous().cpu()}, embedding_file)

    @classmethod
    def load(cls, folder: Path, condition: ConditionConfig, unet_name: str = "unet") -> "Denoiser":
        """The frozen network of a train_ldm output, in eval mode.

        Args:
            unet_name: ``unet`` (averaged weights) or ``unet_raw``.
        """
        unet = UNet2DConditionModel.from_pretrained(folder / unet_name, local_files_only=True, low_cpu_mem_usage=False)
        embedding = LabelEmbedding(condition)
        embedding.table.load_state_dict(load_file(folder / "conditioner.safetensors"))
        return cls(unet, embedding).eval().requires_grad_(False)


@torch.no_grad()
def count_parameters(module: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in module.parameters())


def write_scheduler_config(folder: Path, settings: dict[str, object]) -> None:
    """``scheduler_config.json`` as diffusers' DDIMScheduler reads it."""
    content = {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False, **settings}
    write_json(folder / "scheduler_config.json", content)
