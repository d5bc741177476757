"""First stage: diffusers' VQModel at our sizes, with the thesis' conventions of what is quantised when."""

from pathlib import Path

import torch
from diffusers import VQModel
from torch import Tensor

from affect_hpc.config.model import FirstStageConfig
from affect_hpc.config.sizes import DECODER_CPU_BATCH


def build(config: FirstStageConfig) -> VQModel:
    """A new first stage (VQGAN, Esser et al. 2021, as used by the thesis, section 4.3.2)."""
    levels = len(config.block_out_channels)
    attention = set(config.attention_levels)
    down = tuple("AttnDownEncoderBlock2D" if i in attention else "DownEncoderBlock2D" for i in range(levels))
    up = tuple("AttnUpDecoderBlock2D" if i in attention else "UpDecoderBlock2D" for i in reversed(range(levels)))
    model = VQModel(
        in_channels=3,
        out_channels=3,
        latent_channels=config.embed_dim,
        block_out_channels=tuple(config.block_out_channels),
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_num_groups,
        mid_block_add_attention=config.mid_block_attention,
        down_block_types=down,
        up_block_types=up,
        num_vq_embeddings=config.codebook_size,
        vq_embed_dim=config.embed_dim,
    )
    # The constructor does not take these two.
    model.quantize.legacy = config.legacy_beta
    model.quantize.beta = config.commitment_weight
    return model


def encode(model: VQModel, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] -> unquantised latents (B, C, H / f, W / f): what is diffused."""
    latents: Tensor = model.encode(images).latents
    return latents


@torch.no_grad()
def encode_stored(model: VQModel, images: Tensor) -> Tensor:
    """``encode`` as shards of latents hold it, in float16: training on either is training on the same latents."""
    return encode(model, images).half()


def decode(model: VQModel, latents: Tensor, low_precision: bool = False) -> Tensor:
    """Latents -> images (B, 3, H, W), about [-1, 1]. Quantises first, as the thesis does (section 3.3).

    Args:
        low_precision: decode in bfloat16; which codes are nearest is decided in the type of the latents all the same.
    """
    share = DECODER_CPU_BATCH if latents.device.type == "cpu" else len(latents)
    return torch.cat([_decode(model, some, low_precision) for some in torch.split(latents, share)])


def _decode(model: VQModel, latents: Tensor, low_precision: bool) -> Tensor:
    if not low_precision:
        images: Tensor = model.decode(latents).sample
        return images
    codes = model.quantize(latents)[0]
    with torch.autocast(latents.device.type, torch.bfloat16):
        images = model.decode(codes, force_not_quantize=True).sample
    return images.to(latents.dtype)


def load(folder: Path) -> VQModel:
    """The frozen first stage below ``folder`` (a train_vqgan output, or a packaged one), in eval mode."""
    model: VQModel = VQModel.from_pretrained(
        folder / "first_stage", local_files_only=True, torch_dtype=torch.float32, low_cpu_mem_usage=False
    )
    return model.eval().requires_grad_(False)


@torch.no_grad()
def reconstruct(model: VQModel, images: Tensor) -> Tensor:
    """Images through encoder, quantiser and decoder."""
    return decode(model, encode(model, images))
