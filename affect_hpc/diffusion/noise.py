"""The random part of sampling, drawn for each sample by itself."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

STREAM = 1
"""Fourth word of the counter. A training's draws with the same key keep it 0, so the two never share a number."""


class SampleNoise:
    """Standard normal noise that is a function of (seed, index of the sample, step) alone.

    A sample is the same whatever batch, rank or part it is drawn in, and in whatever order the steps are asked for:
    each has a generator with a counter (Philox; Salmon et al. 2011), keyed (seed mod 2^64, index), whose counter begins
    at the words (0, 0, s, STREAM): s = 0 for the noise that sampling starts from, s = k + 1 for step k. NumPy turns
    its bits into normal numbers (``Generator.standard_normal``, float32).

    Args:
        seed: of the whole set of samples.
        indices: number of each sample of the batch in that set, from 0.
        shape: (C, h, w) of a latent.
        device: where the noise is wanted; it is drawn on the CPU.

    Raises:
        ValueError: a negative index or step.
    """

    def __init__(
        self, seed: int, indices: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        if min(indices, default=0) < 0:
            raise ValueError(f"index={min(indices)} of a sample is negative: indices count from 0.")
        self.seed, self.indices, self.shape, self.device = seed % 2**64, list(indices), tuple(shape), device

    def start(self) -> Tensor:
        """The noise that sampling starts from, (B, C, h, w) float32."""
        return self._drawn(0)

    def __call__(self, k: int) -> Tensor:
        """Fresh noise of the step that leaves level tau_k, (B, C, h, w) float32; k counts from 0."""
        if k < 0:
            raise ValueError(f"step k={k} is negative: steps count from 0.")
        return self._drawn(k + 1)

    def _drawn(self, word: int) -> Tensor:
        counter = np.array([0, 0, word, STREAM], np.uint64)
        noise = np.empty((len(self.indices), *self.shape), np.float32)
        for row, index in enumerate(self.indices):
            source = np.random.Philox(key=np.array([self.seed, index], np.uint64), counter=counter)
            noise[row] = np.random.Generator(source).standard_normal(self.shape, dtype=np.float32)
        return torch.from_numpy(noise).to(self.device)
