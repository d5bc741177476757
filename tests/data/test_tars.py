"""Tars of strangers: whatever they hold, reading ends, and says where and why."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from made_shards import FIRST, clip, face, faults, named, write, write_set

from affect_hpc.core.io import sha256_file
from affect_hpc.data.tars import EXTENDED_BYTES, TarReader


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_set(tmp_path)


def test_headers_that_promise_the_moon_are_refused(tmp_path: Path) -> None:
    hostile = tarfile.TarInfo("x")
    hostile.type, hostile.size = tarfile.XHDTYPE, EXTENDED_BYTES + 1
    header = hostile.tobuf(tarfile.USTAR_FORMAT)
    (tmp_path / "long.tar").write_bytes(header + bytes(4096))
    negative = tarfile.TarInfo("y.png")
    negative.size = -512
    (tmp_path / "negative.tar").write_bytes(negative.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    nested = tarfile.TarInfo("z")
    nested.type = tarfile.GNUTYPE_LONGNAME
    (tmp_path / "nested.tar").write_bytes(nested.tobuf(tarfile.GNU_FORMAT) * 3000 + bytes(4096))
    reason = "is damaged at byte 0: nothing can be read from there on"
    assert faults(tmp_path) == [(f"{name}.tar", "", reason) for name in ("long", "negative", "nested")]


def test_back_references_of_extended_headers_end_the_reading(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(3):
            entry, content = named(f"s{number}.json", b"{}", pax_headers={"size": "-2048"} if number == 1 else {})
            tar.addfile(entry, io.BytesIO(content))
    ((shard, member, reason),) = [found for found in faults(tmp_path) if found[1] == ""]
    assert (shard, member) == ("shard.tar", "") and "from" in reason


def test_flipped_bits_never_stop_the_inspection(tmp_path: Path) -> None:
    write(tmp_path, "shard", [face(0), clip(0)])
    whole, random = (tmp_path / "shard.tar").read_bytes(), np.random.default_rng(0)
    digest = sha256_file(tmp_path / "shard.tar")
    for round_ in range(150):
        content = bytearray(whole)
        for at in random.integers(0, len(content), 1 + 20 * (round_ % 3)):
            content[at] ^= 1 << int(random.integers(8))
        (tmp_path / "shard.tar").write_bytes(content)
        assert bool(faults(tmp_path)) == (sha256_file(tmp_path / "shard.tar") != digest)


def test_the_reader_hashes_all_it_reads(shards: Path) -> None:
    with (shards / FIRST).open("rb") as handle:
        reader = TarReader(handle, 100)
        members = list(reader)
    assert (reader.sha256, reader.bytes) == (sha256_file(shards / FIRST), (shards / FIRST).stat().st_size)
    assert [len(member.content) for member in members] == [m.size if m.size <= 100 else 0 for m in members]
