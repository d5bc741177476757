"""Spherical mixtures: where they begin and end, how long they are, how fast they turn, and where there are none."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from affect_hpc.config.drawing import Slerp
from affect_hpc.core.errors import UserError
from affect_hpc.diffusion.slerp import angle, slerp

SHAPE = (3, 4, 4)
FRACTIONS = [i / 9 for i in range(10)]
BOTH = pytest.mark.parametrize("form", list(Slerp), ids=lambda form: form.name)


def latents(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Two latents for each of five pairs, of different lengths."""
    source = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 5, *SHAPE, generator=source, dtype=torch.float64)
    return a.to(dtype), (b * torch.arange(1, 6)[:, None, None, None] + 0.5 * a).to(dtype)


def lengths(z: Tensor) -> Tensor:
    """Of each place on each way, (B, P)."""
    return z.double().flatten(2).norm(dim=2)


def turn(a: float, b: float) -> tuple[Tensor, Tensor]:
    """Two vectors of the plane, at these angles, as latents."""
    made = [torch.tensor([math.cos(x), math.sin(x)], dtype=torch.float64).reshape(1, 1, 1, 2) for x in (a, b)]
    return made[0], made[1]


def test_the_ends_are_the_latents_to_the_bit() -> None:
    for dtype in (torch.float32, torch.float64):
        a, b = latents(1, dtype)
        found = slerp(a, b, [0.0, 0.25, 1.0], Slerp.proper)
        assert found.dtype == dtype and found.shape == (5, 3, *SHAPE)
        assert torch.equal(found[:, 0], a) and torch.equal(found[:, 2], b)


def test_the_ends_of_the_printed_form_have_lost_their_lengths() -> None:
    a, b = latents(1, torch.float64)
    found = slerp(a, b, [0.0, 1.0], Slerp.printed)
    for end, z in zip((found[:, 0], found[:, 1]), (a, b), strict=True):
        torch.testing.assert_close(end * z.flatten(1).norm(dim=1)[:, None, None, None], z)
    torch.testing.assert_close(lengths(slerp(a, b, FRACTIONS, Slerp.printed)), torch.ones(5, 10).double())


def test_both_forms_are_one_for_unit_vectors() -> None:
    a, b = (z / z.flatten(1).norm(dim=1)[:, None, None, None] for z in latents(2, torch.float64))
    torch.testing.assert_close(slerp(a, b, FRACTIONS, Slerp.proper), slerp(a, b, FRACTIONS, Slerp.printed))


def test_latents_of_one_length_give_mixtures_of_that_length_and_lines_do_not() -> None:
    a, b = latents(3, torch.float64)
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1))[:, None, None, None]
    wanted = a.flatten(1).norm(dim=1)[:, None].expand(5, 10)
    torch.testing.assert_close(lengths(slerp(a, b, FRACTIONS, Slerp.proper)), wanted)
    assert (((a + b) / 2).flatten(1).norm(dim=1) < 0.95 * wanted[:, 0]).all(), "why it is no line (Shoemake 1985)"


@BOTH
def test_the_speed_of_turning_is_constant(form: Slerp) -> None:
    a, b = latents(4, torch.float64)
    if form is Slerp.proper:
        b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1))[:, None, None, None]
    found, omega = slerp(a, b, FRACTIONS, form), angle(a, b)
    for place in range(9):
        torch.testing.assert_close(angle(found[:, place], found[:, place + 1]), omega / 9)
        torch.testing.assert_close(angle(a, found[:, place]), omega * FRACTIONS[place])


@BOTH
def test_the_way_back_is_the_way(form: Slerp) -> None:
    a, b = latents(5, torch.float64)
    there, back = slerp(a, b, FRACTIONS, form), slerp(b, a, [1 - f for f in FRACTIONS], form)
    torch.testing.assert_close(there, back)


def test_a_quarter_turn_is_cosine_and_sine() -> None:
    a, b = turn(0, math.pi / 2)
    found = slerp(a, 3 * b, FRACTIONS, Slerp.proper).reshape(10, 2).numpy()
    angles = np.array(FRACTIONS) * math.pi / 2
    np.testing.assert_allclose(found, np.stack([np.cos(angles), 3 * np.sin(angles)], axis=1), atol=1e-15)


@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-9, 1e-7, 1e-5])
def test_nearly_parallel_latents_give_the_straight_line(gap: float) -> None:
    a, b = turn(0.3, 0.3 + gap)
    for long in (1, 2):
        line = torch.stack([(1 - f) * a + f * long * b for f in FRACTIONS], dim=1)
        torch.testing.assert_close(slerp(a, long * b, FRACTIONS, Slerp.proper), line, rtol=0, atol=1e-9)


@pytest.mark.parametrize("omega", [1e-9, 1e-4, 1.0, math.pi / 2, math.pi - 1e-4, math.pi])
def test_the_angle_keeps_its_digits_where_the_arc_cosine_loses_them(omega: float) -> None:
    a, b = turn(0, omega)
    assert float(angle(a, 7 * b)) == pytest.approx(omega, rel=1e-9)


@BOTH
@pytest.mark.parametrize(
    "other",
    [lambda a: -a, lambda a: -2 * a, lambda a: 0 * a, lambda a: a * math.inf, lambda a: a * math.nan],
    ids=["opposite", "opposite, longer", "zero", "infinite", "no number"],
)
def test_where_there_is_no_shortest_way_the_pair_is_named(form: Slerp, other: object) -> None:
    a, b = latents(6)
    b[3] = other(a[3])  # type: ignore[operator]
    with pytest.raises(UserError, match="pair 4 of 5"):
        slerp(a, b, FRACTIONS, form)


def test_a_pair_hangs_on_itself_alone() -> None:
    a, b = latents(7)
    together = slerp(a, b, FRACTIONS, Slerp.proper)
    for i in range(5):
        torch.testing.assert_close(slerp(a[i : i + 1], b[i : i + 1], FRACTIONS)[0], together[i], rtol=1e-6, atol=1e-6)
