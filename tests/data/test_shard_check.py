"""Each damage of the members and samples of a shard is named, and only it."""

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_shards import FIRST, SECOND, Edit, clip, face, faults, named, repack, without_indexes, write, write_set

from affect_hpc.data.codec import Limits, encode_json, encode_npy, encode_png
from affect_hpc.data.inspection import inspect
from affect_hpc.data.shard_check import Fault
from affect_hpc.data.shards import ShardSet, ShardWriter


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_set(tmp_path)


def swap(entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    entries.insert(5, entries.pop(0))


def again(entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    entries += entries[:3]


EDITS: dict[str, tuple[Edit, str, str]] = {
    "apart": (swap, "face-000", "has members that do not stand together"),
    "twice": (again, "face-000", "stands twice in this shard"),
    "missing member": (
        lambda entries: entries.pop(4) and None,
        "face-001.landmarks.npy",
        "is missing: the index names it",
    ),
    "missing sample": (lambda entries: entries.__delitem__(slice(3, 6)), "face-001", "is missing: the index names it"),
    "more members": (
        lambda entries: entries.insert(1, named("face-000.more.json")),
        *("face-000.more.json", "is not in the index"),
    ),
    "more samples": (lambda entries: entries.append(named("new.json")), "new", "is not in the index"),
    "out of the folder": (
        lambda entries: entries.append(named("a/../../etc/x.png")),
        *("a/../../etc/x.png", "has a name that leads out of the shard's folder"),
    ),
    "backslashes": (
        lambda entries: entries.append(named("..\\x.png")),
        *("..\\x.png", "has a name that leads out of the shard's folder"),
    ),
    "absolute": (lambda entries: entries.append(named("/etc/x.png")), "/etc/x.png", "has an absolute name"),
    "drive": (lambda entries: entries.append(named("C:x.png")), "C:x.png", "has an absolute name"),
    "no extension": (lambda entries: entries.append(named("a/b")), "a/b", "has a name without key or extension"),
    "no key": (lambda entries: entries.append(named("a/.png")), "a/.png", "has a name without key or extension"),
    "unprintable": (
        lambda entries: entries.append(named("a\x1b[2J.png")),
        *("a\x1b[2J.png", "has a name that is no plain text"),
    ),
    "pickle": (lambda entries: entries.append(named("face-003.pkl", b"cos\n")), "face-003.pkl", "is not in the index"),
    "size": (
        lambda entries: entries.__setitem__(2, named("face-000.json", b"{}")),
        *("face-000.json", "holds 2 bytes, and the index says 49"),
    ),
}
for name, kind, what in [
    ("symbolic link", tarfile.SYMTYPE, "a symbolic link"),
    ("hard link", tarfile.LNKTYPE, "a hard link"),
    ("character device", tarfile.CHRTYPE, "a device"),
    ("block device", tarfile.BLKTYPE, "a device"),
    ("pipe", tarfile.FIFOTYPE, "a pipe"),
    ("unknown", b"9", "of an unknown kind"),
]:
    link = named("face-000.png", b"", type=kind, linkname="/etc/passwd")
    EDITS[name] = (
        lambda entries, link=link: entries.__setitem__(0, link),  # type: ignore[misc]
        *("face-000.png", f"is {what}: shards hold plain files alone"),
    )


@pytest.mark.parametrize("case", EDITS)
def test_each_damage_of_a_tar_is_named_and_only_it(shards: Path, case: str) -> None:
    edit, member, reason = EDITS[case]
    repack(shards / FIRST, edit)
    assert faults(shards) == [(FIRST, member, reason)]


def test_folders_are_no_members(shards: Path) -> None:
    repack(shards / FIRST, lambda entries: entries.append(named("a.b", b"", type=tarfile.DIRTYPE)))
    assert ("a.b", "is a folder: shards hold plain files alone") in [found[1:] for found in faults(shards)]


WITHOUT_INDEX = {
    "apart": (swap, "face-000", "has members that do not stand together"),
    "twice": (again, "face-000", "stands twice in this shard"),
    "missing": (
        lambda entries: entries.pop(4) and None,
        *("face-001", "lacks landmarks.npy, which most samples of the shard have"),
    ),
    "json": (lambda entries: entries.pop(5) and None, "face-001", "has no json, which would give its label"),
    "pickle": (
        lambda entries: entries.insert(3, named("face-000.pkl", b"cos\n")),
        *(
            "face-000.pkl",
            "has the unknown kind 'pkl': shards hold jpg, jpeg, png, webp, npy, json, wav, flac, safetensors",
        ),
    ),
    "bits": (
        lambda entries: entries.__setitem__(0, (entries[0][0], entries[0][1][:-9] + bytes(9))),
        *("face-000.png", "is cut off: the end mark of a png is missing"),
    ),
    "list": (
        lambda entries: entries.__setitem__(2, named("face-000.json", b"[]")),
        "face-000.json",
        "is no JSON object",
    ),
}


@pytest.mark.parametrize("case", WITHOUT_INDEX)
def test_damages_are_named_without_an_index_too(shards: Path, case: str) -> None:
    edit, member, reason = WITHOUT_INDEX[case]
    without_indexes(shards)
    repack(shards / FIRST, edit)
    assert faults(shards) == [(FIRST, member, reason)]


@pytest.mark.parametrize(("gone", "reason"), [(1, "lacks frame 1"), (3, "holds 3 frames, and its json says 4")])
def test_a_missing_frame_is_named_without_an_index(tmp_path: Path, gone: int, reason: str) -> None:
    write(tmp_path, "shard", [clip(2), clip(3)])
    without_indexes(tmp_path)
    repack(tmp_path / "shard.tar", lambda entries: entries.__delitem__(gone))
    assert faults(tmp_path) == [("shard.tar", "clip-2", reason)]


def rewritten(shards: Path, **change: Any) -> list[tuple[str, str, str]]:
    write(shards / "train", "shard-00001", [face(4), face(5, **change), face(6), face(7)])
    return faults(shards)


@pytest.mark.parametrize("label", [8, 9, True, 2.0])
def test_labels_outside_the_eight_are_named(shards: Path, label: Any) -> None:
    with ShardWriter(shards / "train", "shard-00001") as writer:
        writer.write("x", {"json": encode_json({"label": label})}, {"label": label})
    assert faults(shards) == [(SECOND, "x", f"has the label {label}: labels are 0 to 7")]
    assert inspect(shards).counts()["train"]["unlabelled"] == 1


def test_missing_labels_and_labels_that_differ_are_named(shards: Path) -> None:
    assert rewritten(shards, label=None) == [(SECOND, "face-005", "has no label")]
    with ShardWriter(shards / "train", "shard-00001") as writer:
        writer.write("x", {"json": encode_json({"label": 3})}, {"label": 4})
        writer.write("y", {"png": encode_png(np.zeros((4, 4, 3), np.uint8))}, {})
    assert faults(shards) == [
        (SECOND, "x", "has the label 3 in its json and 4 in the index"),
        (SECOND, "y", "has no label"),
    ]


def test_members_that_were_never_good_are_named(shards: Path) -> None:
    with ShardWriter(shards / "train", "shard-00001") as writer:
        members: Mapping[str, bytes] = {"png": b"no picture", "z.npy": encode_npy(np.zeros(3))[:-1], "cls": b"3"}
        writer.write("x", members, {"label": 3})
    found = {member: reason for _, member, reason in faults(shards)}
    assert found.keys() == {"x.png", "x.z.npy", "x.cls"}
    assert found["x.png"] == "is no png: it does not begin as one"
    assert found["x.z.npy"] == "promises 24 bytes and holds 23"
    assert found["x.cls"].startswith("has the unknown kind 'cls'")


def test_members_above_the_limit_are_named_and_not_decoded(shards: Path) -> None:
    limits = Limits(array_bytes=(68 * 2 * 4) + 127)
    sizes = [entry.members["landmarks.npy"].size for entry in ShardSet.open([shards / "train", shards / "val"])]
    reasons = {f"holds {size} bytes, more than {limits.array_bytes}" for size in sizes}
    found = inspect(shards, limits).faults
    assert len(found) == 12 and {fault.reason for fault in found} == reasons
    assert {fault.member.partition(".")[2] for fault in found} == {"landmarks.npy"}


def test_no_name_steers_a_terminal() -> None:
    text = str(Fault("a\x1b[2J.tar", "x\n\udce4.png", "is no png"))
    assert text == "a\\x1b[2J.tar: x\\n\\xe4.png is no png" and text.isprintable()
