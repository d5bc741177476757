"""Inverters: how well each leads back, and at what cost."""

from dataclasses import replace

import pytest
import torch
from gaussian_world import even_path, orders, some, world
from smooth_net import edit_path, faces, guided_network
from torch import Tensor

from affect_hpc.config.edit import Inverter, TimeInput
from affect_hpc.core.errors import UserError
from affect_hpc.diffusion import ddim
from affect_hpc.diffusion.inversion import Coupled, Ddim, Direct, FixedPoint, Method, method

ALL = [Ddim(), Direct(), FixedPoint(3), Coupled(0.93)]


def round_trip(method: Method, z: Tensor, label: Tensor, path: ddim.Path, gamma: float = 3.0) -> float:
    predict = guided_network(gamma)
    back = method.decode(method.invert(z, label, path, predict).state, label, path, predict)
    return float((back - z).abs().max())


def test_ddims_way_back_misses_in_the_first_order_of_the_step() -> None:
    z, label = some(6)
    data = world()

    def error(steps: int) -> float:
        path = even_path(steps)
        return float((ddim.decode(ddim.encode(z, label, path, data), label, path, data) - z).abs().max())

    measured = orders(error, (40, 80, 160, 320))
    assert all(0.8 < order < 1.3 for order in measured), measured


def test_ddim_is_the_thesis_pass_to_the_bit() -> None:
    (z, label), path, predict = faces(), edit_path(), guided_network()
    inverted = Ddim().invert(z, label, path, predict)
    z_t0 = ddim.encode(z, label, path, predict)
    assert torch.equal(inverted.state["z_t0"], z_t0)
    target = label.flip(0)
    assert torch.equal(Ddim().decode(inverted.state, target, path, predict), ddim.decode(z_t0, target, path, predict))
    passed = list(ddim.trail(z, label, path, predict))
    assert len(passed) == 41
    assert torch.equal(passed[0], z)
    assert torch.equal(passed[-1], z_t0)


def test_iteration_beats_ddim_and_its_residual_falls() -> None:
    (z, label), path, predict = faces(), edit_path(), guided_network()
    missed = [round_trip(one, z, label, path) for one in (Ddim(), FixedPoint(1), FixedPoint(3), FixedPoint(8))]
    assert missed[1] < missed[0] / 10
    assert missed[2] < missed[1] / 10
    assert missed[3] < 3e-5
    residuals = [FixedPoint(n).invert(z, label, path, predict).residual for n in (1, 3, 8)]
    assert (residuals[0].shape, float(residuals[2].max()) < 1e-5) == ((8,), True)
    assert (residuals[1] < residuals[0]).all()
    assert (residuals[2] < residuals[1]).all()


def test_iteration_solves_its_equation() -> None:
    z, label = (x.double() if x.is_floating_point() else x for x in faces())
    path, predict = replace(edit_path(), taus=[25]), guided_network()
    z_1 = FixedPoint(60).invert(z, label, path, predict).state["z_t0"]
    eps = predict(z_1, torch.full((8,), 25), label)
    torch.testing.assert_close(ddim.step(z, eps, path.level(-1), path.level(0)), z_1, rtol=0, atol=1e-12)


def test_the_residual_is_the_last_change_of_one_step() -> None:
    (z, label), predict = faces(), guided_network()
    path = replace(edit_path(), taus=[250])
    one, two = (FixedPoint(n).invert(z, label, path, predict) for n in (1, 2))
    change = (two.state["z_t0"] - one.state["z_t0"]).square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(two.residual, change)


@pytest.mark.parametrize("time_input", TimeInput)
@pytest.mark.parametrize("steps", [20, 40])
def test_coupled_latents_lead_back_exactly(steps: int, time_input: TimeInput) -> None:
    z, label = faces()
    assert round_trip(Coupled(0.93), z, label, replace(edit_path(steps), time_input=time_input)) < 1e-5
    assert round_trip(Coupled(0.93), z.double(), label, edit_path(steps)) < 1e-12


