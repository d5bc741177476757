"""WebDataset shards: plain tars with deterministic bytes, read at random through an index that lies beside each.

The index of ``name.tar`` is ``name.index.jsonl``: a header line (tar, bytes, sha256, count, labels), then a line for
each sample: key, info, and for each member its offset, size and CRC-32. Opening a set reads the headers alone.
"""

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from affect_hpc.core.errors import UserError
from affect_hpc.core.io import sha256_file, writing_file
from affect_hpc.data.codec import DamagedMemberError

INDEX_SUFFIX = ".index.jsonl"
NO_LABEL = "-"
KEPT_INDEXES = 64
"""Indexes that a set holds in memory at once; about 300 bytes a sample."""
KEPT_HANDLES = 128


class Place(NamedTuple):
    """Where a member's bytes lie in its tar."""

    offset: int
    size: int
    crc32: int


@dataclass(frozen=True)
class Entry:
    """What the index says of one sample."""

    key: str
    info: Mapping[str, Any]
    members: Mapping[str, Place]
    """By extension."""

    @property
    def label(self) -> int:
        """Emotion id, 0..7."""
        return int(self.info["label"])

    @property
    def identity(self) -> str:
        """Who is shown: an identity never stands in two splits."""
        return str(self.info["identity"])


class ShardWriter:
    """Writes ``folder/name.tar`` and its index. Same input, same bytes: no time, owner or order of the machine enters.

    Used as a context manager; tar and index appear when the block ends well, tar first, so that an index never
    stands alone.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.tar"
        self._aside = folder / f".{name}.tar.tmp"
        self._lines: list[str] = []
        self._labels: list[str] = []

    def __enter__(self) -> "ShardWriter":
        self._tar = tarfile.open(self._aside, "w", format=tarfile.USTAR_FORMAT)
        return self

    def write(self, key: str, members: Mapping[str, bytes], info: Mapping[str, object]) -> None:
        """Append one sample.

        Args:
            key: name of the sample, unique in the corpus, without dots or slashes.
            members: extension (may hold dots) -> content.
            info: what the index says of the sample (label, identity, source).
        """
        if "." in key or "/" in key:
            raise ValueError(f"sample key {key!r} holds a dot or a slash: WebDataset would read another key")
        places = {}
        for extension, content in members.items():
            entry = tarfile.TarInfo(f"{key}.{extension}")
            entry.size, entry.mode = len(content), 0o644
            # addfile writes one 512-byte header before the content (USTAR names up to 100 bytes).
            places[extension] = Place(self._tar.offset + tarfile.BLOCKSIZE, len(content), isal_zlib.crc32(content))
            self._tar.addfile(entry, io.BytesIO(content))
        self._lines.append(json.dumps({"key": key, "info": dict(info), "members": places}, sort_keys=True))
        label = info.get("label")
        if label is not None and label not in range(10):
            raise ValueError(f"the label {label!r} of sample {key!r} is no digit: the index holds one for each sample")
        self._labels.append(NO_LABEL if label is None else str(label))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._tar.close()
            if kind is None:
                with self._aside.open("rb") as handle:
                    os.fsync(handle.fileno())
                self._aside.replace(self.path)
                header = {
                    "tar": self.path.name,
                    "bytes": self.path.stat().st_size,
                    "sha256": sha256_file(self.path),
                    "count": len(self._lines),
                    "labels": "".join(self._labels),
                }
                with writing_file(index_path(self.path)) as aside:
                    aside.write_text("".join(f"{line}\n" for line in [json.dumps(header), *self._lines]))
        finally:
            self._aside.unlink(missing_ok=True)


def index_path(tar: Path) -> Path:
    """Where the index of a tar lies."""
    return tar.with_name(tar.stem + INDEX_SUFFIX)


def read_header(path: Path) -> dict[str, Any]:
    """First line of an index.

    Raises:
        UserError: it is no index.
    """
    try:
        with path.open("rb") as handle:
            header = json.loads(handle.readline())
        if len(header["labels"]) != header["count"]:
            raise ValueError("labels")
        return dict(header)
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is no index of a shard: prepare the shards anew, or see `python tools/inspect_shards.py"
            f" {path.parent}`."
        ) from None


class _Shard:
    """One tar with its index, whose lines are parsed when they are asked for."""

    def __init__(self, index: Path) -> None:
        self.header = read_header(index)
        name = index.name.removesuffix(INDEX_SUFFIX) + ".tar"
        if self.header["tar"] != name:
            raise UserError(f"{index} is the index of {self.header['tar']!r}, not of {name}: prepare the shards anew.")
        self.index, self.tar = index, index.parent / name
        self.count = int(self.header["count"])

    def lines(self) -> tuple[bytes, npt.NDArray[np.int64]]:
        """The index's content, and where each line ends."""
        content = self.index.read_bytes()
        ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n"))
        if len(ends) != self.count + 1:
            raise UserError(f"{self.index} lacks lines: it names {self.count} samples; prepare the shards anew.")
        return content, ends


