"""Checkpoints in the original's layout, made from networks of ours by walking through them in the original's order."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from diffusers import UNet2DConditionModel, VQModel
from torch import Tensor, nn

from affect_hpc.config.model import ConditionConfig, FirstStageConfig, UnetConfig
from affect_hpc.models import first_stage
from affect_hpc.models.conditioning import LabelEmbedding
from affect_hpc.models.denoiser import build_unet

LIGHTNING = "pytorch_lightning.callbacks.model_checkpoint"
TINY = FirstStageConfig([32, 32], 1, 32, [1], True, 16, 3), UnetConfig([32, 64], 1, 32, 16, [0, 1])
LARGER = FirstStageConfig([32, 64, 64], 2, 32, [0, 2], True, 32, 4), UnetConfig([32, 64, 96], 2, 32, 32, [1])
NO_ATTENTION = FirstStageConfig([32, 64], 1, 32, [], False, 16, 3), UnetConfig([32], 1, 32, 8, [])


@dataclass
class Model:
    """Networks with random weights, their sizes in the original's terms, and their tensors under its names."""

    first_stage: VQModel
    raw: UNet2DConditionModel
    averaged: UNet2DConditionModel
    embedding: LabelEmbedding
    config: dict[str, Any]
    state: dict[str, Tensor] = field(default_factory=dict)

    def save(self, folder: Path, new_format: bool = True) -> tuple[Path, Path]:
        """Write checkpoint and config as Lightning and the original would; returns where."""
        checkpoint, config = folder / "model.ckpt", folder / "config.json"
        save_lightning(checkpoint, self.state, new_format)
        config.write_text(json.dumps(self.config))
        return checkpoint, config


def save_lightning(path: Path, state: dict[str, Any], new_format: bool = True, **more: Any) -> None:
    """A checkpoint whose callbacks name a class of Lightning, which is gone again afterwards."""
    module = ModuleType(LIGHTNING)
    callback = type("ModelCheckpoint", (), {"__module__": LIGHTNING})
    module.ModelCheckpoint = callback
    packages = {LIGHTNING: module, **{LIGHTNING.rsplit(".", n)[0]: ModuleType("lightning") for n in (1, 2)}}
    content = {
        "epoch": 3,
        "callbacks": {callback: {"best_model_score": torch.tensor(0.5), "itself": callback()}},
        "state_dict": state,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
        **more,
    }
    with patch.dict(sys.modules, packages):
        torch.save(content, path, _use_new_zipfile_serialization=new_format)


def make(sizes: tuple[FirstStageConfig, UnetConfig] = TINY, classes: int = 8, one_table: bool = False) -> Model:
    """A model of these sizes; latents have a quarter of the classes' ids as well as any."""
    vqgan_sizes, unet_sizes = sizes
    torch.manual_seed(0)
    condition = ConditionConfig(classes, 24, classes)
    latent_side = 16 // 2 ** (len(vqgan_sizes.block_out_channels) - 1)
    vqgan = first_stage.build(vqgan_sizes)
    unets = [build_unet(unet_sizes, condition, vqgan_sizes.embed_dim, latent_side) for _ in range(2)]
    for network in (vqgan, *unets):
        _shake(network)
    model = Model(vqgan.eval(), unets[0].eval(), unets[1].eval(), LabelEmbedding(condition), _terms(sizes, condition))
    raw = unet_state(model.raw)
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in raw.items()}
    averaged = unet_state(model.averaged)
    state |= {"model_ema." + f"diffusion_model.{name}".replace(".", ""): tensor for name, tensor in averaged.items()}
    state |= {f"first_stage_model.{name}": tensor for name, tensor in first_stage_state(model.first_stage).items()}
    rows = model.embedding.table.weight.detach()
    if one_table:
        state["cond_stage_model.embedding.weight"] = rows
    else:
        state["cond_stage_model.embedding.weight"] = rows[:-1]
        state["cond_stage_model.uncond_embedding.weight"] = rows[-1:]
    state["model_ema.decay"], state["model_ema.num_updates"] = torch.tensor(0.9999), torch.tensor(7, dtype=torch.int32)
    state["betas"] = torch.linspace(0.0015**0.5, 0.0205**0.5, 1000) ** 2
    state["sqrt_one_minus_alphas_cumprod"] = (1 - (1 - state["betas"]).cumprod(0)).sqrt()
    state["first_stage_model.loss.discriminator.main.0.weight"] = torch.zeros(2, 3, 4, 4)
    model.state = state
    return model


@torch.no_grad()
def _shake(network: nn.Module) -> None:
    # Norms that begin at 1 and 0, and biases at 0, would hide a mix-up.
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))


