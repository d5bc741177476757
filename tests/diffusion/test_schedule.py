"""The forward process against numbers that were measured on the original code."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from affect_hpc.config.model import DiffusionConfig
from affect_hpc.diffusion.objective import eps_error, q_sample
from affect_hpc.diffusion.schedule import alpha_bars, betas

GOLDEN = {0: 0.998500, 1: 0.996994, 400: 0.225763, 500: 0.107677, 600: 0.042384, 876: 9.9154e-4, 999: 9.6911e-5}


def test_betas_are_linear_in_their_square_root() -> None:
    values = betas(DiffusionConfig())
    assert values.dtype == np.float64
    assert values[0] == pytest.approx(0.0015, abs=1e-15)
    assert values[-1] == pytest.approx(0.0205, abs=1e-15)
    assert np.ptp(np.diff(np.sqrt(values))) < 1e-15


def test_the_linear_schedule_is_linear() -> None:
    values = betas(DiffusionConfig(beta_schedule="linear"))
    assert np.ptp(np.diff(values)) < 1e-16
    assert (values[0], values[-1]) == (0.0015, 0.0205)


@pytest.mark.parametrize(("t", "expected"), GOLDEN.items())
def test_alpha_bar_at_golden_levels(t: int, expected: float) -> None:
    assert float(alpha_bars(DiffusionConfig())[t]) == pytest.approx(expected, rel=5e-5, abs=6e-7)


def test_alpha_bar_agrees_with_diffusers() -> None:
    theirs = DDPMScheduler(1000, beta_start=0.0015, beta_end=0.0205, beta_schedule="scaled_linear").alphas_cumprod
    torch.testing.assert_close(alpha_bars(DiffusionConfig()).float(), theirs, rtol=2e-5, atol=0)


def test_q_sample_keeps_unit_variance_and_mixes_by_level() -> None:
    generator = torch.Generator().manual_seed(0)
    alpha_bar = alpha_bars(DiffusionConfig())
    z_0, noise = torch.randn(2, 4, 3, 64, 64, generator=generator)
    t = torch.tensor([0, 400, 500, 999])
    z_t = q_sample(z_0, t, noise, alpha_bar)
    assert z_t.var(dim=(1, 2, 3)).numpy() == pytest.approx(np.ones(4), abs=0.04)
    for row, level in enumerate(alpha_bar[t].tolist()):
        torch.testing.assert_close(z_t[row], level**0.5 * z_0[row] + (1 - level) ** 0.5 * noise[row])


def test_the_noise_itself_has_no_error() -> None:
    noise = torch.randn(2, 3, 4, 4)
    assert float(eps_error(noise, noise)) == 0
    assert float(eps_error(noise + 2, noise)) == pytest.approx(4)
