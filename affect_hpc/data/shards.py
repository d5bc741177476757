"""WebDataset shards: plain tars with deterministic bytes, read at random through an index that lies beside each."""

import io
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, sha256_file, write_json

INDEX_SUFFIX = ".index.json"


@dataclass(frozen=True)
class Sample:
    """One sample of a shard: key, what the index says of it, and where its members' bytes lie."""

    key: str
    info: Mapping[str, Any]
    members: Mapping[str, tuple[int, int]]
    """Extension -> offset and size within the tar, in bytes."""

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
        self._samples: list[dict[str, Any]] = []

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
            places[extension] = (self._tar.offset + tarfile.BLOCKSIZE, len(content))
            self._tar.addfile(entry, io.BytesIO(content))
        self._samples.append({"key": key, "info": dict(info), "members": places})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._tar.close()
            if kind is None:
                with self._aside.open("rb") as handle:
                    os.fsync(handle.fileno())
                self._aside.replace(self.path)
                index = {
                    "tar": self.path.name,
                    "bytes": self.path.stat().st_size,
                    "sha256": sha256_file(self.path),
                    "samples": self._samples,
                }
                write_json(self.path.with_name(self.path.stem + INDEX_SUFFIX), index)
        finally:
            self._aside.unlink(missing_ok=True)


class ShardSet:
    """Random access to the samples of all shards in some folders, in order of folder and shard name."""

    def __init__(self, samples: list[Sample], tars: list[Path], tar_of: list[int]) -> None:
        self.samples = samples
        self._tars, self._tar_of = tars, tar_of
        self._handles: dict[int, int] = {}
        self._index = {sample.key: i for i, sample in enumerate(samples)}
        if len(self._index) != len(samples):
            raise UserError(
                f"{tars[0].parent} holds {len(samples) - len(self._index)} keys twice: prepare the shards anew."
            )

    @classmethod
    def open(cls, folders: Sequence[Path]) -> "ShardSet":
        """All shards of ``folders``; UserError where there is none."""
        samples: list[Sample] = []
        tars: list[Path] = []
        tar_of: list[int] = []
        for folder in folders:
            for index_path in sorted(folder.glob(f"*{INDEX_SUFFIX}")):
                index = read_json(index_path)
                tar_of += [len(tars)] * len(index["samples"])
                tars.append(folder / index["tar"])
                samples += [
                    Sample(
                        entry["key"],
                        entry["info"],
                        {name: (place[0], place[1]) for name, place in entry["members"].items()},
                    )
                    for entry in index["samples"]
                ]
        if not tars:
            raise UserError(
                f"no shards in {', '.join(map(str, folders))}: expected *.tar with *{INDEX_SUFFIX} beside them."
            )
        return cls(samples, tars, tar_of)

    def __len__(self) -> int:
        return len(self.samples)

    def index_of(self, key: str) -> int:
        """Position of the sample ``key``; KeyError where it is absent."""
        return self._index[key]

    def __contains__(self, key: str) -> bool:
        return key in self._index

    def has(self, i: int, member: str) -> bool:
        """Whether sample ``i`` has a member with the extension ``member``."""
        return member in self.samples[i].members

    def read(self, i: int, member: str) -> bytes:
        """Content of one member of sample ``i``."""
        offset, size = self.samples[i].members[member]
        tar = self._tar_of[i]
        if tar not in self._handles:
            self._handles[tar] = os.open(self._tars[tar], os.O_RDONLY)
        content = os.pread(self._handles[tar], size, offset)
        if len(content) != size:
            raise OSError(
                f"{self._tars[tar]} ends before the member {self.samples[i].key}.{member}: the shard is damaged"
            )
        return content

    def __del__(self) -> None:
        for handle in self._handles.values():
            os.close(handle)
