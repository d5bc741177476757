"""Data whose noisy laws, scores and probability flows are known in closed form."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from affect_hpc.diffusion.ddim import Path

FINEST = 960
SMOOTH = torch.sigmoid(torch.linspace(6, -6, FINEST + 1, dtype=torch.float64))
"""alpha_bar whose log signal-to-noise ratio falls linearly, 0 .. FINEST: no kinks that would blur an order."""


def even_path(steps: int) -> Path:
    """Evenly spaced levels of SMOOTH down to level 0, its clean end; ``steps`` divides FINEST."""
    assert FINEST % steps == 0
    return Path(range(FINEST // steps, FINEST + 1, FINEST // steps), SMOOTH)


class Gaussian:
    """Data N(mean of the label, diag spread^2), independent of each other.

    Args:
        means: (labels, C, h, w) float64.
        spread: standard deviation, (C, h, w) float64, of all labels.
        alpha_bar: (T,) float64.
    """

    def __init__(self, means: Tensor, spread: Tensor, alpha_bar: Tensor) -> None:
        self.means, self.spread, self.alpha_bar = means, spread, alpha_bar
        self.calls = 0

    def law(self, level: float | Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, C, h, w) and variance of the noisy latents at alpha_bar = level."""
        level = torch.as_tensor(level, dtype=torch.float64).reshape(-1, 1, 1, 1)
        return level.sqrt() * self.means[label], level * self.spread**2 + 1 - level

    def __call__(self, z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The best prediction of the noise."""
        self.calls += 1
        level = self.alpha_bar[t]
        mean, variance = self.law(level, label)
        return ((1 - level).sqrt()[:, None, None, None] * (z - mean) / variance).to(z)

    def flow(self, z: Tensor, label: Tensor, a_from: float, a_to: float) -> Tensor:
        """The probability flow of the process from one level to another, exactly."""
        (mean, variance), (mean_to, variance_to) = self.law(a_from, label), self.law(a_to, label)
        return mean_to + (variance_to / variance).sqrt() * (z - mean)


def world(alpha_bar: Tensor = SMOOTH) -> Gaussian:
    """Three labels of latents (2, 1, 2) with different spreads."""
    means = torch.tensor([[-1.0, 0.5, 0.2, 0.0], [1.0, 0.0, -0.3, 0.6], [0.0, 0.2, 0.0, 0.3]], dtype=torch.float64)
    spread = torch.tensor([0.3, 0.6, 0.9, 1.4], dtype=torch.float64)
    return Gaussian(means.reshape(3, 2, 1, 2), spread.reshape(2, 1, 2), alpha_bar)


def some(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Standard normal latents (count, 2, 1, 2) float64 and labels 0, 1, 2, 0, ..."""
    z = torch.randn(count, 2, 1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z, torch.arange(count) % 3


def orders(error: Callable[[int], float], steps: Sequence[int]) -> list[float]:
    """Observed orders of convergence between neighbours of rising numbers of steps."""
    errors = [error(n) for n in steps]
    pairs = itertools.pairwise(zip(steps, errors, strict=True))
    return [math.log(fore / after) / math.log(m / n) for (n, fore), (m, after) in pairs]
