"""Results as they are without the marks of synthetic pictures (data/provenance.py).

A mark hangs on whose key signs, and in a picture on chance besides: results must not. So whatever speaks of results,
DONE above all, takes a PNG without the chunk that holds its mark, and passes over the marks that lie beside shards.
"""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from affect_hpc.core.io import sha256_file

BESIDE = ".synthetic.json"
"""End of the name of a mark that lies beside what it marks."""
CHUNK = b"caBX"
"""Kind of the chunk of a PNG that holds its mark (C2PA specification 2.4, appendix on embedding manifests)."""
PNG = b"\x89PNG\r\n\x1a\n"
FRAME = 12
"""Bytes of a chunk besides its content: length, kind, checksum."""


def manifest_without_marks(folder: Path) -> dict[str, dict[str, int | str]]:
    """Relative path -> bytes and sha256 of every file below ``folder``, as if nothing were marked."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(BESIDE))
    return {
        path.relative_to(folder).as_posix(): {"bytes": size_without_mark(path), "sha256": sha256_without_mark(path)}
        for path in files
    }


def size_without_mark(path: Path) -> int:
    """Bytes of a file, those of its mark left out."""
    size = path.stat().st_size
    if path.suffix == ".png":
        with path.open("rb") as file:
            size -= sum(length for _, length in _marks(file))
    return size


def sha256_without_mark(path: Path) -> str:
    """SHA-256 of a file without its mark, in hexadecimal: that of the file as it was before it was marked."""
    if path.suffix != ".png":
        return sha256_file(path)
    with path.open("rb") as file:
        found = list(_marks(file))
        file.seek(0)
        content = file.read()
    for start, length in reversed(found):
        content = content[:start] + content[start + length :]
    return hashlib.sha256(content).hexdigest()


def _marks(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Where marks stand in a PNG, as (first byte, bytes); in a file that is none, or is cut off, as far as it goes."""
    place = len(PNG)
    if file.read(place) != PNG:
        return
    while len(head := file.read(8)) == 8:
        (length,) = struct.unpack(">I", head[:4])
        if head[4:] == CHUNK:
            yield place, length + FRAME
        place += length + FRAME
        file.seek(place)
