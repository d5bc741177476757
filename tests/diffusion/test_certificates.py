"""Certificates of inverted samples, and the choice of the cheapest inverter that will do."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pytest
import torch
from smooth_net import edit_path, faces, guided_network
from torch import Tensor

from affect_hpc.diffusion.ddim import Path
from affect_hpc.diffusion.guidance import Predict
from affect_hpc.diffusion.inversion import (
    MOST_DB,
    MOST_RESIDUAL,
    Certificate,
    Coupled,
    Ddim,
    Direct,
    FixedPoint,
    Inverted,
    Method,
    certify,
    certify_cheapest,
)


def psnr(z: Tensor, z_own: Tensor) -> Tensor:
    assert z_own.isfinite().all()
    return -10 * (z - z_own).square().mean(dim=(1, 2, 3)).log10()


class Fake:
    """Misses each sample by an amount of its own, and notes which samples it was given.

    Args:
        missed: what is added on the way back, by label.
    """

    def __init__(self, name: str, missed: list[float]) -> None:
        self.name, self.missed = name, torch.tensor(missed)
        self.seen: list[list[int]] = []

    def invert(self, z: Tensor, label: Tensor, path: Path, predict: Predict) -> Inverted:
        self.seen.append(label.tolist())
        return Inverted({"z_t0": z}, torch.zeros(len(z)), 7)

    def decode(self, state: Mapping[str, Tensor], label: Tensor, path: Path, predict: Predict) -> Tensor:
        return state["z_t0"] + self.missed[label][:, None, None, None]


def choose(methods: list[Method], bound_db: float) -> list[Certificate]:
    """For four samples, labelled by their rows."""
    z, label = faces(4)
    found = certify_cheapest(methods, z, label, edit_path(2), guided_network(), psnr, bound_db)
    return [one.certificate for one in found]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("one", [Ddim(), Direct(), FixedPoint(2), Coupled(0.93)], ids=lambda one: one.name)
def test_a_certificate_says_what_decoding_from_the_stored_state_gives(one: Method) -> None:
    (z, label), path, predict = faces(5), edit_path(20), guided_network()
    with torch.inference_mode():
        found = certify(one, z, label, path, predict, psnr)
    assert len(found) == 5
    names = list(found[0].state)
    stored = {name: torch.from_numpy(np.stack([saved(sample.state[name]) for sample in found])) for name in names}
    own = one.decode(stored, label, path, predict)
    assert torch.equal(own, torch.stack([sample.z_own for sample in found]))
    inverted = one.invert(z, label, path, predict)
    for row, (sample, db) in enumerate(zip(found, psnr(z, own).clamp(max=MOST_DB).tolist(), strict=True)):
        calls = inverted.calls + (40 if one.name == "coupled" else 20)
        expected = Certificate(one.name, db, float(inverted.residual[row]), calls)
        assert sample.certificate == expected
        assert Certificate(**json.loads(json.dumps(asdict(expected), allow_nan=False))) == expected


def saved(value: Tensor) -> np.ndarray:
    """Through a .npy file and back."""
    file = io.BytesIO()
    np.save(file, value.numpy())
    file.seek(0)
    return np.load(file)


def test_each_sample_gets_the_first_method_that_keeps_the_bound() -> None:
    cheap, dearer = Fake("cheap", [1e-3, 0.5, 1e-3, 0.5]), Fake("dearer", [0, 1e-3, 0, 0.4])
    dearest = Fake("dearest", [0, 0, 0, 1e-4])
    found = choose([cheap, dearer, dearest], 30)
    assert [one.inverter for one in found] == ["cheap", "dearer", "cheap", "dearest"]
    assert (cheap.seen, dearer.seen, dearest.seen) == ([[0, 1, 2, 3]], [[1, 3]], [[3]])
    assert found[0].round_trip_db == pytest.approx(60, abs=0.01)


def test_no_dearer_method_runs_where_the_cheap_one_will_do() -> None:
    cheap, dearer = Fake("cheap", [1e-3] * 4), Fake("dearer", [0.0] * 4)
    choose([cheap, dearer], 30)
    assert dearer.seen == []


def test_where_none_keeps_the_bound_the_best_is_kept_and_seen_to_fail() -> None:
    found = choose([Fake("a", [0.5, 0.2, 0.5, 2]), Fake("b", [0.2, 0.5, 0.5, 3]), Fake("c", [0.3, 0.3, 0.4, 4])], 30)
    assert [one.inverter for one in found] == ["b", "a", "c", "a"]
    assert all(one.round_trip_db < 30 for one in found)


def test_what_is_not_finite_fails_every_bound_and_is_the_worst() -> None:
    found = choose([Fake("a", [NAN, INF, NAN, -INF]), Fake("b", [1e-3, 3, NAN, 1e-3])], 0)
    assert [one.inverter for one in found] == ["b", "b", "a", "b"]
    assert found[2].round_trip_db == 0
    assert found[1].round_trip_db == pytest.approx(-9.54, abs=0.01)


def test_a_perfect_round_trip_has_a_finite_number() -> None:
    assert [one.round_trip_db for one in choose([Fake("a", [0.0] * 4)], 30)] == [MOST_DB] * 4


def test_a_diverging_iteration_is_replaced() -> None:
    z, label = faces(4)

    def steep(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Explodes for the labels 1 and 3."""
        return torch.where((label % 2 == 1)[:, None, None, None], z**3 * 1e12, z / 2)

    def tame(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return steep(z, t, torch.zeros_like(label))

    (one,) = certify(FixedPoint(3), z[1:2], label[1:2], edit_path(20), steep, psnr)
    assert (one.certificate.round_trip_db, one.certificate.residual) == (0, MOST_RESIDUAL)
    json.dumps(asdict(one.certificate), allow_nan=False)
    mates = certify(FixedPoint(3), z, label, edit_path(20), steep, psnr)
    for row, one in enumerate(certify(FixedPoint(3), z, label, edit_path(20), tame, psnr)):
        assert one.certificate.round_trip_db > 60
        assert (mates[row].certificate == one.certificate) == (row % 2 == 0)


def test_real_methods_in_order_of_their_cost() -> None:
    (z, label), path, predict = faces(), edit_path(), guided_network()
    ddim, direct = (certify(one, z, label, path, predict, psnr) for one in (Ddim(), Direct()))
    between = sorted(one.certificate.round_trip_db for one in ddim)[3] + 1e-3
    found = certify_cheapest([Ddim(), Direct()], z, label, path, predict, psnr, between)
    names = [one.certificate.inverter for one in found]
    assert (names.count("ddim"), names.count("direct")) == (4, 4)
    assert all(one.certificate.round_trip_db >= between for one in found)
    assert {one.certificate.calls for one in ddim} == {80}
    assert {one.certificate.calls for one in direct} == {120}


def test_no_methods_are_refused() -> None:
    with pytest.raises(ValueError, match="methods"):
        choose([], 30)
