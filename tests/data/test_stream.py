"""The order of training samples: one function of the samples seen, cut among the ranks."""

import numpy as np
import pytest

from affect_hpc.data.stream import TrainStream


def walk(stream: TrainStream, steps: int, start: int = 0) -> list[int]:
    seen = [stream.indices(start + step * stream.global_batch) for step in range(steps)]
    return [int(index) for batch in seen for index in batch]


@pytest.mark.parametrize(("count", "batch"), [(12, 4), (10, 4), (7, 5), (3, 8), (1, 4)])
def test_every_sample_once_an_epoch(count: int, batch: int) -> None:
    epochs = 5
    order = walk(TrainStream(count, batch, seed=3), -(-epochs * count // batch))
    for epoch in range(epochs):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("count", [5, 30, 64])
def test_slices_of_the_ranks_are_the_global_batch(world: int, count: int) -> None:
    whole = TrainStream(count, 8, seed=1)
    ranks = [TrainStream(count, 8, seed=1, rank=rank, world=world) for rank in range(world)]
    for seen in range(0, 200, 8):
        np.testing.assert_array_equal(np.concatenate([rank.indices(seen) for rank in ranks]), whole.indices(seen))


def test_a_resumed_stream_is_the_same_stream() -> None:
    order = walk(TrainStream(30, 8, seed=1), 40)
    for step in (0, 1, 3, 4, 17, 39):
        assert walk(TrainStream(30, 8, seed=1), 40 - step, start=8 * step) == order[8 * step :]
    stream = TrainStream(30, 8, seed=1)
    backwards = [stream.indices(8 * step).tolist() for step in reversed(range(40))][::-1]
    assert [index for batch in backwards for index in batch] == order, "any point, in any order"


def test_the_size_of_the_batch_does_not_change_the_order() -> None:
    assert walk(TrainStream(30, 8, seed=1), 30) == walk(TrainStream(30, 12, seed=1), 20)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first = walk(TrainStream(50, 10, seed=0), 10)
    assert first[:50] != first[50:]
    assert first[:50] != list(range(50))
    assert walk(TrainStream(50, 10, seed=1), 10) != first
    # Seed and epoch must not add up: epoch 1 of seed 0 is not epoch 0 of seed 1.
    assert first[50:] != walk(TrainStream(50, 10, seed=1), 5)


def test_orders_are_close_to_uniform() -> None:
    """Each sample stands first equally often: 4000 epochs over 8 samples, 5 standard deviations of a binomial."""
    stream = TrainStream(8, 8, seed=9)
    first = [int(stream.indices(8 * epoch)[0]) for epoch in range(4000)]
    expected, deviation = 500, (4000 * (1 / 8) * (7 / 8)) ** 0.5
    assert np.abs(np.bincount(first, minlength=8) - expected).max() < 5 * deviation


def test_the_order_is_kept_over_versions() -> None:
    # Written down once: another order would break the resumption of trainings in progress.
    assert walk(TrainStream(6, 6, seed=0), 2) == [4, 0, 3, 5, 2, 1, 4, 1, 5, 3, 2, 0]


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="global_batch_size=10 is not divisible by 4 ranks"):
        TrainStream(5, 10, 0, world=4)
    with pytest.raises(ValueError, match="no samples"):
        TrainStream(0, 10, 0)
