"""Sizes of the networks: what the plan counts from configs is what the real networks have, do and keep."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from activations import Alive, autocast_of_a_gpu, own_storages, saved_bytes
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from affect_hpc.config import sizes
from affect_hpc.config.compose import CONFIG_FOLDER
from affect_hpc.config.layers import Size
from affect_hpc.config.model import ConditionConfig, DiscriminatorConfig, FirstStageConfig, UnetConfig
from affect_hpc.experts.efficientnet import EfficientNetLite0
from affect_hpc.experts.referee import Trunk
from affect_hpc.models import first_stage
from affect_hpc.models.classifier import NoisyLatentClassifier
from affect_hpc.models.denoiser import Denoiser, build_unet, count_parameters
from affect_hpc.models.discriminator import PatchDiscriminator

BATCH = 2
FIRST_STAGES = {
    "smoke": (FirstStageConfig([16, 16, 32], 1, 8, [], False, 64), 32),
    "tiny": (FirstStageConfig([32, 48, 96], 1, 16, [], False, 4096), 32),
    "attention": (FirstStageConfig([16, 32, 32], 2, 8, [1, 2], True, 512), 32),
    "two levels": (FirstStageConfig([24, 48], 3, 8, [1], False, 100, embed_dim=4), 16),
}
UNETS = {
    "smoke": (UnetConfig([16, 32], 1, 8, 16, [1]), 16, 8),
    "tiny": (UnetConfig([48, 96, 144], 1, 16, 16, [2]), 64, 16),
    "attention everywhere": (UnetConfig([32, 64, 96], 2, 16, 16, [0, 1, 2]), 32, 16),
    "sides that do not halve": (UnetConfig([16, 32, 48], 2, 8, 16, [0]), 32, 12),
}
DISCRIMINATORS = [(DiscriminatorConfig(), 64), (DiscriminatorConfig(16, 2), 48), (DiscriminatorConfig(16, 4), 64)]
CLASSIFIERS = [([32, 64], 16, 8, 16), ([16, 32, 48], 16, 5, 12), ([32], 8, 3, 8)]
TRUNKS = [([24, 48, 96, 128, 128], 8, 64), ([8, 16, 16], 128, 32)]


def model_config(name: str, part: str, kind: type) -> Any:
    """One part of a file of hydra_configs/model."""
    values = OmegaConf.load(CONFIG_FOLDER / "model" / f"{name}.yaml").model
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values.get(part, {})))


class Part(nn.Module):
    """Some modules and how they run on one tensor."""

    def __init__(self, run: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.run, self.parts = run, nn.ModuleList(modules)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(*inputs)


def encoder(config: FirstStageConfig) -> Part:
    model = first_stage.build(config)
    return Part(lambda images: first_stage.encode(model, images), model.encoder, model.quant_conv)


def decoder(config: FirstStageConfig) -> Part:
    model = first_stage.build(config)
    parts = (model.quantize, model.post_quant_conv, model.decoder)
    return Part(lambda latents: model.decode(latents).sample, *parts)


def latents(config: FirstStageConfig, side: int) -> Tensor:
    side >>= len(config.block_out_channels) - 1
    return torch.randn(BATCH, config.embed_dim, side, side, requires_grad=True)


def unet_case(config: UnetConfig, dim: int, side: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    network = build_unet(config, ConditionConfig(dim=dim), 3, side)
    run = Part(lambda z, t, token: network(z, t, encoder_hidden_states=token).sample, network)
    return run, (torch.randn(BATCH, 3, side, side), torch.zeros(BATCH, dtype=torch.int64), torch.randn(BATCH, 1, dim))


Case = tuple[Size, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]]


def cases() -> dict[str, Case]:
    """Name -> what is counted, and what makes the real network with its inputs."""
    found: dict[str, Case] = {}
    for name, (config, side) in FIRST_STAGES.items():
        images = (BATCH, 3, side, side)
        found[f"encoder {name}"] = (
            sizes.encoder_size(config, side),
            lambda config=config, images=images: (encoder(config), (torch.randn(images),)),
        )
        found[f"decoder {name}"] = (
            sizes.decoder_size(config, side),
            lambda config=config, side=side: (decoder(config), (latents(config, side),)),
        )
    for name, (unet, dim, side) in UNETS.items():
        size = sizes.unet_size(unet, ConditionConfig(dim=dim), 3, side)
        found[f"unet {name}"] = (size, lambda unet=unet, dim=dim, side=side: unet_case(unet, dim, side))
    for critic, side in DISCRIMINATORS:
        found[f"discriminator {critic.num_layers}"] = (
            sizes.discriminator_size(critic, side),
            lambda critic=critic, side=side: (PatchDiscriminator(critic), (torch.randn(BATCH, 3, side, side),)),
        )
    for channels, outputs, side in TRUNKS:
        found[f"trunk {outputs}"] = (
            sizes.trunk_size(channels, outputs, side),
            lambda channels=channels, outputs=outputs, side=side: (
                Trunk(channels, outputs),
                (torch.randn(BATCH, 3, side, side),),
            ),
        )
    for widths, heads, classes, side in CLASSIFIERS:
        found[f"classifier {side}"] = (
            sizes.classifier_size(widths, 3, classes, side),
            lambda widths=widths, heads=heads, classes=classes, side=side: (
                NoisyLatentClassifier(3, widths, heads, classes),
                (torch.randn(BATCH, 3, side, side), torch.zeros(BATCH, dtype=torch.int64)),
            ),
        )
    return found


CASES = cases()
EACH = pytest.mark.parametrize("name", CASES)


@pytest.fixture(autouse=True)
def codes_are_searched_without_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search ends in whole numbers; only the hooks of this test would keep its distances alive."""
    search = torch.cdist
    monkeypatch.setattr(torch, "cdist", torch.no_grad()(search))


