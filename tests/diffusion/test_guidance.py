"""Guidance without a classifier, in an interval of levels, and with one."""

import pytest
import torch
from gaussian_world import SMOOTH, even_path, some, world
from torch import Tensor

from affect_hpc.diffusion import ddim
from affect_hpc.diffusion.guidance import classifier_guided, clipped, guided


class LabelPredictor:
    """Predicts its label, the null label's prediction is -10; counts passes and samples."""

    def __init__(self) -> None:
        self.samples: list[int] = []

    def __call__(self, z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.samples.append(len(z))
        value = torch.where(label == 8, -10.0, label.double())
        return value.to(z)[:, None, None, None].expand_as(z)


def guide(predict: LabelPredictor, t: list[int], gamma: float, levels: tuple[int, int] | None = None) -> list[float]:
    """Predictions for two samples of the labels 1 and 4."""
    eps = guided(predict, gamma, 8, *([] if levels is None else [levels]))
    made: list[float] = eps(torch.zeros(2, 1, 1, 1), torch.tensor(t), torch.tensor([1, 4])).flatten().tolist()
    return made


def test_guidance_extrapolates_from_the_null_prediction_in_one_batch() -> None:
    predict = LabelPredictor()
    assert guide(predict, [5, 5], 3.0) == [-10 + 3 * 11, -10 + 3 * 14]
    assert predict.samples == [4]


def test_gamma_one_is_the_network_itself() -> None:
    predict = LabelPredictor()
    assert guided(predict, 1.0, 8) is predict
    assert guided(predict, 1.0, 8, (3, 5)) is predict


def test_gamma_zero_is_the_unconditional_prediction_in_one_pass() -> None:
    predict = LabelPredictor()
    assert guide(predict, [5, 5], 0.0) == [-10, -10]
    assert predict.samples == [2]


def test_whole_passes_under_gamma_zero_and_one_are_the_two_models() -> None:
    z, label = some(6)
    data, path = world(), even_path(20)
    for gamma, seen in ((0.0, torch.full_like(label, 2)), (1.0, label)):
        made = ddim.decode(z, label, path, guided(data, gamma, 2))
        assert torch.equal(made, ddim.decode(z, seen, path, data))
    assert data.calls == 4 * 20


@pytest.mark.parametrize(("t", "acts"), [(99, False), (100, True), (300, True), (301, False)])
def test_outside_its_interval_the_conditional_prediction_stands_alone(t: int, acts: bool) -> None:
    predict = LabelPredictor()
    assert guide(predict, [t, t], 3.0, (100, 300)) == ([23, 32] if acts else [1, 4])
    assert predict.samples == ([4] if acts else [2])


def test_gamma_zero_outside_its_interval_is_conditional_too() -> None:
    assert guide(LabelPredictor(), [500, 500], 0.0, (100, 300)) == [1, 4]


def test_each_sample_goes_by_its_own_level() -> None:
    assert guide(LabelPredictor(), [99, 100], 3.0, (100, 300)) == [1, 32]


def test_an_interval_that_falls_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(300, 100\)"):
        guided(LabelPredictor(), 3.0, 8, (300, 100))


class Mixture:
    """Three labels, equally many, each Gaussian: the unconditional prediction and the exact classifier."""

    def __init__(self) -> None:
        self.parts = world()

    def log_joint(self, z: Tensor, t: Tensor) -> Tensor:
        """log p(z_t | label) up to a constant, (B, 3)."""
        logs = []
        for label in range(3):
            mean, variance = self.parts.law(SMOOTH[t], torch.full_like(t, label))
            logs.append(-((z - mean) ** 2 / variance).sum(dim=(1, 2, 3)) / 2)
        return torch.stack(logs, 1)

    def log_prob(self, z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return self.log_joint(z, t).log_softmax(1).gather(1, label[:, None])[:, 0]

    def unconditional(self, z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        weight = self.log_joint(z, t).softmax(1)
        parts = torch.stack([self.parts(z, t, torch.full_like(t, part)) for part in range(3)], 1)
        return (weight[:, :, None, None, None] * parts).sum(1)


@pytest.mark.parametrize("inference", [False, True])
def test_the_exact_classifier_makes_the_conditional_prediction(inference: bool) -> None:
    mixture = Mixture()
    with torch.inference_mode(inference), torch.no_grad():
        z, label = some(9)
        t = torch.tensor([10, 200, 400, 500, 600, 700, 800, 900, 960])
        eps = classifier_guided(mixture.unconditional, mixture.log_prob, 1.0, SMOOTH)(z, t, label)
        assert not eps.requires_grad
        torch.testing.assert_close(eps, mixture.parts(z, t, label), rtol=1e-9, atol=1e-9)


def test_a_classifier_with_weights_works_under_inference_mode() -> None:
    embedding = torch.nn.Embedding(3, 4)
    with torch.inference_mode():
        z, label = torch.randn(3, 4, 1, 1), torch.arange(3)

        def log_prob(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
            return (z.flatten(1) * embedding(label)).sum(1)

        def still(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
            return torch.zeros_like(z)

        t = torch.full((3,), 480)
        eps = classifier_guided(still, log_prob, 2.0, SMOOTH)(z, t, label)
        expected = -2 * (1 - SMOOTH[480]).sqrt().float() * embedding(label)
        torch.testing.assert_close(eps.flatten(1), expected)


def test_a_scale_of_zero_is_the_network_itself() -> None:
    mixture = Mixture()
    assert classifier_guided(mixture.unconditional, mixture.log_prob, 0.0, SMOOTH) == mixture.unconditional


def test_a_clipped_prediction_leads_to_a_clean_latent_within_bounds_and_is_itself_inside() -> None:
    alpha_bar = torch.linspace(0.999, 0.01, 50, dtype=torch.float64)
    z, t, label = torch.randn(6, 3, 4, 4), torch.tensor([0, 10, 20, 30, 40, 49]), torch.zeros(6, dtype=torch.int64)
    noise = torch.randn(6, 3, 4, 4)
    eps = clipped(lambda *_: noise, 1.5, alpha_bar)(z, t, label)
    a = alpha_bar[t].float()[:, None, None, None]
    plain, z_0 = ((z - (1 - a).sqrt() * one) / a.sqrt() for one in (noise, eps))
    assert (plain.abs() > 1.5).any(), "there is something to clip"
    assert torch.allclose(z_0, plain.clamp(-1.5, 1.5), atol=1e-4)
    inside = (plain.abs() < 1.5).float()
    assert torch.allclose(eps * inside, noise * inside, atol=1e-4)
    assert clipped(guided, 0, alpha_bar) is guided, "no limit, no wrapping"