class _Handle:
    """An open file that is closed when nobody holds it any more."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class ShardSet:
    """Random access to the samples of all shards in some folders, in order of folder and shard name.

    Memory does not grow with what is read; a sample is read with one ``pread`` a member.
    """

    def __init__(self, shards: Sequence[_Shard]) -> None:
        self._shards = shards
        self._ends = np.cumsum([shard.count for shard in shards])
        self._index = lru_cache(KEPT_INDEXES)(lambda number: shards[number].lines())
        self._handle = lru_cache(KEPT_HANDLES)(lambda number: _Handle(shards[number].tar))

    @classmethod
    def open(cls, folders: Sequence[Path | str]) -> "ShardSet":
        """All shards of ``folders``; UserError where there is none, or where one is no folder of this machine."""
        shards: list[_Shard] = []
        for folder in folders:
            if re.match(r"[a-z][a-z0-9+.-]*:", str(folder)):
                raise UserError(f"{folder} is no folder: shards are read from folders, not from a pipe or the net.")
            shards += [_Shard(path) for path in sorted(Path(folder).glob(f"*{INDEX_SUFFIX}"))]
        if not shards:
            raise UserError(
                f"no shards in {', '.join(map(str, folders))}: expected *.tar with *{INDEX_SUFFIX} beside them."
            )
        return cls(shards)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, i: int) -> Entry:
        return self._entry(*self._find(i))

    def _entry(self, number: int, row: int) -> Entry:
        content, ends = self._index(number)
        line = json.loads(content[ends[row] + 1 : ends[row + 1]])
        return Entry(line["key"], line["info"], {name: Place(*place) for name, place in line["members"].items()})

    def __iter__(self) -> Iterator[Entry]:
        return (self[i] for i in range(len(self)))

    def _find(self, i: int) -> tuple[int, int]:
        """Number of the shard and row in it of sample ``i``."""
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        number = int(np.searchsorted(self._ends, i, side="right"))
        return number, i - int(self._ends[number] - self._shards[number].count)

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) emotion ids, -1 for none; read from the headers."""
        digits = "".join(shard.header["labels"] for shard in self._shards)
        return np.array([-1 if digit == NO_LABEL else int(digit) for digit in digits], np.int64)

    @cached_property
    def _by_key(self) -> Mapping[str, int]:
        table = {entry.key: i for i, entry in enumerate(self)}
        if len(table) != len(self):
            raise UserError(
                f"{self._shards[0].tar.parent} holds {len(self) - len(table)} keys twice: prepare the shards anew."
            )
        return table

    def index_of(self, key: str) -> int:
        """Position of the sample ``key``; KeyError where it is absent. Its first call reads all indexes."""
        return self._by_key[key]

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def has(self, i: int, member: str) -> bool:
        """Whether sample ``i`` has a member with the extension ``member``."""
        return member in self[i].members

    def read(self, i: int, member: str) -> bytes:
        """Content of one member of sample ``i``.

        Raises:
            DamagedMemberError: it is not there, or its bytes are not those that were written.
        """
        number, row = self._find(i)
        entry = self._entry(number, row)
        tar = self._shards[number].tar
        name = f"{tar}: {entry.key}.{member}"
        if member not in entry.members:
            raise DamagedMemberError(f"{name} is missing, there are {', '.join(entry.members)}")
        place = entry.members[member]
        try:
            content = os.pread(self._handle(number).number, place.size, place.offset)
        except OSError as error:
            raise DamagedMemberError(f"{name} cannot be read ({error.strerror})") from error
        if len(content) != place.size:
            raise DamagedMemberError(f"{name} is cut off: the shard ends before it")
        if isal_zlib.crc32(content) != place.crc32:
            raise DamagedMemberError(f"{name} is not what was written (CRC-32 differs)")
        return content

    def __getstate__(self) -> dict[str, Any]:
        # For worker processes: they open files of their own.
        return {"_shards": self._shards}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_shards"])  # type: ignore[misc]
