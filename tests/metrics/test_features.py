"""Features in parts: any division and order of them is the same set; what does not fit together is named."""

import random
from pathlib import Path

import numpy as np
import pytest

from affect_hpc.core.errors import UserError
from affect_hpc.metrics.features import FeatureSet

JUDGE = {"name": "net", "digest": "ab" * 32}


def whole(count: int = 40, dim: int = 5) -> FeatureSet:
    draws = np.random.default_rng(0)
    keys = [f"k{i:03d}" for i in range(count)]
    return FeatureSet.of(JUDGE, keys, draws.integers(3, size=count), draws.standard_normal((count, dim), np.float32))


def part_of(samples: FeatureSet, rows: list[int]) -> FeatureSet:
    keys = [samples.keys[i] for i in rows]
    return FeatureSet.of(samples.judge, keys, samples.labels[rows], samples.features[rows])


def same(a: FeatureSet, b: FeatureSet) -> bool:
    bits = a.features.tobytes() == b.features.tobytes() and a.features.shape == b.features.shape
    return bits and (a.keys, dict(a.judge), a.labels.tolist()) == (b.keys, dict(b.judge), b.labels.tolist())


@pytest.mark.parametrize("seed", range(10))
def test_any_division_merges_to_the_same_set(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    samples = whole()
    parts: list[list[int]] = [[] for _ in range(rng.randrange(1, 8))]
    for i in rng.sample(range(len(samples)), len(samples)):
        rng.choice(parts).append(i)
    folders = [tmp_path / str(i) for i in range(len(parts))]
    for folder, rows in zip(folders, parts, strict=True):
        part_of(samples, rows).save(folder, "seen")
    merged = FeatureSet.load(rng.sample(folders, len(folders)), "seen")
    assert same(merged, samples)


def test_files_are_in_the_order_of_keys_whatever_came_first(tmp_path: Path) -> None:
    samples = whole()
    samples.save(tmp_path / "a", "seen")
    part_of(samples, list(reversed(range(len(samples))))).save(tmp_path / "b", "seen")
    for name in ("seen.safetensors", "seen.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_part_without_samples_changes_nothing(tmp_path: Path) -> None:
    whole().save(tmp_path / "a", "seen")
    FeatureSet.of(JUDGE, [], [], np.empty((0, 0), np.float32)).save(tmp_path / "b", "seen")
    assert same(FeatureSet.load([tmp_path / "b", tmp_path / "a"], "seen"), whole())
    assert len(FeatureSet.load([tmp_path / "b"], "seen")) == 0


def test_classes_and_first_of_each() -> None:
    samples = FeatureSet.of(JUDGE, ["d", "c", "b", "a"], [1, 0, 1, 1], np.arange(4, dtype=np.float32)[:, None])
    assert samples.of_label(1).keys == ("a", "b", "d")
    assert samples.of_label(1).features.tolist() == [[3], [2], [0]]
    assert samples.first(2).keys == ("a", "b", "c")
    assert samples.first(2).labels.tolist() == [1, 1, 0]
    with pytest.raises(UserError, match="no sample has label 7: the labels here are 0, 1"):
        samples.of_label(7)


def test_a_key_twice_is_named_with_its_parts(tmp_path: Path) -> None:
    whole(6).save(tmp_path / "a", "seen")
    part_of(whole(6), [2, 4]).save(tmp_path / "b", "seen")
    with pytest.raises(UserError, match=r"2 samples come twice, 'k002' among them \(in .*/a/seen.* and .*/b/seen"):
        FeatureSet.load([tmp_path / "a", tmp_path / "b"], "seen")
    with pytest.raises(UserError, match="1 samples come twice, 'x'"):
        FeatureSet.of(JUDGE, ["x", "x"], [0, 0], np.zeros((2, 1), np.float32))


@pytest.mark.parametrize(("judge", "dim", "said"), [({**JUDGE, "digest": "cd"}, 5, "judge"), (JUDGE, 4, "length")])
def test_parts_that_disagree_are_named(judge: dict[str, str], dim: int, said: str, tmp_path: Path) -> None:
    whole(6).save(tmp_path / "a", "seen")
    FeatureSet.of(judge, ["z"], [0], np.zeros((1, dim), np.float32)).save(tmp_path / "b", "seen")
    with pytest.raises(UserError, match=rf"/b/seen.* have {said}.*/a/seen"):
        FeatureSet.load([tmp_path / "a", tmp_path / "b"], "seen")


def test_missing_and_damaged_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no features 'seen'"):
        FeatureSet.load([tmp_path / "a"], "seen")
    with pytest.raises(UserError, match="no parts"):
        FeatureSet.load([], "seen")
    whole().save(tmp_path, "seen")
    for file, cut in (("seen.safetensors", 100), ("seen.jsonl", 14)):
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(content[:-cut])
        with pytest.raises(UserError, match=r"seen.safetensors are damaged"):
            FeatureSet.load([tmp_path], "seen")
        (tmp_path / file).write_bytes(content)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_no_number_is_refused(value: float) -> None:
    features = np.zeros((3, 2), np.float32)
    features[1] = value, -value
    with pytest.raises(ValueError, match="features of b are not finite"):
        FeatureSet.of(JUDGE, ["a", "b", "c"], [0, 0, 0], features)


def test_shapes_and_order_are_checked() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        FeatureSet.of(JUDGE, ["a"], [0], np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="do not ascend"):
        FeatureSet(JUDGE, ("b", "a"), np.zeros(2, np.int64), np.zeros((2, 1), np.float32))
