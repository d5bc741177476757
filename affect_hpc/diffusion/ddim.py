"""Deterministic DDIM in both directions (Song et al. 2021, Eq. 12; thesis section 4.4, Eq. 4.13-4.19)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from affect_hpc.config.edit import EndLevel, TimeInput
from affect_hpc.diffusion.guidance import Predict


@dataclass(frozen=True)
class Path:
    """The levels that an edit visits, and the conventions it follows.

    Args:
        taus: tau_1 .. tau_N.
        alpha_bar: (T,) float64.
        end_level: noise level of the clean end: alpha_bar[0] (original code) or exactly 1.
        time_input: time that the network sees in an encoding step (D-14).
    """

    taus: Sequence[int]
    alpha_bar: Tensor
    end_level: EndLevel = EndLevel.first
    time_input: TimeInput = TimeInput.next

    def level(self, k: int) -> float:
        """a_k = alpha_bar[tau_k], k = 0 .. N-1; k = -1 is the clean end."""
        if k >= 0:
            return float(self.alpha_bar[self.taus[k]])
        return float(self.alpha_bar[0]) if self.end_level is EndLevel.first else 1.0

    def encoding_time(self, k: int) -> int:
        """What the network is told in the step from level k-1 to level k."""
        if self.time_input is TimeInput.next:
            return self.taus[k]
        return self.taus[k - 1] if k > 0 else 0


def step(z: Tensor, eps: Tensor, a_from: float, a_to: float) -> Tensor:
    """From level ``a_from`` to level ``a_to`` along the noise ``eps``: predicted clean latent, then noise again.

    Its inverse is the same step the other way with the same ``eps``.
    """
    z_0 = (z - (1 - a_from) ** 0.5 * eps) / a_from**0.5
    moved: Tensor = a_to**0.5 * z_0 + (1 - a_to) ** 0.5 * eps
    return moved


def trail(z: Tensor, label: Tensor, path: Path, predict: Predict) -> Iterator[Tensor]:
    """The latents (B, C, h, w) that ``encode`` passes, at the levels -1, 0, ..., N-1: ``z`` itself first."""
    yield z
    for k in range(len(path.taus)):
        t = torch.full((len(z),), path.encoding_time(k), device=z.device)
        z = step(z, predict(z, t, label), path.level(k - 1), path.level(k))
        yield z


def encode(z: Tensor, label: Tensor, path: Path, predict: Predict) -> Tensor:
    """Clean latent -> z_t0 under its own label.

    Args:
        z: (B, C, h, w), taken to be at level -1.
        label: (B,) int64.
        predict: the network, guided or not.
    """
    z_t0 = z
    for passed in trail(z, label, path, predict):
        z_t0 = passed
    return z_t0


def decode(z: Tensor, label: Tensor, path: Path, predict: Predict) -> Tensor:
    """z_t0 -> clean latent under ``label``; otherwise as ``encode``. Deterministic (sigma = 0)."""
    for k in reversed(range(len(path.taus))):
        t = torch.full((len(z),), path.taus[k], device=z.device)
        z = step(z, predict(z, t, label), path.level(k), path.level(k - 1))
    return z
