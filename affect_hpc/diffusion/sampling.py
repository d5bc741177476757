"""Solvers from noise to a latent: functions of one signature over a network that predicts the noise."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from affect_hpc.config.sampling import Sampler, SamplerConfig
from affect_hpc.diffusion.ddim import Path, step
from affect_hpc.diffusion.guidance import Predict

Noise = Callable[[int], Tensor]
"""k -> fresh standard normal noise (B, C, h, w) for the step that leaves tau_k; deterministic solvers ask for none."""
Solver = Callable[[Tensor, Tensor, Path, Predict, Noise], Tensor]
"""(z, label, path, predict, noise) -> clean latent (B, C, h, w), at the clean end of the path (``Path.level(-1)``).

z is standard normal (B, C, h, w) at the highest level of the path, label (B,) int64. What is carried from step to step
is float32, whatever the precision of the network; float64 stays float64.
"""

ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Weights of the last predictions, newest first, where one to four are known."""


def sampler(config: SamplerConfig) -> Solver:
    """The solver that ``config`` names, with its settings."""
    solvers = {Sampler.ddpm: ddpm, Sampler.ddim: ddim(config.eta), Sampler.plms: plms, Sampler.dpm_solver: dpm_solver}
    return solvers[config.name]


def posterior(a_from: float, a_to: float) -> tuple[float, float, float]:
    """q(z_to | z_from, z_0) of two levels (Ho et al. 2020, Eq. 7, where they are neighbours).

    Args:
        a_from: alpha_bar of the noisier level.
        a_to: of the other one, 1 = clean.

    Returns:
        Weight of z_0 and of z_from in the mean, and the variance.
    """
    beta = 1 - a_from / a_to
    weight_0 = a_to**0.5 * beta / (1 - a_from)
    weight_z = (a_from / a_to) ** 0.5 * (1 - a_to) / (1 - a_from)
    return weight_0, weight_z, beta * (1 - a_to) / (1 - a_from)


def ddpm(z: Tensor, label: Tensor, path: Path, predict: Predict, noise: Noise) -> Tensor:
    """Ancestral sampling with the posterior's mean and variance (Ho et al. 2020, Algorithm 2); a ``Solver``.

    Levels that the path leaves out are marginalised exactly, as if they had never been part of the process. One
    evaluation a level.
    """
    z = _state(z)
    for k in reversed(range(len(path.taus))):
        a_from, a_to = path.level(k), path.level(k - 1)
        weight_0, weight_z, variance = posterior(a_from, a_to)
        z = weight_0 * _clean(z, _eps(z, label, path, predict, k), a_from) + weight_z * z
        if variance > 0:
            z = z + variance**0.5 * noise(k).to(z)
    return z


def ddim(eta: float) -> Solver:
    """DDIM with the share ``eta`` of fresh noise (Song et al. 2021, Eq. 12 and 16). One evaluation a level.

    Args:
        eta: 0 (deterministic, the same as ``ddim.decode``) .. 1 (as ``ddpm``).
    """

    def solve(z: Tensor, label: Tensor, path: Path, predict: Predict, noise: Noise) -> Tensor:
        z = _state(z)
        for k in reversed(range(len(path.taus))):
            a_from, a_to = path.level(k), path.level(k - 1)
            eps = _eps(z, label, path, predict, k)
            sigma = eta * posterior(a_from, a_to)[2] ** 0.5
            if sigma == 0:
                z = step(z, eps, a_from, a_to)
                continue
            z = a_to**0.5 * _clean(z, eps, a_from) + max(1 - a_to - sigma**2, 0.0) ** 0.5 * eps
            z = z + sigma * noise(k).to(z)
        return z

    return solve


def plms(z: Tensor, label: Tensor, path: Path, predict: Predict, noise: Noise) -> Tensor:
    """Pseudo linear multi-step method of fourth order (Liu et al. 2022, Eq. 12); a ``Solver``.

    A DDIM step along the mean of the last predictions, weighted as by Adams and Bashforth. The first step takes the
    mean of its prediction and the one where it leads (pseudo improved Euler), the two next ones use what is there. One
    evaluation a level and one more. The weights take the levels to be evenly spaced; for a schedule that is not linear
    the method's order is two.
    """
    z = _state(z)
    known: list[Tensor] = []
    for k in reversed(range(len(path.taus))):
        a_from, a_to = path.level(k), path.level(k - 1)
        known = [_eps(z, label, path, predict, k), *known][: len(ADAMS_BASHFORTH)]
        if len(known) == 1 and k > 0:
            ahead = _eps(step(z, known[0], a_from, a_to), label, path, predict, k - 1)
            mean = (known[0] + ahead) / 2
        else:
            weights = ADAMS_BASHFORTH[len(known) - 1]
            mean = sum((w * eps for w, eps in zip(weights, known, strict=True)), torch.zeros_like(z))
        z = step(z, mean, a_from, a_to)
    return z


def dpm_solver(z: Tensor, label: Tensor, path: Path, predict: Predict, noise: Noise) -> Tensor:
    """DPM-Solver++ 2M: multi-step, second order, predicts the clean latent (Lu et al. 2022, Algorithm 2); a ``Solver``.

    One evaluation a level. The first step is of first order, for want of a second prediction. So is the last one:
    half the log signal-to-noise ratio, in which the method extrapolates, is infinite at a clean end, and close to it
    the extrapolation does more harm than good. One such step leaves the order of the whole at two.
    """
    z = _state(z)
    last: Tensor | None = None
    for k in reversed(range(len(path.taus))):
        a_from, a_to = path.level(k), path.level(k - 1)
        z_0 = _clean(z, _eps(z, label, path, predict, k), a_from)
        ahead = z_0
        if last is not None and k > 0:
            here = _half_log_snr(a_from)
            ratio = (_half_log_snr(a_to) - here) / (here - _half_log_snr(path.level(k + 1)))
            ahead = z_0 + ratio / 2 * (z_0 - last)
        scale = ((1 - a_to) / (1 - a_from)) ** 0.5
        z = scale * z + (a_to**0.5 - a_from**0.5 * scale) * ahead
        last = z_0
    return z


def _half_log_snr(a: float) -> float:
    return math.log(a / (1 - a)) / 2


def _state(z: Tensor) -> Tensor:
    return z.to(torch.promote_types(z.dtype, torch.float32))


def _eps(z: Tensor, label: Tensor, path: Path, predict: Predict, k: int) -> Tensor:
    t = torch.full((len(z),), path.taus[k], device=z.device)
    return predict(z, t, label).to(z.dtype)


def _clean(z: Tensor, eps: Tensor, a: float) -> Tensor:
    clean: Tensor = (z - (1 - a) ** 0.5 * eps) / a**0.5
    return clean