@EACH
def test_parameters_are_equal(name: str) -> None:
    size, make = CASES[name]
    with torch.device("meta"):
        assert size.parameters == count_parameters(make()[0])


@EACH
def test_multiply_adds_are_those_that_torch_counts(name: str) -> None:
    size, make = CASES[name]
    network, inputs = make()
    # The counter knows attention as the two products it is made of.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network(*inputs)
    assert counter.get_total_flops() == 2 * size.macs * BATCH


@EACH
def test_activations_are_those_that_autograd_saves(name: str) -> None:
    size, make = CASES[name]
    network, inputs = make()
    assert size.saved * BATCH == pytest.approx(saved_bytes(network, inputs), rel=0.04)


@pytest.mark.parametrize("name", [name for name in CASES if name.split()[0] in ("encoder", "decoder", "unet")])
def test_what_is_alive_at_once_without_gradients(name: str) -> None:
    size, make = CASES[name]
    network, inputs = make()
    known = own_storages(network) | {tensor.untyped_storage()._cdata for tensor in inputs}
    with torch.no_grad(), Alive(known) as alive:
        network.train()(*inputs)
    assert size.live * BATCH == pytest.approx(alive.most, rel=0.15)


@pytest.mark.parametrize("name", ["encoder attention", "decoder tiny", "unet attention everywhere", "discriminator 3"])
def test_activations_in_half_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size, make = CASES[name]
    with autocast_of_a_gpu(monkeypatch):
        network, inputs = make()
        saved = saved_bytes(network, inputs)
        # Matrices are cast once a pass and stay until its end: the estimates count them beside the activations.
        copies = 2 * sum(weight.numel() for weight in network.parameters() if weight.dim() > 1)
        if name.startswith("decoder"):
            codes = network.parts[0].embedding.weight.numel()
            copies -= 2 * codes
        biases = 2 * sum(weight.numel() for weight in network.parameters() if weight.dim() == 1)
    assert size.saved_mixed * BATCH == pytest.approx(saved - copies, rel=0.02, abs=biases)


@pytest.mark.parametrize("half", [False, True])
def test_checkpointing_keeps_less_than_half(half: bool) -> None:
    config, dim, side = UNETS["attention everywhere"]
    whole, less = (sizes.unet_size(config, ConditionConfig(dim=dim), 3, side, again) for again in (False, True))
    assert (whole.parameters, whole.macs) == (less.parameters, less.macs)
    assert (less.saved_mixed < whole.saved_mixed / 2) if half else (less.saved < whole.saved / 2)


