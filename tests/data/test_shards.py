"""Shards: the same bytes everywhere, read at random, never half there."""

import io
import json
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest

from affect_hpc.core.errors import UserError
from affect_hpc.core.io import sha256_file
from affect_hpc.data.codec import decode_npy, decode_png, encode_npy, encode_png
from affect_hpc.data.shards import ShardSet, ShardWriter


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
    assert first.with_name("shard.index.json").read_bytes() == second.with_name("shard.index.json").read_bytes()
    index = json.loads(first.with_name("shard.index.json").read_text())
    assert (index["sha256"], index["bytes"]) == (sha256_file(first), first.stat().st_size)
    with tarfile.open(first) as tar:
        entries = tar.getmembers()
    for entry in entries:
        assert (entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname, entry.mode) == (0, 0, 0, "", "", 0o644)


def test_every_member_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "b", "shard-00000", range(5, 9))
    write(tmp_path / "a", "shard-00001", range(3, 5))
    write(tmp_path / "a", "shard-00000", range(3))
    shards = ShardSet.open([tmp_path / "a", tmp_path / "b"])
    assert [sample.key for sample in shards.samples] == [f"face-{number:03d}" for number in range(9)]
    for i in np.random.default_rng(0).permutation(9):
        for name, expected in content(int(i)).items():
            assert shards.read(int(i), name) == expected
        assert (shards.samples[i].label, shards.samples[i].identity) == (i % 8, f"p{i}")
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
        ShardSet.open([tmp_path])


@pytest.mark.parametrize("key", ["a.b", "a/b"])
def test_a_key_that_webdataset_would_cut_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="holds a dot or a slash"), ShardWriter(tmp_path, "shard") as writer:
        writer.write(key, {"png": b"x"}, {})
    assert not list(tmp_path.iterdir())


def test_a_truncated_shard_is_told_of(tmp_path: Path) -> None:
    tar = write(tmp_path, "shard", range(3))
    shards = ShardSet.open([tmp_path])
    offset, size = shards.samples[2].members["png"]
    with tar.open("r+b") as handle:
        handle.truncate(offset + size - 1)
    assert shards.read(1, "png") == content(1)["png"], "what is there is read"
    with pytest.raises(OSError, match=r"shard\.tar ends before the member face-002\.png: the shard is damaged"):
        shards.read(2, "png")


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, "shard") as writer:
        writer.write("face", content(0), {"label": 0})
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_shard_shows_when_it_is_whole(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "shard") as writer:
        writer.write("face", content(0), {"label": 0})
        with pytest.raises(UserError, match=r"no shards in .*: expected \*\.tar with \*\.index\.json beside them"):
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
    with pytest.raises(ValueError, match="allow_pickle=False"):
        decode_npy(pickled.getvalue())
