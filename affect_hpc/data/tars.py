"""Tars that anybody may have written, read front to back with nothing in them believed unchecked."""

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

CHUNK = 1 << 20
EXTENDED_BYTES = 1 << 20
"""A longer extended header (long names, PAX) is no header but an attack on the memory."""
EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.DIRTYPE: "a folder",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class Member(NamedTuple):
    """One member of a tar."""

    name: str
    offset: int
    """Where its content begins, in bytes."""
    size: int
    kind: str
    """What it is if not a regular file, else empty."""
    content: bytes
    """Empty where it is no regular file, or larger than allowed."""


class TarReader:
    """The members of a tar in order; afterwards what was found at its end. Memory holds one member at a time.

    Args:
        handle: the tar, opened at its start.
        most: content of larger members is passed over.
        advance: called after each chunk of up to ``CHUNK`` bytes.
    """

    def __init__(self, handle: IO[bytes], most: int, advance: Callable[[int], None] = lambda chunks: None) -> None:
        self._handle, self._most, self._advance = handle, most, advance
        self._sha256 = hashlib.sha256()
        self.bytes = 0
        """Read up to now."""
        self.broken = ""
        """Why not all members could be read; said when all others have been."""
        self.trailing = False
        """Whether something other than zeros stands after the end mark."""

    @property
    def sha256(self) -> str:
        """Of the whole tar, in hex, once all members have been read."""
        return self._sha256.hexdigest()

    def read(self, size: int) -> bytes:
        """For tarfile: the next bytes, which are counted and hashed on the way."""
        chunk = self._handle.read(size)
        self._sha256.update(chunk)
        self.bytes += len(chunk)
        if chunk:
            self._advance(1)
        return chunk

    def __iter__(self) -> Iterator[Member]:
        tar, reason = None, ""
        # A stream: tarfile then never goes back, whatever the headers say. It opens nothing that were to be closed.
        settings = {"fileobj": self, "bufsize": CHUNK, "tarinfo": _Header, "encoding": "utf-8"}
        try:
            tar = tarfile.open(mode="r|", **settings)  # type: ignore[call-overload]  # noqa: SIM115
            while (entry := tar.next()) is not None:
                tar.members.clear()
                yield self._member(tar, entry)
        except Exception as error:
            # Hostile headers make tarfile raise whatever comes: ValueError, RecursionError, StreamError ...
            reason = str(error)
        self._finish(tar.offset if tar is not None else 0, reason)

    def _member(self, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Member:
        kind = "" if entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) else KINDS.get(entry.type, "of an unknown kind")
        if entry.issparse():
            kind = KINDS[tarfile.GNUTYPE_SPARSE]
        content = b""
        if not kind and entry.size <= self._most:
            handle = tar.extractfile(entry)
            assert handle is not None, "it is a regular file"
            content = handle.read()
        return Member(entry.name, entry.offset_data, entry.size, kind, content)

    def _finish(self, end: int, reason: str) -> None:
        """Read to the end of the file, and see whether the tar ends as it should at byte ``end``."""
        while self.read(CHUNK):
            pass
        end = min(max(end, 0), self.bytes)
        self._handle.seek(end)
        first, second = self._handle.read(tarfile.BLOCKSIZE), self._handle.read(tarfile.BLOCKSIZE)
        if any(first) and len(first) == tarfile.BLOCKSIZE:
            self.broken = f"is damaged at byte {end}: nothing can be read from there on"
        elif len(second) < tarfile.BLOCKSIZE:
            self.broken = f"breaks off after {self.bytes} bytes"
        elif reason:
            self.broken = f"cannot be read from byte {end} on ({reason})"
        else:
            while second and not self.trailing:
                self.trailing = any(second)
                second = self._handle.read(CHUNK)


def split_name(name: str) -> tuple[str, str]:
    """Name of a member -> key and extension, as WebDataset cuts it: at the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem, extension


class _Header(tarfile.TarInfo):
    """A header whose sizes are checked before tarfile reads that much."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        entry = super().frombuf(buf, encoding, errors)
        if entry.size < 0 or (entry.type in EXTENDED and entry.size > EXTENDED_BYTES):
            raise tarfile.InvalidHeaderError(f"impossible size {entry.size}")  # type: ignore[attr-defined]
        return entry
