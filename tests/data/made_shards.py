"""Small sets of shards, and ways to damage them."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from affect_hpc.data.corpora.source import Clip, Face
from affect_hpc.data.inspection import inspect
from affect_hpc.data.shards import ShardWriter

FIRST = "train/shard-00000.tar"
SECOND = "train/shard-00001.tar"
HELD_OUT = "val/shard-00000.tar"


def face(number: int, **other: Any) -> Face:
    random = np.random.default_rng(number)
    told: dict[str, Any] = {"label": number % 8, "identity": f"p{number}", "source": f"{number}.jpg", **other}
    image = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Face(f"face-{number:03d}", image, landmarks=random.random((68, 2), np.float32), **told)


def clip(number: int) -> Clip:
    random = np.random.default_rng(number)
    frames = list(random.integers(0, 256, (2 + number, 8, 8, 3), dtype=np.uint8))
    points, rows = random.random((len(frames), 68, 2), np.float32), np.zeros(len(frames), np.int16)
    sound = random.integers(-9, 9, 100 * (number % 2)).astype(np.int16)
    return Clip(f"clip-{number}", frames, 3, f"m{number}", f"{number}.mp4", 25.0, points, rows, sound, 16_000)


def write(folder: Path, name: str, samples: list[Any]) -> None:
    with ShardWriter(folder, name) as writer:
        for sample in samples:
            writer.write(sample.key, sample.members(), sample.info())


def write_set(folder: Path) -> Path:
    """Two shards of four faces each for training, one for validation, and what a stage writes beside them."""
    write(folder / "train", "shard-00000", [face(i) for i in range(4)])
    write(folder / "train", "shard-00001", [face(i) for i in range(4, 8)])
    write(folder / "val", "shard-00000", [face(i) for i in range(8, 12)])
    (folder / "manifest.json").write_text("{}")
    return folder


def without_indexes(folder: Path) -> None:
    for path in folder.rglob("*.index.jsonl"):
        path.unlink()


def faults(folder: Path) -> list[tuple[str, str, str]]:
    return [(fault.shard, fault.member, fault.reason) for fault in inspect(folder).faults]


Edit = Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]


def repack(tar: Path, edit: Edit, form: int = tarfile.USTAR_FORMAT) -> None:
    """Write a tar anew with other members; its index stays as it was."""
    with tarfile.open(tar) as old:
        entries = [(entry, old.extractfile(entry).read()) for entry in old]  # type: ignore[union-attr]
    edit(entries)
    with tarfile.open(tar, "w", format=form) as new:
        for entry, content in entries:
            new.addfile(entry, io.BytesIO(content))


def named(name: str, content: bytes = b"{}", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry, content