def _terms(sizes: tuple[FirstStageConfig, UnetConfig], condition: ConditionConfig) -> dict[str, Any]:
    vqgan, unet = sizes
    factors = [width // 32 for width in vqgan.block_out_channels]
    return {
        "unet": {
            "image_size": 16 // 2 ** (len(factors) - 1),
            "model_channels": 32,
            "attention_resolutions": [2**level for level in unet.attention_levels],
            "num_res_blocks": unet.layers_per_block,
            "channel_mult": [width // 32 for width in unet.block_out_channels],
            "num_head_channels": unet.head_channels,
            "in_channels": vqgan.embed_dim,
            "out_channels": vqgan.embed_dim,
            "use_spatial_transformer": True,
            "context_dim": condition.dim,
        },
        "first_stage": {
            **{"double_z": False, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": factors},
            "z_channels": vqgan.embed_dim,
            "num_res_blocks": vqgan.layers_per_block,
            "attn_resolutions": [16 // 2**level for level in vqgan.attention_levels],
            "attn_type": "vanilla" if vqgan.mid_block_attention else "none",
            "n_embed": vqgan.codebook_size,
            "embed_dim": vqgan.embed_dim,
        },
        **{"n_classes": condition.num_classes, "linear_start": 0.0015, "linear_end": 0.0205, "timesteps": 1000},
        "remark": "terms of ours stand beside these",
    }


def _put(state: dict[str, Tensor], name: str, module: nn.Module, **parts: str) -> None:
    """All weights of a module; ``parts`` renames its children."""
    for key, tensor in module.state_dict().items():
        child, dot, rest = key.partition(".")
        state[f"{name}.{parts.get(child, child)}{dot}{rest}"] = tensor


def unet_state(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Its weights by the original's names: blocks are counted as they are met."""
    state: dict[str, Tensor] = {}
    parts = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
    parts |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    _put(state, "time_embed", unet.time_embedding, linear_1="0", linear_2="2")
    _put(state, "input_blocks.0.0", unet.conv_in)
    count = 1
    for block in unet.down_blocks:
        for i, resnet in enumerate(block.resnets):
            _put(state, f"input_blocks.{count}.0", resnet, **parts)
            if hasattr(block, "attentions"):
                _put(state, f"input_blocks.{count}.1", block.attentions[i])
            count += 1
        for downsampler in block.downsamplers or []:
            _put(state, f"input_blocks.{count}.0.op", downsampler.conv)
            count += 1
    _put(state, "middle_block.0", unet.mid_block.resnets[0], **parts)
    _put(state, "middle_block.1", unet.mid_block.attentions[0])
    _put(state, "middle_block.2", unet.mid_block.resnets[1], **parts)
    count = 0
    for block in unet.up_blocks:
        for i, resnet in enumerate(block.resnets):
            modules = 1
            _put(state, f"output_blocks.{count}.0", resnet, **parts)
            if hasattr(block, "attentions"):
                _put(state, f"output_blocks.{count}.1", block.attentions[i])
                modules = 2
            if block.upsamplers and resnet is block.resnets[-1]:
                _put(state, f"output_blocks.{count}.{modules}.conv", block.upsamplers[0].conv)
            count += 1
    _put(state, "out.0", unet.conv_norm_out)
    _put(state, "out.2", unet.conv_out)
    return state


def first_stage_state(vqgan: VQModel) -> dict[str, Tensor]:
    """Its weights by the original's names; attention consists of convolutions there."""
    state: dict[str, Tensor] = {}

    def attention(name: str, module: nn.Module) -> None:
        found: dict[str, Tensor] = {}
        _put(found, name, module, group_norm="norm", to_q="q", to_k="k", to_v="v", to_out="proj_out")
        for key, tensor in found.items():
            state[key.replace("proj_out.0", "proj_out")] = tensor[..., None, None] if tensor.ndim == 2 else tensor

    def middle(name: str, module: nn.Module) -> None:
        for i, resnet in enumerate(module.resnets):
            _put(state, f"{name}.block_{i + 1}", resnet)
        if module.attentions[0] is not None:
            attention(f"{name}.attn_1", module.attentions[0])

    for name in ("quant_conv", "post_quant_conv", "quantize"):
        _put(state, name, getattr(vqgan, name))
    levels = len(vqgan.encoder.down_blocks)
    for name, coder in (("encoder", vqgan.encoder), ("decoder", vqgan.decoder)):
        _put(state, f"{name}.conv_in", coder.conv_in)
        _put(state, f"{name}.norm_out", coder.conv_norm_out)
        _put(state, f"{name}.conv_out", coder.conv_out)
        middle(f"{name}.mid", coder.mid_block)
        side = "down" if name == "encoder" else "up"
        blocks = coder.down_blocks if side == "down" else coder.up_blocks
        for i, block in enumerate(blocks):
            stem = f"{name}.{side}.{i if side == 'down' else levels - 1 - i}"
            for j, resnet in enumerate(block.resnets):
                _put(state, f"{stem}.block.{j}", resnet, conv_shortcut="nin_shortcut")
                if hasattr(block, "attentions"):
                    attention(f"{stem}.attn.{j}", block.attentions[j])
            for sampler in getattr(block, f"{side}samplers") or []:
                _put(state, f"{stem}.{side}sample.conv", sampler.conv)
    return state
