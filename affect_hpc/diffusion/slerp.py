"""Spherical mixtures of two noisy latents (Shoemake 1985; thesis section 4.3.5, Eq. 4.12)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from affect_hpc.config.drawing import Slerp
from affect_hpc.core.errors import UserError

NEARLY = 1e-6
"""Below this sine of the angle the two directions are one, and the mixture is the straight line: its limit."""


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Omega, the angle between the directions of two latents (B, C, h, w), in radians: (B,) float64, 0 .. pi."""
    one, other = _unit(a), _unit(b)
    # The arccosine of the inner product, by a form that loses no digits where the two are nearly one or opposite.
    return 2 * torch.atan2((one - other).norm(dim=1), (one + other).norm(dim=1))


def slerp(a: Tensor, b: Tensor, fractions: Sequence[float], form: Slerp = Slerp.proper) -> Tensor:
    """Mixtures on the great circle from ``a`` to ``b``.

    sin((1 - f) Omega) / sin(Omega) a + sin(f Omega) / sin(Omega) b, where Omega is ``angle``. The printed form puts the
    unit vectors in the place of a and b: all mixtures then have length 1, whatever the latents had.

    Args:
        a, b: (B, C, h, w), none of them zero.
        fractions: P places on the way, 0 = a, 1 = b.
        form: which vectors are mixed.

    Returns:
        (B, P, C, h, w) in the type of ``a``.

    Raises:
        UserError: two latents point in opposite directions, between which no way is the shortest.
    """
    omega = angle(a, b)[:, None, None]
    sine = torch.sin(omega)
    if bool(((sine < NEARLY) & (omega > 1)).any()):
        raise UserError(
            "two latents point in opposite directions, so no way between them is the shortest: take others."
        )
    f = torch.tensor(fractions, dtype=torch.float64, device=a.device)[None, :, None]
    straight = sine < NEARLY
    safe = torch.where(straight, torch.ones_like(sine), sine)
    weight_a = torch.where(straight, 1 - f, torch.sin((1 - f) * omega) / safe)
    weight_b = torch.where(straight, f, torch.sin(f * omega) / safe)
    first, second = (_unit(z) if form is Slerp.printed else z.flatten(1).double() for z in (a, b))
    mixed = weight_a * first[:, None] + weight_b * second[:, None]
    return mixed.to(a.dtype).reshape(len(a), len(fractions), *a.shape[1:])


def _unit(z: Tensor) -> Tensor:
    """(B, C h w) float64 of length 1."""
    unit: Tensor = torch.nn.functional.normalize(z.flatten(1).double(), dim=1, eps=0)
    return unit
