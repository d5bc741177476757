"""Sizes of the networks at the thesis' settings, counted without memory for their weights."""

import torch
from omegaconf import OmegaConf

from affect_hpc.config.compose import CONFIG_FOLDER
from affect_hpc.config.model import ConditionConfig, DiscriminatorConfig, FirstStageConfig, UnetConfig
from affect_hpc.models import first_stage
from affect_hpc.models.denoiser import Denoiser, build_unet, count_parameters
from affect_hpc.models.discriminator import PatchDiscriminator

THESIS = OmegaConf.load(CONFIG_FOLDER / "model" / "thesis.yaml").model


def config(kind: type, name: str) -> object:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), THESIS[name]))


def test_first_stage() -> None:
    with torch.device("meta"):
        assert count_parameters(first_stage.build(config(FirstStageConfig, "first_stage"))) == 60_605_598


def test_unet_and_label_embedding() -> None:
    unet, condition = config(UnetConfig, "unet"), config(ConditionConfig, "condition")
    with torch.device("meta"):
        assert count_parameters(build_unet(unet, condition, 3, 32)) == 156_760_483
        assert count_parameters(Denoiser.build(unet, condition, 3, 32)) == 156_760_483 + 9 * 512


def test_heads_have_32_channels_each() -> None:
    with torch.device("meta"):
        unet = build_unet(config(UnetConfig, "unet"), config(ConditionConfig, "condition"), 3, 32)
    heads = [block.attentions[0].transformer_blocks[0].attn1.heads for block in unet.down_blocks]
    assert heads == [5, 10, 20]


def test_discriminator() -> None:
    with torch.device("meta"):
        network = PatchDiscriminator(DiscriminatorConfig())
        assert count_parameters(network) == 2_765_633
        assert network(torch.empty(2, 3, 128, 128)).shape == (2, 1, 14, 14)
