"""What a denoiser is trained and judged on: levels and noise drawn for each sample, and a fixed set for validation."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from affect_hpc.core.blocks import blocks
from affect_hpc.diffusion.objective import eps_error, q_sample

VALIDATION_SEED = 7919
VALIDATION_BATCH = 32


class Draws(NamedTuple):
    """The random part of the loss of some samples."""

    t: Tensor
    """Level of each sample, (B,) int64, 0 .. T-1."""
    noise: Tensor
    """Standard normal (B, C, h, w) float32."""
    chance: Tensor
    """Uniform in [0, 1), (B,) float64: decides whether the label is dropped."""


def draws(seed: int, numbers: Iterable[int], levels: int, shape: tuple[int, ...]) -> Draws:
    """What these samples of a training draw (Ho et al. 2020, Algorithm 1).

    Each is a function of the seed and the sample's number alone, by a generator with a counter (Philox; Salmon et al.
    2011). No split of a step into ranks and micro batches changes it, and a resumed run needs no state.

    Args:
        seed: of the training.
        numbers: samples seen before each one, over all ranks.
        levels: T, the number of noise levels.
        shape: (C, h, w) of a latent.
    """
    t, noise, chance = [], [], []
    for number in numbers:
        source = np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, number], np.uint64)))
        t.append(int(source.integers(levels)))
        chance.append(source.random())
        noise.append(source.standard_normal(shape, dtype=np.float32))
    return Draws(torch.tensor(t), torch.from_numpy(np.stack(noise)), torch.tensor(chance, dtype=torch.float64))


class Validation:
    """The loss on a fixed set of samples, levels and noise: comparable between steps and between runs.

    Args:
        z_0: clean latents (N, C, h, w) as they are diffused.
        label: (N,) int64, their true classes; none is dropped.
        alpha_bar: (T,) float64.
    """

    def __init__(self, z_0: Tensor, label: Tensor, alpha_bar: Tensor) -> None:
        self.label, self.alpha_bar = label, alpha_bar
        drawn = draws(VALIDATION_SEED, range(len(z_0)), len(alpha_bar), tuple(z_0.shape[1:]))
        self.t, self.noise = drawn.t.to(z_0.device), drawn.noise.to(z_0)
        self.z_t = q_sample(z_0, self.t, self.noise, alpha_bar)

    @torch.no_grad()
    def loss(self, predict: Callable[[Tensor, Tensor, Tensor], Tensor]) -> float:
        """Mean squared error of the noise predicted from (z_t, t, label), over all samples."""
        total = 0.0
        for block in blocks(len(self.z_t), VALIDATION_BATCH):
            some = slice(block.start, block.stop)
            predicted = predict(self.z_t[some], self.t[some], self.label[some])
            total += float(eps_error(predicted, self.noise[some])) * len(block)
        return total / len(self.z_t)
