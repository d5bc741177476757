"""Solvers: their laws on Gaussian data, their orders, and other people's implementations."""

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, PNDMScheduler
from gaussian_world import FINEST, SMOOTH, even_path, orders, some, world
from torch import Tensor

from affect_hpc.config.edit import EndLevel, Spacing, timesteps
from affect_hpc.config.model import DiffusionConfig
from affect_hpc.config.sampling import Sampler, SamplerConfig
from affect_hpc.diffusion import ddim, sampling
from affect_hpc.diffusion.noise import SampleNoise
from affect_hpc.diffusion.sampling import Solver, posterior, sampler
from affect_hpc.diffusion.schedule import alpha_bars, betas

ALPHA_BAR = alpha_bars(DiffusionConfig())
SCHEDULE = {"beta_start": 0.0015, "beta_end": 0.0205, "beta_schedule": "scaled_linear"}
DETERMINISTIC = {"ddim": sampling.ddim(0.0), "plms": sampling.plms, "dpm_solver": sampling.dpm_solver}


def silent(k: int) -> Tensor:
    raise AssertionError("a deterministic solver asks for no noise")


@pytest.mark.parametrize(("name", "low", "high"), [("ddim", 0.8, 1.3), ("plms", 1.8, 4.5), ("dpm_solver", 1.8, 2.6)])
def test_solvers_converge_to_the_exact_flow_with_their_order(name: str, low: float, high: float) -> None:
    z, label = some(6)
    data = world()

    def error(steps: int) -> float:
        end = DETERMINISTIC[name](z, label, even_path(steps), data, silent)
        return float((end - data.flow(z, label, float(SMOOTH[-1]), float(SMOOTH[0]))).abs().max())

    measured = orders(error, (40, 80, 160, 320))
    assert all(low < order < high for order in measured), measured
    assert error(320) < 0.02


@pytest.mark.parametrize("steps", [10, 20, 40, 80])
def test_second_order_pays_on_the_projects_own_schedule_and_levels(steps: int) -> None:
    """There the logarithm of the signal-to-noise ratio moves unevenly and the last step is a short one."""
    z, label = some(6)
    data = world(ALPHA_BAR)

    def error(solver: Solver) -> float:
        path = ddim.Path(timesteps(Spacing.leading_plus_one, steps, 999, 1000), ALPHA_BAR)
        exact = data.flow(z, label, path.level(len(path.taus) - 1), path.level(-1))
        return float((solver(z, label, path, data, silent) - exact).abs().max())

    first = error(sampling.ddim(0.0))
    assert error(sampling.dpm_solver) < first
    assert error(sampling.plms) < first / 2


def test_the_posterior_is_the_textbook_one_at_every_level() -> None:
    """Ho et al. 2020, Eq. 7, in their own symbols."""
    beta, bar = betas(DiffusionConfig()), ALPHA_BAR.numpy()
    before = np.concatenate([[1.0], bar[:-1]])
    mine = np.array([posterior(a, b) for a, b in zip(bar.tolist(), before.tolist(), strict=True)])
    np.testing.assert_allclose(mine[:, 0], np.sqrt(before) * beta / (1 - bar), rtol=1e-9)
    np.testing.assert_allclose(mine[:, 1], np.sqrt(1 - beta) * (1 - before) / (1 - bar), rtol=1e-9)
    np.testing.assert_allclose(mine[:, 2], (1 - before) / (1 - bar) * beta, rtol=1e-9)


@pytest.mark.parametrize("end_level", EndLevel)
@pytest.mark.parametrize("taus", [range(1000), timesteps(Spacing.leading_plus_one, 25, 999, 1000)])
def test_eta_one_is_ancestral_sampling(taus: range | list[int], end_level: EndLevel) -> None:
    z, label = some(4)
    path, noise = ddim.Path(taus, ALPHA_BAR, end_level), SampleNoise(0, range(4), z.shape[1:])
    ancestral = sampling.ddpm(z, label, path, world(ALPHA_BAR), noise)
    torch.testing.assert_close(
        sampling.ddim(1.0)(z, label, path, world(ALPHA_BAR), noise), ancestral, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("solver", "steps"), [(sampling.ddpm, 1000), (sampling.ddim(0.5), 500), (sampling.plms, 50)])
def test_samples_of_gaussian_data_have_its_law(solver: Solver, steps: int) -> None:
    """Fresh noise of the posterior's variance leaves narrow data a few percent too narrow."""
    data, count = world(ALPHA_BAR), 6000
    label = torch.ones(count, dtype=torch.int64)
    path = ddim.Path(timesteps(Spacing.leading_plus_one, steps, 999, 1000), ALPHA_BAR, EndLevel.clean)
    source = torch.Generator().manual_seed(0)
    z = torch.randn(count, 2, 1, 2, generator=source, dtype=torch.float64)
    made = solver(z, label, path, data, lambda k: torch.randn(z.shape, generator=source, dtype=torch.float64))
    torch.testing.assert_close(made.mean(0), data.means[1], rtol=0, atol=0.06)
    torch.testing.assert_close(made.std(0), data.spread, rtol=0.05, atol=0)


