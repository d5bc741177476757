"""What a denoiser is trained and judged on: draws that know no batch, and a validation set that never changes."""

import numpy as np
import pytest
import torch
from torch import Tensor

from affect_hpc.losses.denoising import VALIDATION_BATCH, Validation, draws

SHAPE = (3, 4, 4)


def test_a_sample_draws_the_same_in_any_batch() -> None:
    whole = draws(5, range(100, 124), 1000, SHAPE)
    parts = [draws(5, range(first, first + 8), 1000, SHAPE) for first in (100, 108, 116)]
    for name in ("t", "noise", "chance"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts])), name
    assert whole.noise.shape == (24, *SHAPE) and whole.noise.dtype == torch.float32


def test_seed_and_number_change_all_that_is_drawn() -> None:
    here = draws(5, range(8), 1000, SHAPE)
    for other in (
        draws(6, range(8), 1000, SHAPE),
        draws(5, range(8, 16), 1000, SHAPE),
        draws(-5, range(8), 1000, SHAPE),
    ):
        assert not torch.equal(here.t, other.t)
        assert not torch.isclose(here.noise, other.noise).any()
        assert not torch.isclose(here.chance, other.chance).any()


def test_draws_are_uniform_normal_and_independent() -> None:
    count = 4000
    found = draws(0, range(count), 10, SHAPE)
    counts = np.bincount(found.t, minlength=10)
    assert len(counts) == 10
    chi_squared = float(((counts - count / 10) ** 2 / (count / 10)).sum())
    assert chi_squared < 27.9, "9 degrees of freedom: exceeded once in a thousand"
    assert float(found.chance.mean()) == pytest.approx(0.5, abs=4 * (1 / 12 / count) ** 0.5)
    assert float(found.noise.mean()) == pytest.approx(0, abs=4 / found.noise.numel() ** 0.5)
    assert float(found.noise.var()) == pytest.approx(1, abs=4 * (2 / found.noise.numel()) ** 0.5)
    neighbours = float((found.noise[1:] * found.noise[:-1]).mean())
    assert neighbours == pytest.approx(0, abs=4 / found.noise.numel() ** 0.5)


@pytest.fixture
def validation() -> Validation:
    z_0 = torch.randn(VALIDATION_BATCH + 9, *SHAPE, generator=torch.Generator().manual_seed(0))
    return Validation(z_0, torch.arange(len(z_0)) % 8, torch.linspace(0.99, 0.01, 50, dtype=torch.float64))


def test_who_knows_the_noise_has_no_loss(validation: Validation) -> None:
    asked: list[Tensor] = []

    def oracle(z_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        asked.append(label)
        place = [int((validation.z_t == one).flatten(1).all(1).nonzero()) for one in z_t]
        return validation.noise[place]

    assert validation.loss(oracle) == 0
    assert torch.equal(torch.cat(asked), validation.label), "every sample once, under its own label"


def test_the_loss_is_the_mean_over_samples_whatever_the_batches(validation: Validation) -> None:
    loss = validation.loss(lambda z_t, t, label: label[:, None, None, None] + torch.zeros_like(z_t))
    expected = (validation.label[:, None, None, None] - validation.noise).square().mean()
    assert loss == pytest.approx(float(expected), rel=1e-6)


def test_two_validations_of_the_same_faces_are_the_same_and_touch_no_random_stream(validation: Validation) -> None:
    before = torch.get_rng_state()
    z_0 = torch.randn(VALIDATION_BATCH + 9, *SHAPE, generator=torch.Generator().manual_seed(0))
    again = Validation(z_0, validation.label, validation.alpha_bar)
    again.loss(lambda z_t, t, label: z_t)
    assert torch.equal(again.z_t, validation.z_t) and torch.equal(again.t, validation.t)
    assert torch.equal(torch.get_rng_state(), before)
