"""The editing passes: timesteps, inverses, a closed form."""

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from affect_hpc.config.edit import EndLevel, Spacing, TimeInput, timesteps
from affect_hpc.config.model import DiffusionConfig
from affect_hpc.core.errors import UserError
from affect_hpc.diffusion import ddim
from affect_hpc.diffusion.schedule import alpha_bars

ALPHA_BAR = alpha_bars(DiffusionConfig())
TWENTY = [1, 26, 52, 78, 105, 131, 157, 184, 210, 236, 263, 289, 315, 342, 368, 394, 421, 447, 473, 500]


def linspace(steps: int, t0: int = 500) -> list[int]:
    return timesteps(Spacing.linspace, steps, t0, 1000)


def test_golden_linspace_timesteps() -> None:
    assert linspace(6) == [1, 100, 200, 300, 400, 500]
    assert linspace(20) == TWENTY
    assert linspace(40)[:10] == [1, 12, 25, 38, 51, 64, 76, 89, 102, 115]
    assert linspace(40)[-3:] == [474, 487, 500]


def test_golden_leading_plus_one_timesteps() -> None:
    spaced = [timesteps(Spacing.leading_plus_one, steps, 999, 1000) for steps in (8, 200, 500)]
    assert spaced[0] == [1, 126, 251, 376, 501, 626, 751, 876]
    assert (spaced[1][:2], spaced[1][-1]) == ([1, 6], 996)
    assert (spaced[2][:2], spaced[2][-1], len(spaced[2])) == ([1, 3], 999, 500)


def test_leading_plus_one_ends_at_t0() -> None:
    assert timesteps(Spacing.leading_plus_one, 8, 500, 1000) == [1, 126, 251, 376]


@pytest.mark.parametrize(("steps", "t0"), [(1, 500), (12, 5)])
def test_levels_that_do_not_rise_are_refused(steps: int, t0: int) -> None:
    with pytest.raises(UserError, match="num_steps"):
        linspace(steps, t0)


def test_the_clean_end_has_the_level_that_is_asked_for() -> None:
    assert ddim.Path(linspace(6), ALPHA_BAR).level(-1) == pytest.approx(0.9985)
    assert ddim.Path(linspace(6), ALPHA_BAR, EndLevel.clean).level(-1) == 1
    assert ddim.Path(linspace(6), ALPHA_BAR).level(5) == pytest.approx(0.107677, abs=1e-6)


class Recorder:
    """A predictor that depends on time only, and remembers what it was asked."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.batches: list[int] = []

    def __call__(self, z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        assert len(set(t.tolist())) == 1, "all samples of a batch stand at one level"
        self.times.append(int(t[0]))
        self.batches.append(len(z))
        return torch.sin(t.double()).to(z)[:, None, None, None].expand_as(z)


@pytest.mark.parametrize("end_level", EndLevel)
def test_decoding_undoes_encoding_when_the_noise_depends_on_the_shared_time_alone(end_level: EndLevel) -> None:
    path = ddim.Path(linspace(40), ALPHA_BAR, end_level, TimeInput.next)
    z = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    label = torch.tensor([1, 2])
    there, back = Recorder(), Recorder()
    z_t0 = ddim.encode(z, label, path, there)
    torch.testing.assert_close(ddim.decode(z_t0, label, path, back), z, rtol=1e-10, atol=1e-10)
    assert there.times == linspace(40)
    assert back.times == linspace(40)[::-1]


def test_time_input_current_tells_the_level_that_is_left() -> None:
    recorder = Recorder()
    path = ddim.Path(linspace(6), ALPHA_BAR, EndLevel.first, TimeInput.current)
    ddim.encode(torch.zeros(1, 3, 2, 2), torch.tensor([0]), path, recorder)
    assert recorder.times == [0, 1, 100, 200, 300, 400]


def test_one_step_by_hand() -> None:
    z, eps = torch.tensor(0.5, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    # z_0 = (0.5 + sqrt(0.36)) / sqrt(0.64) = 1.375; 0.5 * 1.375 - sqrt(0.75)
    assert float(ddim.step(z, eps, 0.64, 0.25)) == pytest.approx(0.5 * 1.375 - 0.75**0.5, abs=1e-12)


def test_gaussian_data_keep_their_law() -> None:
    """For data N(0, s^2) the best prediction is known; fine DDIM steps then carry one variance to the other."""
    spread = 0.6
    path = ddim.Path(timesteps(Spacing.linspace, 500, 999, 1000), ALPHA_BAR, EndLevel.clean)

    def predict(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        a = float(ALPHA_BAR[t[0]])
        return (1 - a) ** 0.5 * z / (a * spread**2 + 1 - a)

    z = spread * torch.randn(4000, 1, 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z_t0 = ddim.encode(z, torch.zeros(4000, dtype=torch.int64), path, predict)
    assert float(z_t0.std() / z.std()) == pytest.approx(1 / spread, rel=0.02)
    torch.testing.assert_close(
        ddim.decode(z_t0, torch.zeros(4000, dtype=torch.int64), path, predict), z, rtol=0, atol=0.02
    )


def test_sampling_agrees_with_diffusers_where_both_are_defined() -> None:
    theirs = DDIMScheduler(
        1000,
        0.0015,
        0.0205,
        "scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )
    theirs.set_timesteps(8)
    taus = timesteps(Spacing.leading_plus_one, 8, 999, 1000)
    assert theirs.timesteps.tolist() == taus[::-1]
    path, recorder = ddim.Path(taus, ALPHA_BAR), Recorder()
    label = torch.tensor([0])
    z = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    # diffusers steps from tau_k to tau_k - 125; all but the last step end at a level of both.
    expected = z
    for t in theirs.timesteps[:-1]:
        expected = theirs.step(recorder(expected, t[None], label), t, expected, eta=0.0).prev_sample
    upper = z
    for k in range(7, 0, -1):
        eps = recorder(upper, torch.tensor([taus[k]]), label)
        upper = ddim.step(upper, eps, path.level(k), path.level(k - 1))
    torch.testing.assert_close(upper, expected, rtol=1e-4, atol=1e-5)
