"""What every corpus gives: shards to be written, and the samples of each."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from affect_hpc.data.codec import UInt8Image, encode_json, encode_npy, encode_png, encode_wav


class Sample(Protocol):
    """What one sample of a shard is made of: a face, or a talking clip."""

    @property
    def key(self) -> str:
        """Unique in the corpus, ASCII without dots and slashes."""
        ...

    @property
    def label(self) -> int | None:
        """Emotion id 0..7; None = the labelling expert decides."""
        ...

    def info(self) -> dict[str, Any]:
        """What the shard's index says of it: label, identity, source and more."""
        ...

    def members(self) -> dict[str, bytes]:
        """Extension -> content, in the order in which they are written."""
        ...


@dataclass(frozen=True)
class Face:
    """One aligned crop."""

    key: str
    image: UInt8Image
    """(size, size, 3)"""
    label: int | None
    identity: str
    source: str
    """Where it came from: relative path (and frame), or how it was drawn."""
    truth: Mapping[str, UInt8Image] = field(default_factory=dict)
    """Emotion -> the same identity with that expression. Only procedural faces have it."""
    landmarks: npt.NDArray[np.float32] | None = None
    """(68, 2) in px of the crop, x and y."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else the index says: where the crop was cut, what the corpus annotates."""
    annotations: Mapping[str, Any] = field(default_factory=dict)
    """What the corpus annotates at length: in the json, not in the index."""

    def info(self) -> dict[str, Any]:
        """What the shard's index says of it."""
        return {"label": self.label, "identity": self.identity, "source": self.source, **self.more}

    def members(self) -> dict[str, bytes]:
        """png, landmarks.npy and truth_<emotion>.png where they are there, json."""
        found = {"png": encode_png(self.image)}
        if self.landmarks is not None:
            found["landmarks.npy"] = encode_npy(self.landmarks)
        found |= {f"truth_{emotion}.png": encode_png(image) for emotion, image in self.truth.items()}
        return found | {"json": encode_json({**self.info(), **self.annotations})}


@dataclass(frozen=True)
class Clip:
    """One talking clip: frames on a fixed time grid, with landmarks and sound."""

    key: str
    frames: Sequence[UInt8Image]
    """T crops of (size, size, 3)."""
    label: int | None
    identity: str
    source: str
    fps: float
    landmarks: npt.NDArray[np.float32]
    """(T, 68, 2) in px of the crop; NaN where no face was found in a frame."""
    mask_row: npt.NDArray[np.int16]
    """(T,): the first row that is masked when the mouth is to be inferred."""
    sound: npt.NDArray[np.int16]
    """(N,) samples; empty for a clip without sound."""
    sample_rate: int
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else the index says: level, transcript, the clip's box."""

    def info(self) -> dict[str, Any]:
        """What the shard's index says of it."""
        fixed = {"label": self.label, "identity": self.identity, "source": self.source}
        return {**fixed, "frames": len(self.frames), "fps": self.fps, **self.more}

    def members(self) -> dict[str, bytes]:
        """<frame>.png, landmarks.npy, mask_row.npy, wav where there is sound, json."""
        found = {f"{number:06d}.png": encode_png(frame) for number, frame in enumerate(self.frames)}
        found |= {"landmarks.npy": encode_npy(self.landmarks), "mask_row.npy": encode_npy(self.mask_row)}
        if len(self.sound):
            found["wav"] = encode_wav(self.sound, self.sample_rate)
        return found | {"json": encode_json(self.info())}


class Findings:
    """What a source met that is not as it should be, counted by reason and, but for ``count``, listed."""

    def __init__(self) -> None:
        self.entries: list[dict[str, str]] = []
        self._unlisted: Counter[str] = Counter()

    def note(self, source: str, reason: str) -> None:
        """Something doubtful about a sample that is used nonetheless."""
        self.entries.append({"source": source, "reason": reason, "used": "yes"})

    def leave_out(self, source: str, reason: str) -> None:
        """A sample, or a whole file, that is not used."""
        self.entries.append({"source": source, "reason": reason, "used": "no"})

    def count(self, reason: str, number: int = 1) -> None:
        """Samples that a corpus rules out itself, too many to be listed one by one."""
        self._unlisted[reason] += number

    def left_out(self) -> dict[str, str]:
        """Source -> reason, of what is not used."""
        return {entry["source"]: entry["reason"] for entry in self.entries if entry["used"] == "no"}

    def counts(self) -> dict[str, int]:
        """Reason -> how often it was met."""
        return dict(sorted((Counter(entry["reason"] for entry in self.entries) + self._unlisted).items()))


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be written; the unit of work of an array part."""

    split: str
    """train, val or test"""
    name: str
    units: tuple[Any, ...]
    """What the source needs to know to make its samples."""
    weight: int
    """Samples expected, for the progress line."""


class Source(Protocol):
    """A corpus."""

    findings: Findings

    def shards(self) -> list[ShardPlan]:
        """All shards in order, found without decoding anything."""
        ...

    def samples(self, shard: ShardPlan) -> Iterator[Face | Clip]:
        """The samples of one shard, always the same ones in the same order."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the manifest is to say of the corpus as a whole (counts against the published ones)."""
        ...

    def verdict(self) -> None:
        """Called after the last shard: raises UserError, one line a file, where the corpus cannot be used as it is."""
        ...