def test_a_coupled_step_is_the_published_one() -> None:
    """Wallace et al. 2023, in their own symbols: one decoding step of x and y."""
    (x, y), label, p = torch.randn(2, 3, 3, 2, 2, dtype=torch.float64), torch.tensor([0, 3, 5]), 0.9
    path, predict = replace(edit_path(), taus=[250]), guided_network()
    t, level, level_to = torch.full((3,), 250), path.level(0), path.level(-1)
    a = (level_to / level) ** 0.5
    b = (1 - level_to) ** 0.5 - (level_to * (1 - level) / level) ** 0.5
    x_inter = a * x + b * predict(y, t, label)
    y_inter = a * y + b * predict(x_inter, t, label)
    expected = p * x_inter + (1 - p) * y_inter
    torch.testing.assert_close(
        Coupled(p).decode({"z_t0": x, "z_t0_twin": y}, label, path, predict), expected, rtol=1e-12, atol=1e-12
    )


def test_stored_offsets_lead_back() -> None:
    z, label = faces()
    assert round_trip(Direct(), z, label, edit_path(), gamma=5.0) < 1e-6


def test_offsets_are_what_ddim_misses_along_its_path() -> None:
    (z, label), path, predict = faces(), edit_path(), guided_network()
    offsets = Direct().invert(z, label, path, predict).state["offsets"]
    passed = list(ddim.trail(z, label, path, predict))
    assert offsets.shape == (8, 40, 3, 2, 2)
    for k in range(40):
        eps = predict(passed[k + 1], torch.full((8,), path.taus[k]), label)
        missed = passed[k] - ddim.step(passed[k + 1], eps, path.level(k), path.level(k - 1))
        torch.testing.assert_close(offsets[:, k], missed, rtol=0, atol=1e-5)


def test_offsets_of_another_path_are_refused() -> None:
    (z, label), predict = faces(), guided_network()
    state = Direct().invert(z, label, edit_path(20), predict).state
    with pytest.raises(ValueError, match="20 offsets for a path of 40 steps"):
        Direct().decode(state, label, edit_path(40), predict)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_calls_are_counted_and_an_edit_is_an_edit(one: Method) -> None:
    (z, label), path, predict = faces(), edit_path(), guided_network()
    calls = 0

    def counted(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return predict(z, t, label)

    with torch.inference_mode():
        inverted = one.invert(z, label, path, counted)
        assert inverted.calls == calls
        assert all(value.dtype == z.dtype and len(value) == len(z) for value in inverted.state.values())
        own, other = (one.decode(inverted.state, y, path, predict) for y in (label, label.flip(0)))
    assert float((own - other).abs().max()) > 0.1
    assert other.isfinite().all()


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_a_sample_is_inverted_by_itself(one: Method) -> None:
    z, label = (x.double() if x.is_floating_point() else x for x in faces())
    path, predict = edit_path(20), guided_network()
    together, alone = one.invert(z, label, path, predict), one.invert(z[3:4], label[3:4], path, predict)
    for name, value in alone.state.items():
        torch.testing.assert_close(together.state[name][3:4], value, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(together.residual[3:4], alone.residual, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in Inverter if kind is not Inverter.auto])
def test_a_kind_has_its_method(kind: Inverter) -> None:
    assert method(kind, 3, 0.93).name == kind.name


def test_settings_reach_their_methods() -> None:
    assert method(Inverter.fixed_point, 5, 0.93) == FixedPoint(5)
    assert method(Inverter.coupled, 5, 0.8) == Coupled(0.8)


@pytest.mark.parametrize(
    ("kind", "refinements", "mixing", "named"),
    [
        (Inverter.auto, 3, 0.93, "auto"),
        (Inverter.fixed_point, 0, 0.93, "refinements=0"),
        (Inverter.coupled, 3, 0.0, "mixing=0.0"),
        (Inverter.coupled, 3, 1.1, "mixing=1.1"),
    ],
)
def test_what_names_no_method_is_refused(kind: Inverter, refinements: int, mixing: float, named: str) -> None:
    with pytest.raises(UserError, match=named):
        method(kind, refinements, mixing)