def test_fresh_noise_has_the_posteriors_variance() -> None:
    def still(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return torch.zeros_like(z)

    path, zeros = ddim.Path([300, 500], ALPHA_BAR), torch.zeros(1, 1, 200, 200)
    made = sampling.ddim(1.0)(zeros, torch.tensor([0]), path, still, SampleNoise(0, [0], zeros.shape[1:]))
    variance = 0.0
    for k in (1, 0):
        a, b = path.level(k), path.level(k - 1)
        variance = variance * b / a + (1 - b) / (1 - a) * (1 - a / b)
    assert float(made.var()) == pytest.approx(variance, rel=0.03)


def test_eta_zero_is_the_deterministic_pass() -> None:
    z, label = some(3)
    path = ddim.Path(timesteps(Spacing.linspace, 10, 500, 1000), ALPHA_BAR)
    data = world(ALPHA_BAR)
    assert torch.equal(sampling.ddim(0.0)(z, label, path, data, silent), ddim.decode(z, label, path, data))


def test_the_last_noise_is_none_where_the_end_is_clean() -> None:
    asked: list[int] = []

    def noise(k: int) -> Tensor:
        asked.append(k)
        return torch.zeros(3, 2, 1, 2)

    z, label = some(3)
    for solver in (sampling.ddpm, sampling.ddim(1.0)):
        solver(z, label, ddim.Path([1, 100, 300], ALPHA_BAR, EndLevel.clean), world(ALPHA_BAR), noise)
    assert asked == [2, 1, 2, 1]


@pytest.mark.parametrize("steps", [10, 25])
@pytest.mark.parametrize(("end", "end_level"), [("zero", EndLevel.clean), ("sigma_min", EndLevel.first)])
def test_dpm_solver_agrees_with_diffusers(steps: int, end: str, end_level: EndLevel) -> None:
    theirs = DPMSolverMultistepScheduler(
        1000, **SCHEDULE, timestep_spacing="leading", steps_offset=1, final_sigmas_type=end, euler_at_final=True
    )
    theirs.set_timesteps(steps)
    path = ddim.Path(sorted(theirs.timesteps.tolist()), ALPHA_BAR, end_level)
    z, label = (x[:2] for x in some(2))
    data, expected = world(ALPHA_BAR), z
    for t in theirs.timesteps:
        expected = theirs.step(data(expected, t.expand(2), label), t, expected).prev_sample
    made = sampling.dpm_solver(z, label, path, data, silent)
    torch.testing.assert_close(made, expected.double(), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("steps", [8, 25])
def test_plms_agrees_with_diffusers(steps: int) -> None:
    theirs = PNDMScheduler(1000, **SCHEDULE, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)
    theirs.set_timesteps(steps)
    taus = timesteps(Spacing.leading_plus_one, steps, 999, 1000)
    assert sorted(set(theirs.timesteps.tolist())) == taus
    z, label = some(2)
    data, expected = world(ALPHA_BAR), z
    for t in theirs.timesteps:
        expected = theirs.step(data(expected, t.expand(2), label), t, expected).prev_sample
    made = sampling.plms(z, label, ddim.Path(taus, ALPHA_BAR), data, silent)
    torch.testing.assert_close(made, expected.double(), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("name", "more"), [("ddpm", 0), ("ddim", 0), ("plms", 1), ("dpm_solver", 0)])
def test_the_state_is_float32_and_the_calls_are_the_documented_ones(name: str, more: int) -> None:
    data = world()
    seen: set[torch.dtype] = set()

    def coarse(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        seen.add(z.dtype)
        return data(z, t, label).bfloat16()

    z, label = some(3)
    solver = sampler(SamplerConfig(name=Sampler[name], eta=1.0))
    made = solver(z.half(), label, even_path(20), coarse, SampleNoise(0, range(3), z.shape[1:]))
    assert (made.dtype, seen) == (torch.float32, {torch.float32})
    assert data.calls == 20 + more


@pytest.mark.parametrize("solver", [sampling.ddpm, *DETERMINISTIC.values()])
def test_a_path_of_one_level_is_one_step_to_the_predicted_latent(solver: Solver) -> None:
    z, label = some(3)
    data, path = world(), ddim.Path([FINEST], SMOOTH, EndLevel.clean)
    expected = ddim.decode(z, label, path, data)
    torch.testing.assert_close(solver(z, label, path, data, silent), expected, rtol=1e-9, atol=1e-9)


def test_a_config_picks_its_solver() -> None:
    assert sampler(SamplerConfig(name=Sampler.plms)) is sampling.plms
    z, label = some(3)
    noise = SampleNoise(0, range(3), z.shape[1:])
    halfway = sampler(SamplerConfig(name=Sampler.ddim, eta=0.5))(z, label, even_path(20), world(), noise)
    assert torch.equal(halfway, sampling.ddim(0.5)(z, label, even_path(20), world(), noise))
