"""Faces and latents of shards as samples of a training, and as batches of tensors."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affect_hpc.data.codec import UInt8Image, decode, decode_npy, images_to_tensor
from affect_hpc.data.permutation import Int64
from affect_hpc.data.shards import ShardSet

IMAGE_MEMBERS = ("png", "jpg", "webp")
FLIPPED = "flip.npy"


def unit_range(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1]: x / 127.5 - 1."""
    return (images.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous()


def stacked(shards: ShardSet, places: Iterable[int], member: str) -> Tensor:
    """An array of these samples as one tensor (B, ...), such as their latents."""
    return torch.from_numpy(np.stack([decode_npy(shards.read(place, member)) for place in places]))


class ImageSet:
    """The crops of a split."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards
        members = shards[0].members if len(shards) else ()
        self.member = next((name for name in IMAGE_MEMBERS if name in members), IMAGE_MEMBERS[0])
        """Extension of the crops."""

    @classmethod
    def open(cls, folders: Sequence[Path]) -> "ImageSet":
        """All crops of the shards in ``folders``."""
        return cls(ShardSet.open(folders))

    def __len__(self) -> int:
        return len(self.shards)

    def image(self, index: int) -> UInt8Image:
        """Crop ``index`` as (H, W, 3) uint8."""
        image: UInt8Image = decode(self.member, self.shards.read(index, self.member))
        return image

    def sample(self, index: int) -> Mapping[str, Any]:
        """image (H, W, 3) uint8 and label (emotion id)."""
        return {"image": self.image(index), "label": self.shards.labels[index]}

    def batch(self, indices: Iterable[int]) -> Tensor:
        """These crops as (B, 3, H, W) float32 in [-1, 1]."""
        return images_to_tensor([self.image(int(index)) for index in indices])

    def labels(self, indices: Iterable[int]) -> Tensor:
        """Their emotion ids, (B,) int64."""
        return torch.tensor([int(self.shards.labels[int(index)]) for index in indices])


class FaceViews:
    """The crops of a split as samples, their mirror images as samples of their own: the order of ``LatentSet``."""

    def __init__(self, images: ImageSet, flip: bool) -> None:
        self.images, self.views = images, 2 if flip else 1

    def __len__(self) -> int:
        return len(self.images) * self.views

    def sample(self, index: int) -> Mapping[str, Any]:
        """image (H, W, 3) uint8 and label (emotion id)."""
        view, place = divmod(index, len(self.images))
        face = self.images.sample(place)
        return {**face, "image": face["image"][:, ::-1]} if view else face

    @property
    def labels(self) -> Int64:
        """(N,) emotion ids."""
        return np.tile(self.images.shards.labels, self.views)


class LatentSet:
    """Latents of the train split, flipped views as samples of their own."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.shards = ShardSet.open(folders)
        self.views = ["npy", FLIPPED] if FLIPPED in self.shards[0].members else ["npy"]
        self.shape: tuple[int, ...] = tuple(self.sample(0)["latent"].shape)
        """(C, h, w)"""

    def __len__(self) -> int:
        return len(self.shards) * len(self.views)

    def sample(self, index: int) -> Mapping[str, Any]:
        """latent (C, h, w) float16 and label (emotion id)."""
        view, place = divmod(index, len(self.shards))
        return {
            "latent": decode_npy(self.shards.read(place, self.views[view])),
            "label": self.shards.labels[place],
        }

    @property
    def labels(self) -> Int64:
        """(N,) emotion ids."""
        return np.tile(self.shards.labels, len(self.views))
