"""Noise schedule: how much of the clean latent is left at each level."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affect_hpc.config.model import DiffusionConfig

Float64s = npt.NDArray[np.float64]


def betas(config: DiffusionConfig) -> Float64s:
    """Noise variances beta_t, t = 0 .. T-1, in float64.

    scaled_linear is linear in sqrt(beta), which the original code calls linear (D-09).
    """
    start, end, count = config.beta_start, config.beta_end, config.num_timesteps
    if config.beta_schedule == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, count, dtype=np.float64) ** 2
    assert config.beta_schedule == "linear", "DiffusionConfig.check knows the names"
    return np.linspace(start, end, count, dtype=np.float64)


def alpha_bars(config: DiffusionConfig) -> Tensor:
    """alpha_bar_t = prod over s <= t of (1 - beta_s): shape (T,), float64, falling. Index 0 holds beta_0 already."""
    return torch.from_numpy(np.cumprod(1 - betas(config)))
