"""The procedural corpus: who is in which split, and how the emotions are spread."""

import numpy as np
import pytest

from affect_hpc.config.corpora import DemoDataConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.data.corpora.demo.source import VAL_IDENTITY, DemoSource
from affect_hpc.data.corpora.source import Face


def source(train: int = 24, val: int = 12, each: int = 2, per_shard: int = 10, seed: int = 0) -> DemoSource:
    config = DemoDataConfig("demo", 64, per_shard, train_samples=train, val_samples=val, emotions_per_identity=each)
    config.seed = seed
    return DemoSource(config)


def faces(corpus: DemoSource) -> list[Face]:
    return [face for plan in corpus.shards() for face in corpus.samples(plan)]


def test_shards_cut_the_splits_in_order() -> None:
    plans = source().shards()
    assert [(plan.split, plan.name, plan.weight) for plan in plans] == [
        *(("train", "shard-00000", 10), ("train", "shard-00001", 10), ("train", "shard-00002", 4)),
        *(("val", "shard-00000", 10), ("val", "shard-00001", 2)),
    ]
    assert [unit for plan in plans if plan.split == "train" for unit in plan.units] == list(range(24))


def test_splits_share_no_identity_and_no_key() -> None:
    found = faces(source())
    keys = [face.key for face in found]
    assert len(set(keys)) == len(keys) == 36
    train = {face.identity for face in found if face.key.startswith("train-")}
    val = {face.identity for face in found if face.key.startswith("val-")}
    assert len(train) == 12 and len(val) == 12 and not train & val


@pytest.mark.parametrize("each", range(1, 9))
def test_the_largest_train_split_ends_below_the_val_identities(each: int) -> None:
    largest = source(train=1_000_000, each=each)
    largest.config.check()
    assert largest.subject("train", 999_999)[0] < VAL_IDENTITY <= largest.subject("val", 0)[0]
    with pytest.raises(UserError, match="out of range"):
        source(train=1_000_001, each=each).config.check()


@pytest.mark.parametrize("each", range(1, 9))
def test_emotions_come_equally_often(each: int) -> None:
    corpus = source(each=each)
    labels = [corpus.subject("train", index)[1] for index in range(400)]
    for start in range(0, 200, 7):
        assert set(np.bincount(labels[start : start + 8 * each], minlength=8)) == {each}
    val = [corpus.subject("val", index)[1] for index in range(40)]
    assert set(np.bincount(val[3:35], minlength=8)) == {4}


@pytest.mark.parametrize("each", range(1, 9))
def test_an_identity_never_shows_an_emotion_twice(each: int) -> None:
    corpus = source(each=each)
    subjects = [corpus.subject("train", index) for index in range(20 * each)]
    assert len(set(subjects)) == len(subjects)
    assert set(np.bincount([identity for identity, _ in subjects])) == {each}


def test_the_truth_of_a_val_face_is_itself_with_each_emotion() -> None:
    for face in faces(source(val=8)):
        if face.key.startswith("train-"):
            assert not face.truth
            continue
        assert tuple(face.truth) == EMOTIONS and face.label is not None
        np.testing.assert_array_equal(face.truth[EMOTIONS[face.label]], face.image)
        pictures = {picture.tobytes() for picture in face.truth.values()}
        assert len(pictures) == 8


def test_a_sample_is_a_function_of_its_index_alone() -> None:
    few, many = faces(source(train=8, val=8)), faces(source(train=16, val=16, per_shard=3))
    found = {face.key: face for face in many}
    for face in few:
        other = found[face.key]
        assert (face.label, face.identity, face.source) == (other.label, other.identity, other.source)
        np.testing.assert_array_equal(face.image, other.image)
    reseeded = faces(source(train=8, val=8, seed=1))
    assert not any(np.array_equal(a.image, b.image) for a, b in zip(few, reseeded, strict=True))
