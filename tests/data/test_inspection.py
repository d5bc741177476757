"""The inspector names each damage of a set, its tars and indexes, and only it; a clean set has no fault."""

import gzip
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_shards import (
    FIRST,
    HELD_OUT,
    SECOND,
    clip,
    face,
    faults,
    repack,
    without_indexes,
    write,
    write_set,
)

from affect_hpc.data.codec import encode_npy
from affect_hpc.data.inspection import inspect
from affect_hpc.data.shards import ShardSet, ShardWriter, index_path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_set(tmp_path)


def test_a_clean_set_has_no_fault_and_is_counted(shards: Path) -> None:
    report = inspect(shards)
    assert (report.faults, report.remarks) == ([], [])
    assert [shard.name for shard in report.shards] == [FIRST, SECOND, HELD_OUT]
    assert report.counts() == {
        "train": dict.fromkeys("neutral happy sad surprised scared disgusted angry contempt".split(), 1),
        "val": dict.fromkeys("neutral happy sad surprised".split(), 1),
    }
    assert report.samples == 12 and sum(shard.members for shard in report.shards) == 36
    assert [shard.bytes for shard in report.shards] == [(shards / shard.name).stat().st_size for shard in report.shards]


def test_clips_of_all_lengths_are_clean_with_and_without_index(tmp_path: Path) -> None:
    write(tmp_path, "shard", [clip(i) for i in range(4)])
    assert faults(tmp_path) == []
    without_indexes(tmp_path)
    assert faults(tmp_path) == []


def test_shards_that_only_the_index_labels_are_clean(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "latents-00000") as writer:
        for number in range(3):
            writer.write(f"f{number}", {"npy": encode_npy(np.zeros(4))}, {"label": number, "identity": "p"})
    (tmp_path / "latents.json").write_text("{}")
    report = inspect(tmp_path)
    assert report.faults == [] and report.counts() == {"": {"neutral": 1, "happy": 1, "sad": 1}}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_plain_webdataset_tars_need_no_index(tmp_path: Path, form: int) -> None:
    def edit(entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        for number, (entry, _) in enumerate(entries):
            # What other writers do: long names of folders, times with fractions.
            entry.name = f"{'a' * 60}/{'b' * 60}/{entry.name}" if form != tarfile.USTAR_FORMAT else entry.name
            entry.mtime = number + 0.5

    write(tmp_path, "shard", [face(i) for i in range(3)])
    repack(tmp_path / "shard.tar", edit, form)
    without_indexes(tmp_path)
    report = inspect(tmp_path)
    assert report.faults == [] and report.samples == 3
    assert report.remarks == ["no shard has an index (*.index.jsonl) beside it: only the tars' own contents count"]


def test_a_flipped_bit_in_a_member_is_named_by_the_index(shards: Path) -> None:
    place = ShardSet.open([shards / "train"])[1].members["landmarks.npy"]
    content = bytearray((shards / FIRST).read_bytes())
    content[place.offset + place.size - 1] ^= 4
    (shards / FIRST).write_bytes(content)
    reason = "is not what was written (its CRC-32 differs from the index)"
    assert faults(shards) == [(FIRST, "face-001.landmarks.npy", reason)]


def test_a_flipped_bit_in_no_member_is_named_by_the_digest(shards: Path) -> None:
    place = ShardSet.open([shards / "train"])[0].members["png"]
    content = bytearray((shards / FIRST).read_bytes())
    assert place.size % 512, "a member with padding"
    content[place.offset + place.size] ^= 1
    (shards / FIRST).write_bytes(content)
    assert faults(shards) == [(FIRST, "", "is not what was written (its SHA-256 differs from the index)")]


def test_a_flipped_bit_in_a_header_ends_the_shard(shards: Path) -> None:
    place = ShardSet.open([shards / "train"])[2].members["png"]
    content = bytearray((shards / FIRST).read_bytes())
    content[place.offset - 500] ^= 1
    (shards / FIRST).write_bytes(content)
    reason = f"is damaged at byte {place.offset - 512}: nothing can be read from there on"
    assert faults(shards) == [(FIRST, "", f"{reason}; 6 members of its index are lost")]


def test_a_tar_cut_off_anywhere_breaks_off(tmp_path: Path) -> None:
    write(tmp_path, "shard", [face(0), face(1)])
    whole = (tmp_path / "shard.tar").read_bytes()
    end = len(whole.rstrip(b"\0"))
    lengths = [0, 1, 511, 512, 513, 1000, end - 1, *range(1024, end + 1024, 512)]
    for indexed in (True, False):
        for length in lengths:
            (tmp_path / "shard.tar").write_bytes(whole[:length])
            ((shard, member, reason),) = faults(tmp_path)
            assert (shard, member) == ("shard.tar", "") and reason.startswith(f"breaks off after {length} bytes")
            assert ("members of its index are lost" in reason) <= indexed
        without_indexes(tmp_path)


def test_sizes_that_differ_are_named(shards: Path) -> None:
    size = (shards / FIRST).stat().st_size
    with (shards / FIRST).open("ab") as handle:
        handle.write(bytes(512))
    assert faults(shards) == [(FIRST, "", f"holds {size + 512} bytes, and the index says {size}")]
    with (shards / FIRST).open("ab") as handle:
        handle.write(b"hidden")
    assert faults(shards) == [(FIRST, "", "holds data after its end mark")]


def test_indexes_that_are_missing_or_alone_are_named(shards: Path) -> None:
    index_path(shards / SECOND).unlink()
    (shards / HELD_OUT).unlink()
    assert sorted(faults(shards)) == [
        (SECOND, "", "has no index (shard-00001.index.jsonl) beside it"),
        ("val/shard-00000.index.jsonl", "", "is an index without a tar beside it"),
    ]


def lines_of(tar: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in index_path(tar).read_text().splitlines()]


def with_header(**fields: Any) -> Callable[[list[Any]], None]:
    return lambda lines: lines[0].update(fields)


NO_AGREEMENT = "has a first line that does not agree with its name or its other lines"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: lines.clear(), "has a line that is no json"),
        (lambda lines: lines.pop(), NO_AGREEMENT),
        (lambda lines: lines.pop(0), "has a line that is none of an index (KeyError: 'bytes')"),
        (lambda lines: lines[1].pop("members"), "has a line that is none of an index (KeyError: 'members')"),
        (lambda lines: lines[1].update(info=[1]), "has a line that is none of an index (AttributeError"),
        (lambda lines: lines[1]["members"].update(png=[1, 2]), "has a line that is none of an index (ValueError"),
        (lambda lines: lines[1]["info"].update(x=float("nan")), "has a line that holds NaN"),
        (with_header(tar="../shard-00000.tar"), NO_AGREEMENT),
        (with_header(count=5), NO_AGREEMENT),
        (with_header(labels="0000"), NO_AGREEMENT),
    ],
)
def test_an_index_that_is_none_is_named_and_the_tar_is_still_read(
    shards: Path, change: Callable[[list[Any]], None], reason: str
) -> None:
    lines = lines_of(shards / FIRST)
    change(lines)
    index_path(shards / FIRST).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    ((shard, member, found),) = faults(shards)
    assert (shard, member) == ("train/shard-00000.index.jsonl", "") and found.startswith(reason)
    assert inspect(shards).samples == 12


