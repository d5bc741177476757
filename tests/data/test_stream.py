"""The order of training samples: one function of the samples seen, cut among the ranks."""

import numpy as np
import pytest

from affect_hpc.config.train import ShuffleConfig
from affect_hpc.data.stream import Balanced, Order, Shuffled, Stream, training_order

SHUFFLE = ShuffleConfig(block=4, window=3)


def order(count: int, seed: int = 1, shuffle: ShuffleConfig = SHUFFLE) -> Order:
    return training_order(np.zeros(count, np.int64), shuffle, seed)


def walk(stream: Stream, steps: int, start: int = 0) -> list[int]:
    seen = [stream.indices(start + step * stream.global_batch) for step in range(steps)]
    return [int(index) for batch in seen for index in batch]


@pytest.mark.parametrize("shuffle", [ShuffleConfig(1, 1), SHUFFLE, ShuffleConfig(7, 1), ShuffleConfig(16, 256)])
@pytest.mark.parametrize("count", [1, 3, 4, 11, 12, 13, 100, 257])
def test_every_sample_once_an_epoch(count: int, shuffle: ShuffleConfig) -> None:
    found = order(count, shuffle=shuffle).indices(np.arange(5 * count)).reshape(5, count)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(count), (5, 1)))


def test_reads_stay_within_a_window_of_whole_blocks() -> None:
    shuffle = ShuffleConfig(block=8, window=4)
    found = order(1000, shuffle=shuffle).indices(np.arange(1000))
    blocks = found // 8
    for start in range(0, 992 - 32, 32):
        # The short last block may stand anywhere and shifts what follows by less than a block.
        assert len(np.unique(blocks[start : start + 32])) <= 5
    assert len(np.unique(blocks[:32])) >= 4
    assert not np.array_equal(np.sort(found[:32]), found[:32]), "samples of a window are mixed"


@pytest.mark.parametrize("world", [1, 2, 4, 8])
@pytest.mark.parametrize("count", [5, 30, 64])
def test_slices_of_the_ranks_are_the_global_batch(world: int, count: int) -> None:
    whole = Stream(order(count), 8)
    ranks = [Stream(order(count), 8, rank, world) for rank in range(world)]
    for seen in range(0, 200, 8):
        np.testing.assert_array_equal(np.concatenate([rank.indices(seen) for rank in ranks]), whole.indices(seen))


def test_a_resumed_stream_is_the_same_stream() -> None:
    steps = walk(Stream(order(30), 8), 40)
    for step in (0, 1, 3, 4, 17, 39):
        assert walk(Stream(order(30), 8), 40 - step, start=8 * step) == steps[8 * step :]
    stream = Stream(order(30), 8)
    backwards = [stream.indices(8 * step).tolist() for step in reversed(range(40))][::-1]
    assert [index for batch in backwards for index in batch] == steps, "any point, in any order"


def test_the_size_of_the_batch_does_not_change_the_order() -> None:
    assert walk(Stream(order(30), 8), 30) == walk(Stream(order(30), 12), 20)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = order(50, seed=0).indices(np.arange(100)).reshape(2, 50).tolist()
    other = order(50, seed=1).indices(np.arange(50)).tolist()
    assert len({tuple(one) for one in (first, second, other, list(range(50)))}) == 4


def test_the_order_is_kept_over_versions() -> None:
    # Written down once: another order would break the resumption of trainings in progress.
    assert order(6, seed=0).indices(np.arange(12)).tolist() == [5, 3, 0, 2, 4, 1, 1, 5, 0, 3, 4, 2]


LABELS = np.repeat([0, 3, 7], [20, 3, 7])


def test_balanced_classes_take_turns_and_each_runs_through_its_own_samples() -> None:
    balanced = training_order(LABELS, ShuffleConfig(2, 2, balanced=True), seed=5)
    assert isinstance(balanced, Balanced)
    found = balanced.indices(np.arange(180))
    np.testing.assert_array_equal(np.sort(LABELS[found].reshape(60, 3), axis=1), np.tile([0, 3, 7], (60, 1)))
    assert len({tuple(turns) for turns in LABELS[found].reshape(60, 3)}) == 6, "turns change from round to round"
    for label, count in ((0, 20), (3, 3), (7, 7)):
        own = found[LABELS[found] == label]
        for start in range(0, 60 - count + 1, count):
            np.testing.assert_array_equal(np.sort(own[start : start + count]), np.flatnonzero(label == LABELS))
    ranks = [Stream(balanced, 12, rank, 4) for rank in range(4)]
    np.testing.assert_array_equal(np.concatenate([rank.indices(24) for rank in ranks]), found[24:36])


def test_samples_without_a_label_are_no_class() -> None:
    balanced = Balanced(np.array([2, -1, 2, 4]), SHUFFLE, "key")
    assert set(balanced.indices(np.arange(40)).tolist()) == {0, 2, 3}
    with pytest.raises(ValueError, match="no samples with a label"):
        Balanced(np.array([-1, -1]), SHUFFLE, "key")


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="global_batch_size=10 is not divisible by 4 ranks"):
        Stream(order(5), 10, world=4)
    with pytest.raises(ValueError, match="no samples"):
        Shuffled(0, SHUFFLE, "key")
