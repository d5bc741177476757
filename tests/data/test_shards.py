"""Shards: the same bytes everywhere, read at random, never half there."""

import io
import os
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest

from affect_hpc.core.errors import UserError
from affect_hpc.core.io import sha256_file
from affect_hpc.data.codec import DamagedMemberError, decode_npy, decode_png, encode_npy, encode_png
from affect_hpc.data.shards import Place, ShardSet, ShardWriter, index_path, read_header


def content(number: int) -> dict[str, bytes]:
    """Members of odd sizes, one empty, one of exactly a tar block."""
    random = np.random.default_rng(number)
    return {
        "png": random.bytes(300 + number),
        "truth_happy.png": random.bytes(512),
        "z_t0.npy": encode_npy(random.standard_normal((3, 2, 2)).astype(np.float32)),
        "empty": b"",
    }


def write(folder: Path, name: str, numbers: range) -> Path:
    with ShardWriter(folder, name) as writer:
        for number in numbers:
            writer.write(f"face-{number:03d}", content(number), {"label": number % 8, "identity": f"p{number}"})
    return folder / f"{name}.tar"


def test_same_input_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(tmp_path / "one", "shard", range(5))
    monkeypatch.setattr(tarfile.time, "time", lambda: 1.0)
    second = write(tmp_path / "two", "shard", range(5))
    assert sha256_file(first) == sha256_file(second)
    assert index_path(first).read_bytes() == index_path(second).read_bytes()
    header = read_header(index_path(first))
    assert (header["sha256"], header["bytes"]) == (sha256_file(first), first.stat().st_size)
    assert (header["count"], header["labels"]) == (5, "01234")
    with tarfile.open(first) as tar:
        entries = tar.getmembers()
    for entry in entries:
        assert (entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname, entry.mode) == (0, 0, 0, "", "", 0o644)


def test_every_member_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "b", "shard-00000", range(5, 9))
    write(tmp_path / "a", "shard-00001", range(3, 5))
    write(tmp_path / "a", "shard-00000", range(3))
    shards = ShardSet.open([tmp_path / "a", tmp_path / "b"])
    assert [sample.key for sample in shards] == [f"face-{number:03d}" for number in range(9)]
    for i in np.random.default_rng(0).permutation(9):
        for name, expected in content(int(i)).items():
            assert shards.read(int(i), name) == expected
        assert (shards[i].label, shards[i].identity) == (i % 8, f"p{i}")
        assert shards.index_of(f"face-{i:03d}") == i
    assert "face-008" in shards and "face-009" not in shards
    assert shards.has(0, "png") and not shards.has(0, "jpg")
    with pytest.raises(KeyError):
        shards.index_of("face-009")


