"""Crops of a split in memory, as batches of tensors."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from affect_hpc.data.codec import decode_png, images_to_tensor
from affect_hpc.data.shards import ShardSet


class ImageSet:
    """Decodes each crop at its first use and keeps it: 12 KiB a crop at 64 px, 48 KiB at 128."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards
        self._decoded: dict[int, np.ndarray] = {}
        self.size: int = self.image(0).shape[0]

    @classmethod
    def open(cls, folders: Sequence[Path]) -> "ImageSet":
        """All crops of the shards in ``folders``."""
        return cls(ShardSet.open(folders))

    def __len__(self) -> int:
        return len(self.shards)

    def image(self, index: int) -> np.ndarray:
        """Crop ``index`` as (H, W, 3) uint8."""
        if index not in self._decoded:
            self._decoded[index] = decode_png(self.shards.read(index, "png"))
        return self._decoded[index]

    def batch(self, indices: Iterable[int]) -> Tensor:
        """These crops as (B, 3, H, W) float32 in [-1, 1]."""
        return images_to_tensor([self.image(int(index)) for index in indices])

    def labels(self, indices: Iterable[int]) -> Tensor:
        """Their emotion ids, (B,) int64."""
        return torch.tensor([self.shards.samples[int(index)].label for index in indices])
