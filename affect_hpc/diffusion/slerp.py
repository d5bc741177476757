"""Spherical mixtures of two noisy latents (Shoemake 1985; thesis section 4.3.5, Eq. 4.12)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from affect_hpc.config.drawing import Slerp
from affect_hpc.core.errors import UserError

OPPOSITE = math.pi - 1e-6
"""From this angle on, rounding errors of float32 choose the plane of the arc, and its weights grow past a million."""


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Omega, the angle between the directions of two latents (B, C, h, w), in radians: (B,) float64, 0 .. pi."""
    one, other = _unit(a), _unit(b)
    # The arccosine of the inner product, by a form that loses no digits where the two are nearly one or opposite.
    return 2 * torch.atan2((one - other).norm(dim=1), (one + other).norm(dim=1))


def slerp(a: Tensor, b: Tensor, fractions: Sequence[float], form: Slerp = Slerp.proper) -> Tensor:
    """Mixtures on the great circle from ``a`` to ``b``.

    sin((1 - f) Omega) / sin(Omega) a + sin(f Omega) / sin(Omega) b, where Omega is ``angle``; parallel latents give
    the limit, a straight line. The ends are a and b to the bit, and where both have one length, so have all mixtures.
    The printed form puts the unit vectors in the place of a and b: all mixtures then have length 1, whatever the
    latents had.

    Args:
        a, b: (B, C, h, w).
        fractions: P places on the way, 0 = a, 1 = b.
        form: which vectors are mixed.

    Returns:
        (B, P, C, h, w) in the type of ``a``; computed in float64.

    Raises:
        UserError: two latents point in opposite directions, between which no way is the shortest; or one has no
            direction, because it is zero or not finite.
    """
    omega = angle(a, b)
    lost = torch.nonzero(~(omega < OPPOSITE)).flatten().tolist()  # NaN is lost too
    if lost:
        raise UserError(
            f"the latents of pair {lost[0] + 1} of {len(a)} have the angle {float(omega[lost[0]]):g}, so no way between"
            " them is the shortest: they must be finite, not zero, and not opposite; take other pairs."
        )
    f = torch.tensor(fractions, dtype=torch.float64, device=a.device)[None, :]
    first, second = (_unit(z) if form is Slerp.printed else z.flatten(1).double() for z in (a, b))
    mixed = _weight(1 - f, omega)[..., None] * first[:, None] + _weight(f, omega)[..., None] * second[:, None]
    return mixed.to(a.dtype).reshape(len(a), len(fractions), *a.shape[1:])


def _weight(f: Tensor, omega: Tensor) -> Tensor:
    """sin(f Omega) / sin(Omega), (B, P): by sin(x) / x, which is 1 at 0, so that the limit is no case of its own."""
    turn = omega[:, None] / math.pi
    weight: Tensor = f * torch.sinc(f * turn) / torch.sinc(turn)
    return weight


def _unit(z: Tensor) -> Tensor:
    """(B, C h w) float64 of length 1; NaN where there is no direction."""
    flat = z.flatten(1).double()
    unit: Tensor = flat / flat.norm(dim=1, keepdim=True)
    return unit