def test_an_index_with_other_facts_than_the_tar_is_named(shards: Path) -> None:
    def broken(edit: Callable[[dict[str, Any]], None]) -> list[tuple[str, str, str]]:
        lines = lines_of(shards / HELD_OUT)
        edit(lines[2])
        index_path(shards / HELD_OUT).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return faults(shards)

    good = index_path(shards / HELD_OUT).read_text()
    assert broken(lambda line: line["info"].update(identity="p8")) == []
    index_path(shards / HELD_OUT).write_text(good)
    found = broken(lambda line: line["members"]["png"].__setitem__(0, 512))
    assert found == [(HELD_OUT, "face-009.png", "does not lie where the index says")]
    index_path(shards / HELD_OUT).write_text(good)
    ((_, member, reason),) = broken(lambda line: line["members"]["png"].__setitem__(1, 3))
    assert member == "face-009.png" and reason.endswith("bytes, and the index says 3")


def test_files_that_do_not_belong_among_shards_are_named(shards: Path) -> None:
    (shards / "train" / ".shard-00002.tar.tmp").write_bytes(b"left behind")
    (shards / "train" / "more.tar.gz").write_bytes(gzip.compress(b""))
    (shards / "train" / "notes.json").write_text("{}")
    (shards / "readme.md").write_text("may stand where no shard is")
    os.mkfifo(shards / "val" / "pipe.tar")
    (shards / "val" / "away.tar").symlink_to("nowhere")
    names = ["train/.shard-00002.tar.tmp", "train/more.tar.gz", "val/away.tar", "val/pipe.tar"]
    assert faults(shards) == [(name, "", "does not belong among shards") for name in names]


def test_what_is_no_tar_is_named(shards: Path) -> None:
    (shards / "train" / "other.tar").write_bytes(bytes(range(256)) * 20)
    assert faults(shards) == [
        ("train/other.tar", "", "has no index (other.index.jsonl) beside it"),
        ("train/other.tar", "", "is damaged at byte 0: nothing can be read from there on"),
    ]


def test_keys_in_two_shards_are_named(shards: Path) -> None:
    write(shards / "val", "shard-00000", [face(8), face(2, identity="p8")])
    assert faults(shards) == [(HELD_OUT, "face-002", f"stands in {FIRST} too")]


def test_a_key_written_twice_is_named(shards: Path) -> None:
    write(shards / "val", "shard-00000", [face(8), face(9), face(8), face(10)])
    assert faults(shards) == [(HELD_OUT, "face-008", "stands twice in this shard")]


def test_identities_in_two_splits_are_named_once(shards: Path) -> None:
    write(shards / "val", "shard-00000", [face(8, identity="p2"), face(9, identity="p2"), face(10, identity="p10")])
    assert faults(shards) == [(HELD_OUT, "face-008", "shows the identity 'p2', who stands in train too")]
