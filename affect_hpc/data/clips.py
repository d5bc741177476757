"""Talking clips of prepared shards, as what conditions a model of talking faces: frames, masks, landmarks, windows."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from affect_hpc.core.errors import UserError
from affect_hpc.data.codec import Sound, UInt8Image, decode, decode_npy, decode_png
from affect_hpc.data.shards import ShardSet

Float32 = npt.NDArray[np.float32]

WITHOUT_MOUTH = slice(0, 48)
"""Jaw, brows, nose and eyes: the landmarks that do not give the mouth away."""
MOUTH = slice(48, 68)
MARGIN_SIDE = 128
"""data.mask_margin_px counts px of a crop of this side."""


@dataclass(frozen=True)
class IdentityRule:
    """Which frames of a clip may show a model whose face it is to draw (thesis section 5.2.3, D-26)."""

    ahead: int = 60
    """Frames before this many past the target."""
    exclude_target: bool = False
    symmetric: bool = False
    """Only frames fewer than ``ahead`` before the target, too, instead of all earlier ones."""
    first: bool = False
    """Always frame 0, as the thesis samples."""

    def candidates(self, frames: int, target: int) -> list[int]:
        """The frames allowed for frame ``target`` of ``frames``; the target itself where there is no other."""
        if self.first:
            return [0]
        start = max(0, target - self.ahead + 1) if self.symmetric else 0
        allowed = range(start, min(frames, target + self.ahead))
        return [frame for frame in allowed if not (self.exclude_target and frame == target)] or [target]

    def choose(self, frames: int, target: int, place: int, seed: int) -> int:
        """One of the candidates, each with the same chance.

        Args:
            place: of the sample in the training's order; same place and seed, same choice, on any machine.
        """
        allowed = self.candidates(frames, target)
        drawn = hashlib.sha256(f"{seed}:{place}".encode()).digest()[:8]
        return allowed[int.from_bytes(drawn, "little") * len(allowed) >> 64]


class ClipSet:
    """Random access to the clips of a split; decodes what is asked for and keeps nothing.

    Args:
        shards: of stage prepare_shards, with a corpus of clips.

    Raises:
        UserError: the shards hold single faces.
    """

    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards
        if "frames" not in shards[0].info:
            raise UserError(
                f"the sample {shards[0].key} is no talking clip: give shards of data=mead or data=demo_clips."
            )

    @classmethod
    def open(cls, folders: Sequence[Path]) -> "ClipSet":
        """All clips of the shards in ``folders``."""
        return cls(ShardSet.open(folders))

    def __len__(self) -> int:
        return len(self.shards)

    def frames(self, i: int) -> int:
        """T: frames of clip ``i``."""
        return int(self.shards[i].info["frames"])

    def frame(self, i: int, k: int) -> UInt8Image:
        """Frame ``k`` of clip ``i``, (H, W, 3)."""
        return decode_png(self.shards.read(i, f"{k:06d}.png"))

    def landmarks(self, i: int) -> Float32:
        """(T, 68, 2) in px, x and y; NaN for frames in which no face was found."""
        return decode_npy(self.shards.read(i, "landmarks.npy")).astype(np.float32, copy=False)

    def mask_rows(self, i: int) -> npt.NDArray[np.int16]:
        """(T,): first row of each frame that is masked."""
        return decode_npy(self.shards.read(i, "mask_row.npy")).astype(np.int16, copy=False)

    def masked(self, i: int, k: int) -> UInt8Image:
        """Frame ``k`` with everything from its mask row down in black, (H, W, 3)."""
        image = self.frame(i, k).copy()
        image[self.mask_rows(i)[k] :] = 0
        return image

    def sound(self, i: int) -> Sound | None:
        """Samples (N,) of clip ``i`` and their rate in Hz; None where it has no sound."""
        if not self.shards.has(i, "wav"):
            return None
        sound: Sound = decode("wav", self.shards.read(i, "wav"))
        return sound

    def landmark_vector(self, i: int, k: int) -> Float32:
        """See ``landmark_vector``, of frame ``k`` of clip ``i``."""
        return landmark_vector(self.landmarks(i)[k], self.frame(i, k).shape[0])

    def identity_frame(self, i: int, k: int, rule: IdentityRule, place: int, seed: int) -> UInt8Image:
        """A frame of clip ``i`` that shows whose face frame ``k`` is; see IdentityRule.choose."""
        return self.frame(i, rule.choose(self.frames(i), k, place, seed))


def landmark_vector(points: Float32, size: int) -> Float32:
    """(96,) in [-1, 1]: x0, y0, x1, ... of the points but the mouth's; NaN where the points are (thesis section 5.2.2).

    Args:
        points: (68, 2) in px of a crop of side ``size``.
    """
    scaled: Float32 = (np.clip(points[WITHOUT_MOUTH], 0, size) / np.float32(size / 2) - 1).astype(np.float32)
    return scaled.reshape(-1)


def window(features: Float32, k: int, w: int) -> Float32:
    """(2w+1, D): rows k-w .. k+w of (T, D) features, the first and the last one repeated past the ends."""
    return features[np.clip(np.arange(k - w, k + w + 1), 0, len(features) - 1)]


def mask_rows(landmarks: npt.NDArray[np.float32], size: int, margin_px: int) -> npt.NDArray[np.int16]:
    """(T,): first masked row of each frame, a little above the upper lip; the middle where landmarks are missing.

    Args:
        landmarks: (T, 68, 2) in px of crops of side ``size``.
        margin_px: how far above the highest point of the mouth, at 128 px.
    """
    lips = landmarks[:, MOUTH, 1].min(axis=1)
    rows = np.where(np.isnan(lips), size // 2, np.trunc(lips) - round(margin_px * size / MARGIN_SIDE))
    return np.clip(rows, 0, size).astype(np.int16)
