"""Corpus to shards: the same bytes however the work is divided, and a manifest that counts what was left out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affect_hpc.config.corpora import DemoDataConfig, FolderDataConfig, LabelFrom
from affect_hpc.config.stages import PrepareShardsConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, sha256_file
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.codec import decode_png
from affect_hpc.data.corpora.source import Face, Findings, ShardPlan
from affect_hpc.data.shards import ShardSet
from affect_hpc.stages import prepare_shards

WORDS = "a.jpg cannot be read: mend it."
DEMO = DemoDataConfig("demo", 64, 10, train_samples=24, val_samples=12)


def prepared(folder: Path, config: DemoDataConfig | FolderDataConfig, part: int = 0, parts: int = 1) -> Outcome:
    place = Workplace(folder, folder.with_name(f"{folder.name}-keep"), part, parts)
    return prepare_shards.run(PrepareShardsConfig(data=config), Inputs({}), place)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    outcome = prepared(folder, DEMO)
    assert outcome.summary == {"samples": 36, "left_out": 0} and not outcome.stopped
    return folder


def files(folder: Path) -> dict[str, str]:
    found = [path for path in folder.rglob("shard-*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in found}


def test_the_same_bytes_for_any_number_of_parts(whole: Path, tmp_path: Path) -> None:
    merged: dict[str, str] = {}
    for part in range(3):
        folder = tmp_path / f"{part}"
        prepared(folder, DEMO, part, 3)
        assert not merged.keys() & files(folder).keys(), "parts share no shard"
        merged |= files(folder)
    assert merged == files(whole)
    assert len(merged) == 10, "five tars and their indices"


def test_shards_of_the_parts_open_as_one_set(whole: Path, tmp_path: Path) -> None:
    folders = [tmp_path / f"{part}" for part in range(3)]
    for part, folder in enumerate(folders):
        prepared(folder, DEMO, part, 3)
    one, many = ShardSet.open([whole / "train"]), ShardSet.open([folder / "train" for folder in folders])
    assert [sample.key for sample in one] == [sample.key for sample in many]


def test_shards_hold_what_the_corpus_draws(whole: Path) -> None:
    val = ShardSet.open([whole / "val"])
    assert len(val) == 12 and len(ShardSet.open([whole / "train"])) == 24
    for i, sample in enumerate(val):
        own = decode_png(val.read(i, "png"))
        np.testing.assert_array_equal(decode_png(val.read(i, f"truth_{EMOTIONS[sample.label]}.png")), own)


def test_the_manifest_counts(whole: Path) -> None:
    manifest = read_json(whole / "manifest.json")
    assert manifest["shards"] == [f"train/shard-0000{i}" for i in range(3)] + [f"val/shard-0000{i}" for i in range(2)]
    assert sum(manifest["counts"].values()) == 36
    assert {name: count for name, count in manifest["counts"].items() if name.startswith("train")} == {
        f"train/{emotion}": 3 for emotion in EMOTIONS
    }
    assert manifest["labels"] == "given by the corpus" and manifest["findings"] == {}
    assert (whole / "findings.jsonl").read_text() == ""


class FakeSource:
    """Faces whose first pixel says which emotion the fake judge will see; the last file is left out."""

    def __init__(self, count: int, verdict: str = "") -> None:
        self.count, self.words = count, verdict
        self.findings = Findings()

    def shards(self) -> list[ShardPlan]:
        return [ShardPlan(split, "shard-00000", tuple(range(self.count)), self.count) for split in ("train", "val")]

    def samples(self, shard: ShardPlan) -> Iterator[Face]:
        self.findings.leave_out(f"{shard.split}/last.jpg", "no face")
        for number in shard.units:
            image = np.full((64, 64, 3), number % 8, np.uint8)
            yield Face(f"{shard.split}-{number}", image, None, "someone", "file")

    def facts(self) -> dict[str, Any]:
        return {"published": 41}

    def verdict(self) -> None:
        if self.words:
            raise UserError(self.words)


class FakeJudge:
    """Classes in another order than the project's; remembers how many faces it saw at once."""

    name = "fake"
    classes = tuple(reversed(EMOTIONS))

    def __init__(self) -> None:
        self.batches: list[int] = []

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        levels = ((images[:, 0, 0, 0] + 1) * 127.5).round().long()
        return torch.nn.functional.one_hot(7 - levels, 8).float()


def pseudo() -> FolderDataConfig:
    config = FolderDataConfig("folder", 64, root="/photos", labeller="fake", frame_stride=1, max_frames=0)
    config.label = LabelFrom.pseudo
    return config


def test_the_labeller_fills_in_what_the_corpus_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = FakeJudge()
    monkeypatch.setitem(prepare_shards.SOURCES, FolderDataConfig, lambda config: FakeSource(20))
    monkeypatch.setattr(prepare_shards, "load_emotion", lambda *words: judge)
    assert prepared(tmp_path / "out", pseudo()).summary == {"samples": 40, "left_out": 2}
    train = ShardSet.open([tmp_path / "out" / "train"])
    assert [sample.label for sample in train] == [number % 8 for number in range(20)]
    assert judge.batches == [16, 4, 16, 4], "a shard's faces make the same batches whatever stands beside it"
    manifest = read_json(tmp_path / "out" / "manifest.json")
    assert manifest["labels"] == "fake"
    assert manifest["findings"] == {"no face": 2} and manifest["facts"] == {"published": 41}
    listed = [json.loads(line) for line in (tmp_path / "out" / "findings.jsonl").read_text().splitlines()]
    assert listed == [{"source": f"{split}/last.jpg", "reason": "no face", "used": "no"} for split in ("train", "val")]


def test_the_verdict_of_the_corpus_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(prepare_shards.SOURCES, FolderDataConfig, lambda config: FakeSource(3, WORDS))
    monkeypatch.setattr(prepare_shards, "load_emotion", lambda *words: FakeJudge())
    with pytest.raises(UserError, match=r"a\.jpg cannot be read"):
        prepared(tmp_path / "out", pseudo())
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_empty_split_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(prepare_shards.SOURCES, FolderDataConfig, lambda config: FakeSource(0))
    monkeypatch.setattr(prepare_shards, "load_emotion", lambda *words: FakeJudge())
    with pytest.raises(UserError, match="nothing usable is left in the train split"):
        prepared(tmp_path / "out", pseudo())