def test_plain_webdataset_reads_them(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    tar = write(tmp_path, "shard", range(4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in samples] == [f"face-{number:03d}" for number in range(4)]
    for number, sample in enumerate(samples):
        assert {name: sample[name] for name in content(number)} == content(number)


def test_a_key_stands_once_in_a_set(tmp_path: Path) -> None:
    write(tmp_path, "shard-00000", range(3))
    write(tmp_path, "shard-00001", range(2, 4))
    with pytest.raises(UserError, match="holds 1 keys twice: prepare the shards anew"):
        ShardSet.open([tmp_path]).index_of("face-000")


@pytest.mark.parametrize("key", ["a.b", "a/b"])
def test_a_key_that_webdataset_would_cut_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="holds a dot or a slash"), ShardWriter(tmp_path, "shard") as writer:
        writer.write(key, {"png": b"x"}, {})
    assert not list(tmp_path.iterdir())


def damaged(tar: Path, how: str, place: Place) -> None:
    content = bytearray(tar.read_bytes())
    if how == "cut off":
        del content[place.offset + place.size - 1 :]
    else:
        content[place.offset + 7] ^= 0x10
    tar.write_bytes(content)


@pytest.mark.parametrize("how", ["cut off", "not what was written"])
def test_a_damaged_member_is_named_and_the_others_are_read(tmp_path: Path, how: str) -> None:
    tar = write(tmp_path, "shard", range(3))
    shards = ShardSet.open([tmp_path])
    damaged(tar, how, shards[2].members["png"])
    assert shards.read(1, "png") == content(1)["png"]
    with pytest.raises(DamagedMemberError, match=rf"shard\.tar: face-002\.png is {how}"):
        shards.read(2, "png")
    with pytest.raises(DamagedMemberError, match=r"face-001\.jpg is missing, there are empty, png"):
        shards.read(1, "jpg")


def test_a_shard_that_went_away_damages_its_samples_alone(tmp_path: Path) -> None:
    write(tmp_path, "shard-00000", range(2))
    write(tmp_path, "shard-00001", range(2, 4)).unlink()
    shards = ShardSet.open([tmp_path])
    assert shards.read(1, "empty") == b""
    with pytest.raises(DamagedMemberError, match=r"shard-00001\.tar: face-002\.empty cannot be read \(No such file"):
        shards.read(2, "empty")


def test_a_part_without_work_leaves_an_empty_shard(tmp_path: Path) -> None:
    write(tmp_path, "shard", range(0))
    shards = ShardSet.open([tmp_path])
    assert len(shards) == 0 and list(shards) == [] and len(shards.labels) == 0
    with pytest.raises(IndexError):
        shards[0]


def test_opening_reads_headers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write(tmp_path, f"shard-{number:05d}", range(10 * number, 10 * number + 4))
    read: list[Path] = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or whole(path))
    shards = ShardSet.open([tmp_path])
    assert len(shards) == 12
    assert shards.labels.tolist() == [number % 8 for start in (0, 10, 20) for number in range(start, start + 4)]
    assert not read, "neither to count nor for the labels"
    assert shards[5].key == "face-011" and shards[6].key == "face-012"
    assert [path.name for path in read] == ["shard-00001.index.jsonl"]
    with pytest.raises(IndexError):
        shards[12]


def test_handles_and_indexes_held_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("affect_hpc.data.shards.KEPT_HANDLES", 2)
    for number in range(6):
        write(tmp_path, f"shard-{number:05d}", range(number, number + 1))
    shards = ShardSet.open([tmp_path])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for i in range(6):
            assert shards.read(i, "png") == content(i)["png"]
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del shards
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("where", ["pipe:cat shard.tar", "http://host/shards", "s3://bucket/shards"])
def test_pipes_and_the_net_are_refused(where: str) -> None:
    with pytest.raises(UserError, match="is no folder: shards are read from folders"):
        ShardSet.open([where])


@pytest.mark.parametrize("text", ["", "{}\n", "[1]\n", '{"tar": "x", "count": 2, "labels": "0"}\n', "\x00\xff"])
def test_an_index_that_is_none_is_told_of(tmp_path: Path, text: str) -> None:
    write(tmp_path, "shard", range(2))
    (tmp_path / "shard.index.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"shard\.index\.jsonl is no index of a shard"):
        ShardSet.open([tmp_path])


def test_an_index_that_lacks_lines_is_told_of(tmp_path: Path) -> None:
    write(tmp_path, "shard", range(3))
    path = tmp_path / "shard.index.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="lacks lines: it names 3 samples"):
        ShardSet.open([tmp_path])[0]


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, "shard") as writer:
        writer.write("face", content(0), {"label": 0})
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_shard_shows_when_it_is_whole(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "shard") as writer:
        writer.write("face", content(0), {"label": 0})
        with pytest.raises(UserError, match=r"no shards in .*: expected \*\.tar with \*\.index\.jsonl beside them"):
            ShardSet.open([tmp_path])
        assert not list(tmp_path.glob("*.tar"))
    assert len(ShardSet.open([tmp_path])) == 1


def test_codec_round_trips() -> None:
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_png(encode_png(image)), image)
    assert encode_png(image) == encode_png(image.copy())
    for dtype in (np.float16, np.float32, np.int64):
        array = random.standard_normal((3, 4)).astype(dtype)
        back = decode_npy(encode_npy(array))
        np.testing.assert_array_equal(back, array)
        assert back.dtype == dtype
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        decode_npy(pickled.getvalue())