def test_checkpointed_activations_are_those_that_stay() -> None:
    config, dim, side = UNETS["attention everywhere"]
    counted = sizes.unet_size(config, ConditionConfig(dim=dim), 3, side, checkpointing=True)
    network, inputs = unet_case(config, dim, side)
    network.parts[0].enable_gradient_checkpointing()
    known = own_storages(network) | {tensor.untyped_storage()._cdata for tensor in inputs}
    with Alive(known) as alive:
        output = network.train()(*inputs)
    # The largest block that is computed again: a transformer of 32 channels at full resolution.
    again = 4 * 32 * (28 * side**2 + 2)
    kept = (alive.now - output.untyped_storage().nbytes()) / BATCH
    assert counted.saved - again == pytest.approx(kept, rel=0.05)


def test_a_backward_pass_is_two_forward_passes() -> None:
    size, make = CASES["unet attention everywhere"]
    network, inputs = make()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(*inputs).sum().backward()
    assert counter.get_total_flops() / (2 * size.macs * BATCH) == pytest.approx(3, rel=0.01)


def test_perceptual_losses() -> None:
    network = EfficientNetLite0().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.stages(torch.zeros(1, 3, 64, 64))
    size = sizes.perceptual_size("efficientnet_lite0", 64)
    assert size.parameters == count_parameters(network)
    assert 2 * size.macs == pytest.approx(counter.get_total_flops(), rel=0.001)
    assert sizes.perceptual_size("none", 64) == Size()


def test_the_thesis_sizes() -> None:
    stage = model_config("thesis", "first_stage", FirstStageConfig)
    unet, condition = (
        model_config("thesis", "unet", UnetConfig),
        model_config("thesis", "condition", ConditionConfig),
    )
    encoding, decoding = sizes.encoder_size(stage, 128), sizes.decoder_size(stage, 128)
    noise, critic = sizes.unet_size(unet, condition, 3, 32), sizes.discriminator_size(DiscriminatorConfig(), 128)
    assert (encoding + decoding).parameters == 60_605_598
    assert (noise.parameters, critic.parameters) == (156_760_483, 2_765_633)
    gigas = [round(2 * size.macs / 1e9, 1) for size in (encoding, decoding, noise)]
    assert gigas == [88.5, 174.1, 46.0]
    with torch.device("meta"):
        assert count_parameters(first_stage.build(stage)) == 60_605_598
        assert count_parameters(build_unet(unet, condition, 3, 32)) == 156_760_483
        assert count_parameters(Denoiser.build(unet, condition, 3, 32)) == 156_760_483 + 9 * 512


@pytest.mark.parametrize("name", ["smoke", "tiny"])
def test_the_sizes_of_other_files(name: str) -> None:
    stage = model_config(name, "first_stage", FirstStageConfig)
    unet, condition = model_config(name, "unet", UnetConfig), model_config(name, "condition", ConditionConfig)
    with torch.device("meta"):
        real = count_parameters(first_stage.build(stage)), count_parameters(build_unet(unet, condition, 3, 16))
    counted = (sizes.encoder_size(stage, 64) + sizes.decoder_size(stage, 64), sizes.unet_size(unet, condition, 3, 16))
    assert tuple(size.parameters for size in counted) == real


def test_heads_have_32_channels_each() -> None:
    with torch.device("meta"):
        unet = build_unet(
            model_config("thesis", "unet", UnetConfig), model_config("thesis", "condition", ConditionConfig), 3, 32
        )
    heads = [block.attentions[0].transformer_blocks[0].attn1.heads for block in unet.down_blocks]
    assert heads == [5, 10, 20]


def test_discriminator_has_a_logit_for_each_patch() -> None:
    with torch.device("meta"):
        assert PatchDiscriminator(DiscriminatorConfig())(torch.empty(2, 3, 128, 128)).shape == (2, 1, 14, 14)
