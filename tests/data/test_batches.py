"""What a training reads: the same global batches for any division of the work, damaged samples passed over."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affect_hpc.config.train import ShuffleConfig, TrainConfig
from affect_hpc.core.errors import UserError
from affect_hpc.data.batches import TrainingData
from affect_hpc.data.codec import encode_npy, encode_png
from affect_hpc.data.images import ImageSet, LatentSet, unit_range
from affect_hpc.data.shards import ShardSet, ShardWriter

COUNT, BATCH, TOTAL = 30, 12, 96
"""Samples, global batch, samples seen: three epochs and a fifth."""


def face(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards of ten faces and latents."""
    for shard in range(3):
        with ShardWriter(tmp_path / "shards", f"shard-{shard:05d}") as writer:
            for number in range(10 * shard, 10 * shard + 10):
                latent = np.full((2, 1, 1), number, np.float16)
                members = {"png": encode_png(face(number)), "npy": encode_npy(latent), "flip.npy": encode_npy(-latent)}
                writer.write(f"face-{number:03d}", members, {"label": number % 8, "identity": "x"})
    return tmp_path / "shards"


def config(workers: int = 0, budget: int = 0) -> TrainConfig:
    shuffle = ShuffleConfig(block=4, window=2)
    return TrainConfig(BATCH, TOTAL, 0.1, shuffle=shuffle, workers=workers, damaged_budget=budget)


def data(folder: Path, keep: Path, workers: int = 0, rank: int = 0, world: int = 1, budget: int = 0) -> TrainingData:
    images = ImageSet.open([folder])
    return TrainingData(images, images.shards.labels, config(workers, budget), rank, world, keep)


def pixels(batch: Mapping[str, Any]) -> list[bytes]:
    return [image.numpy().tobytes() for image in batch["image"]]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(("nodes", "ranks"), [(1, 1), (1, 2), (2, 1), (1, 3), (2, 2), (1, 4), (4, 1), (3, 2), (3, 4)])
def test_global_batches_hang_on_samples_seen_alone(
    folder: Path, tmp_path: Path, nodes: int, ranks: int, workers: int
) -> None:
    """Keys and bytes, each key once an epoch, resumed at a random point with another division."""
    whole = [pixels(batch) for batch in data(folder, tmp_path).after(0)]
    assert len(whole) == TOTAL // BATCH
    flat = [content for batch in whole for content in batch]
    for start in range(0, TOTAL - COUNT, COUNT):
        assert sorted(flat[start : start + COUNT]) == sorted(face(number).tobytes() for number in range(COUNT))
    world = nodes * ranks
    resume = BATCH * int(np.random.default_rng(world * 10 + workers).integers(TOTAL // BATCH))
    shares = [list(data(folder, tmp_path, workers, rank, world).after(resume)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1, "all ranks have equally many steps"
    together = [[content for batch in step for content in pixels(batch)] for step in zip(*shares, strict=True)]
    assert together == whole[resume // BATCH :]


def test_labels_go_with_their_faces(folder: Path, tmp_path: Path) -> None:
    number_of = {face(number).tobytes(): number for number in range(COUNT)}
    for batch in data(folder, tmp_path).after(0):
        assert batch["label"].tolist() == [number_of[content] % 8 for content in pixels(batch)]


def test_latents_have_their_mirrored_views_as_samples_of_their_own(folder: Path) -> None:
    latents = LatentSet([folder])
    assert len(latents) == 2 * COUNT and latents.shape == (2, 1, 1)
    values = [float(latents.sample(i)["latent"][0, 0, 0]) for i in range(2 * COUNT)]
    assert values == [*range(COUNT), *(-float(number) for number in range(COUNT))]
    assert [latents.sample(i)["label"] for i in range(2 * COUNT)] == latents.labels.tolist()


def test_pixels_become_values_between_minus_one_and_one() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)
    values = unit_range(levels)
    assert values.shape == (1, 3, 16, 16)
    torch.testing.assert_close(values[0, 1].flatten(), torch.linspace(-1, 1, 256))


def damage(folder: Path, *numbers: int) -> None:
    shards = ShardSet.open([folder])
    for number in numbers:
        tar = folder / f"shard-{number // 10:05d}.tar"
        content = bytearray(tar.read_bytes())
        content[shards[number].members["png"].offset + 20] ^= 1
        tar.write_bytes(content)


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_samples_within_the_budget_are_listed_and_replaced(folder: Path, tmp_path: Path, workers: int) -> None:
    good = [pixels(batch) for batch in data(folder, tmp_path).after(0)]
    damage(folder, 7, 8, 29)
    instead = {face(7).tobytes(): face(9).tobytes(), face(8).tobytes(): face(9).tobytes()}
    instead[face(29).tobytes()] = face(0).tobytes()
    found = [pixels(batch) for batch in data(folder, tmp_path, workers, budget=3).after(0)]
    assert found == [[instead.get(content, content) for content in batch] for batch in good]
    listed = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert sorted((entry["sample"], entry["instead"]) for entry in listed) == [(7, 9), (8, 9), (29, 0)]
    assert "shard-00002.tar: face-029.png is not what was written" in str(listed)


def test_one_more_than_the_budget_stops_with_one_sentence(folder: Path, tmp_path: Path) -> None:
    damage(folder, 3, 4, 5)
    with pytest.raises(UserError, match=r"face-00\d\.png is not what was written.*with it 3 samples are damaged") as e:
        list(data(folder, tmp_path, budget=2).after(0))
    assert "damaged_budget allows 2" in str(e.value) and "quarantine.jsonl" in str(e.value)


def test_nothing_readable_is_told_of(folder: Path, tmp_path: Path) -> None:
    for tar in folder.glob("*.tar"):
        tar.unlink()
    with pytest.raises(UserError, match=r"none of the 30 samples can be read; the first: .*cannot be read"):
        list(data(folder, tmp_path, budget=100).after(0))
