"""What every corpus gives: shards to be written, and the faces of each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

UInt8Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Face:
    """One aligned crop."""

    key: str
    """Unique in the corpus, ASCII without dots and slashes."""
    image: UInt8Image
    """(size, size, 3)"""
    label: int | None
    """Emotion id 0..7; None = the labelling expert decides."""
    identity: str
    source: str
    """Where it came from: relative path (and frame), or how it was drawn."""
    truth: Mapping[str, UInt8Image] = field(default_factory=dict)
    """Emotion -> the same identity with that expression. Only procedural faces have it."""


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be written; the unit of work of an array part."""

    split: str
    """train or val"""
    name: str
    units: tuple[Any, ...]
    """What the source needs to know to make its faces."""
    weight: int
    """Faces expected, for the progress line."""


class Source(Protocol):
    """A corpus."""

    def shards(self) -> list[ShardPlan]:
        """All shards in order, found without decoding anything."""
        ...

    def faces(self, shard: ShardPlan) -> Iterator[Face]:
        """The faces of one shard, always the same ones in the same order."""
        ...

    def findings(self) -> dict[str, int]:
        """Faces and files left out so far, counted by reason."""
        ...

    def left_out(self) -> dict[str, str]:
        """Files that were left out so far -> the reason."""
        ...

    def verdict(self) -> None:
        """Called after the last shard: raises UserError, one line a file, where the corpus cannot be used as it is."""
        ...
