"""Conventions of the networks: what is quantised when, what a label means, and that saving loses nothing."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from affect_hpc.config.model import ConditionConfig, FirstStageConfig, LatentConfig, LatentScale, UnetConfig
from affect_hpc.models import first_stage
from affect_hpc.models.conditioning import LabelEmbedding, drop_labels
from affect_hpc.models.denoiser import Denoiser
from affect_hpc.models.ldm import LatentNorm

SMALL = FirstStageConfig([8, 8, 16], 1, 4, [], False, 32, 3)
UNET, CONDITION = UnetConfig([16, 32], 1, 8, 16, [1]), ConditionConfig(dim=16)


@pytest.fixture
def model() -> first_stage.VQModel:
    torch.manual_seed(0)
    network = first_stage.build(SMALL).eval()
    torch.nn.init.normal_(network.quantize.embedding.weight)
    return network


@torch.no_grad()
def test_encoding_is_not_quantised_and_decoding_quantises(model: first_stage.VQModel) -> None:
    latents = first_stage.encode(model, torch.rand(2, 3, 32, 32) * 2 - 1)
    assert latents.shape == (2, 3, 8, 8)
    quantised, _, _ = model.quantize(latents)
    assert not torch.allclose(latents, quantised)
    torch.testing.assert_close(first_stage.decode(model, latents), first_stage.decode(model, quantised))


def test_legacy_beta_weighs_the_codebook_term(model: first_stage.VQModel) -> None:
    latents = torch.randn(1, 3, 4, 4, requires_grad=True)
    _, loss, (_, _, index) = model.quantize(latents)
    codes = model.quantize.embedding.weight[index].view(1, 4, 4, 3).permute(0, 3, 1, 2)
    (gradient,) = torch.autograd.grad(loss, latents, retain_graph=True)
    # The encoder's share has weight 1, the codebook's beta = 0.25 (D-06).
    torch.testing.assert_close(gradient, 2 * (latents - codes).detach() / latents.numel())
    (codebook,) = torch.autograd.grad(loss, model.quantize.embedding.weight)
    assert float(codebook.sum()) == pytest.approx(
        float((0.25 * 2 * (codes - latents) / latents.numel()).sum()), rel=1e-4
    )


def test_a_saved_first_stage_is_the_same(model: first_stage.VQModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "first_stage")
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    again = first_stage.load(tmp_path)
    assert not again.training and not any(parameter.requires_grad for parameter in again.parameters())
    assert torch.equal(first_stage.reconstruct(again, images), first_stage.reconstruct(model, images))


def test_a_saved_denoiser_is_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser.build(UNET, CONDITION, 3, 8).eval()
    denoiser.save(tmp_path / "unet", tmp_path / "conditioner.safetensors")
    again = Denoiser.load(tmp_path, CONDITION)
    arguments = torch.randn(2, 3, 8, 8), torch.tensor([3, 500]), torch.tensor([1, 8])
    with torch.no_grad():
        assert torch.equal(again(*arguments), denoiser(*arguments))


def noise_error(denoiser: Denoiser) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    z, noise = torch.randn(2, 2, 3, 8, 8, generator=generator)
    loss: Tensor = (denoiser(z, torch.tensor([3, 500]), torch.tensor([1, 8])) - noise).square().mean()
    return loss


def gradients(denoiser: Denoiser) -> dict[str, Tensor]:
    denoiser.zero_grad()
    noise_error(denoiser).backward()  # type: ignore[no-untyped-call]
    return {name: one.grad.clone() for name, one in denoiser.named_parameters() if one.grad is not None}


def test_activations_computed_again_are_the_same_training() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser.build(UNET, CONDITION, 3, 8)
    kept, loss = gradients(denoiser), noise_error(denoiser)
    saved: list[int] = []

    def packed(tensor: Tensor) -> Tensor:
        saved[-1] += tensor.numel()
        return tensor

    for again in (False, True):
        if again:
            denoiser.checkpoint_activations()
        saved.append(0)
        with torch.autograd.graph.saved_tensors_hooks(packed, lambda tensor: tensor):
            assert torch.equal(noise_error(denoiser), loss)
    assert saved[1] < 0.5 * saved[0], "far less is kept between forward and backward"
    found = gradients(denoiser)
    assert found.keys() == kept.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-9)


def test_a_compiled_unet_is_the_same_network_with_the_same_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser.build(UNET, CONDITION, 3, 8)
    names, kept, loss = list(denoiser.state_dict()), gradients(denoiser), noise_error(denoiser)
    frames: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        frames.append(graph)
        return graph.forward

    denoiser.compile_unet(backend)
    torch.testing.assert_close(noise_error(denoiser), loss)
    assert frames, "the U-Net was traced"
    found = gradients(denoiser)
    for name, gradient in kept.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)
    assert list(denoiser.state_dict()) == names
    denoiser.save(tmp_path / "unet", tmp_path / "conditioner.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(noise_error(Denoiser.load(tmp_path, CONDITION)), loss.detach())
    traced = len(frames)
    noise_error(copy.deepcopy(denoiser))
    assert len(frames) == traced, "a copy is not compiled"


def test_attention_is_torchs_own() -> None:
    denoiser = Denoiser.build(UNET, CONDITION, 3, 8)
    found = {type(processor).__name__ for processor in denoiser.unet.attn_processors.values()}
    assert found == {"AttnProcessor2_0"}, "diffusers' name for scaled_dot_product_attention"


def test_each_label_has_a_row_and_no_label_the_last() -> None:
    embedding = LabelEmbedding(CONDITION)
    assert embedding.table.weight.shape == (9, 16)
    assert torch.equal(embedding(torch.tensor([8]))[0, 0], embedding.table.weight[8])


def test_labels_are_dropped_each_or_all_at_once() -> None:
    label = torch.arange(8)
    each = torch.tensor([0.0, 0.19, 0.2, 0.21, 0.9, 0.1, 0.5, 0.999])
    assert drop_labels(label, 8, 0.2, each).tolist() == [8, 8, 2, 3, 4, 8, 6, 7]
    assert drop_labels(label, 8, 0.2, torch.tensor([0.19])).tolist() == [8] * 8
    assert drop_labels(label, 8, 0.2, torch.tensor([0.2])).tolist() == label.tolist()
    assert torch.equal(drop_labels(label, 8, 0.0, torch.zeros(8)), label), "never where the share is none"


def test_channel_normalisation_gives_unit_variance_and_is_undone() -> None:
    latents = (
        torch.randn(64, 3, 8, 8) * torch.tensor([1.4, 1.3, 0.3])[:, None, None]
        + torch.tensor([1.0, 0, -2])[:, None, None]
    )
    norm = LatentNorm.of(LatentConfig(LatentScale.per_channel), 3, latents.split(10))
    z = norm.normalise(latents)
    torch.testing.assert_close(z.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(dim=(0, 2, 3)), torch.ones(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(norm.restore(z), latents, rtol=1e-5, atol=1e-5)


def test_fixed_scale_multiplies() -> None:
    latents = torch.randn(2, 3, 4, 4)
    norm = LatentNorm.of(LatentConfig(LatentScale.fixed, 0.18), 3, [])
    torch.testing.assert_close(norm.normalise(latents), latents * 0.18)


def test_half_precision_files_are_used_in_float32(model: first_stage.VQModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "first_stage")
    file = tmp_path / "first_stage" / "diffusion_pytorch_model.safetensors"
    save_file({name: value.half() for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    again = first_stage.load(tmp_path)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(
            first_stage.encode(again, images), first_stage.encode(model, images), rtol=0.01, atol=0.01
        )


def test_a_tuned_denoiser_is_the_same_function() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser.build(UNET, CONDITION, 3, 8).eval()
    arguments = torch.randn(4, 3, 8, 8), torch.tensor([3, 500, 20, 999]), torch.tensor([1, 8, 0, 3])
    with torch.no_grad():
        before = denoiser(*arguments)
        denoiser.tune()
        torch.testing.assert_close(denoiser(*arguments), before, rtol=1e-4, atol=1e-5)
        # The label is still heard.
        assert (denoiser(arguments[0], arguments[1], torch.tensor([2, 2, 2, 2])) - before).abs().amax() > 1e-4


def test_decoding_in_low_precision_picks_the_same_codes(model: first_stage.VQModel) -> None:
    with torch.no_grad():
        latents = first_stage.encode(model, torch.rand(2, 3, 32, 32) * 2 - 1)
        exact, rough = first_stage.decode(model, latents), first_stage.decode(model, latents, low_precision=True)
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    # Rounding. One other code of 64 would be a blot as strong as the picture's own contrast, 0.18 of it over the whole.
    assert float((rough - exact).std()) < 0.08 * float(exact.std())
