"""The order of training samples: a function of (seed, samples seen), the same for any number of nodes, ranks, workers.

Nothing is kept between steps but the number of samples seen. Any place of any epoch is found in constant time, so a
run resumes where it stopped, with another number of ranks or workers if need be, and sees the same global batches.
"""

from typing import Protocol

import numpy as np

from affect_hpc.config.train import ShuffleConfig
from affect_hpc.data.permutation import Int64, Permutation


class Order(Protocol):
    """An endless sequence of sample indices."""

    def indices(self, positions: Int64) -> Int64:
        """The samples at these positions (N,), counted over all epochs."""
        ...


class Shuffled:
    """Every sample once an epoch, in an order that differs from epoch to epoch.

    Two levels, so that reads stay near each other: blocks of ``shuffle.block`` neighbouring samples are permuted, then
    the samples of ``shuffle.window`` blocks on end are permuted among themselves. At any time a reader is therefore
    busy within one window, whose blocks it reads wholly.

    Args:
        count: samples of the corpus.
        shuffle: block and window.
        key: chooses the order.
    """

    def __init__(self, count: int, shuffle: ShuffleConfig, key: str) -> None:
        if count < 1:
            raise ValueError("the stream has no samples")
        self.count, self.block, self.window, self.key = count, shuffle.block, shuffle.window, key
        self._epochs: dict[int, _Epoch] = {}

    def indices(self, positions: Int64) -> Int64:
        """The samples at these positions (N,), counted over all epochs."""
        found = np.empty(len(positions), np.int64)
        epochs, places = np.divmod(positions, self.count)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            found[here] = self._epoch(int(epoch)).indices(places[here])
        return found

    def _epoch(self, number: int) -> "_Epoch":
        if number not in self._epochs:
            # A batch touches two epochs at the most, unless an epoch is shorter than a batch.
            self._epochs = {n: order for n, order in self._epochs.items() if n == number - 1}
            self._epochs[number] = _Epoch(self.count, self.block, self.window, f"{self.key}/{number}")
        return self._epochs[number]


class _Epoch:
    """One epoch of Shuffled. The last block may be short; its rank decides where all later ones begin."""

    def __init__(self, count: int, block: int, window: int, key: str) -> None:
        self.block, self.window, self.key = block, window, key
        self.blocks = Permutation(-(-count // block), f"{key}/blocks".encode())
        self.count, self.deficit = count, -count % block
        short = self.blocks.inverse(np.array([self.blocks.count - 1]))
        self.short_end = int(short[0]) * block + block - self.deficit
        """Place at which the short block ends; places after it lack ``deficit`` samples."""
        self._windows: dict[int, Permutation] = {}

    def indices(self, places: Int64) -> Int64:
        found = np.empty(len(places), np.int64)
        windows = self._padded(places) // (self.block * self.window)
        for number in np.unique(windows):
            here = windows == number
            found[here] = self._in_window(int(number), places[here])
        return found

    def _in_window(self, number: int, places: Int64) -> Int64:
        span = self.block * self.window
        first, end = self._place(number * span), min(self._place((number + 1) * span), self.count)
        if number not in self._windows:
            if len(self._windows) > 1:
                self._windows.clear()
            self._windows[number] = Permutation(end - first, f"{self.key}/{number}".encode())
        rank, inside = np.divmod(self._padded(first + self._windows[number](places - first)), self.block)
        return self.blocks(rank) * self.block + inside

    def _padded(self, places: Int64) -> Int64:
        """Places as they would be were all blocks full."""
        return places + self.deficit * (places >= self.short_end)

    def _place(self, padded: int) -> int:
        """The reverse of ``_padded`` for the beginning of a block."""
        return padded - self.deficit * (padded > self.short_end)


class Balanced:
    """Every class equally often: any C positions that start at a multiple of C hold each of the C classes once.

    Each class runs through its own samples as ``Shuffled`` does: each of them once before any twice.

    Args:
        labels: (count,) class of each sample; negative for none: such samples are not used.
        shuffle: block and window, within a class.
        key: chooses the order.
    """

    def __init__(self, labels: Int64, shuffle: ShuffleConfig, key: str) -> None:
        classes = np.unique(labels[labels >= 0])
        if not len(classes):
            raise ValueError("the stream has no samples with a label")
        self._members = [np.flatnonzero(labels == one) for one in classes]
        self._orders = [
            Shuffled(len(members), shuffle, f"{key}/class {one}")
            for one, members in zip(classes, self._members, strict=True)
        ]
        self.key = key

    def indices(self, positions: Int64) -> Int64:
        """The samples at these positions (N,), counted over all epochs."""
        rounds, turns = np.divmod(positions, len(self._orders))
        found = np.empty(len(positions), np.int64)
        for number in np.unique(rounds):
            here = rounds == number
            # Which class has which turn changes from round to round.
            chosen = Permutation(len(self._orders), f"{self.key}/round {number}".encode())(turns[here])
            found[here] = [self._members[one][self._orders[one].indices(number[None])[0]] for one in chosen]
        return found


class Stream:
    """The global batches of a training, and this rank's share of each.

    Args:
        order: all samples.
        global_batch: samples of one step over all ranks; divisible by ``world``.
        rank, world: this process and how many there are; each takes a fixed contiguous slice of every global batch, so
            all have equally many steps.
    """

    def __init__(self, order: Order, global_batch: int, rank: int = 0, world: int = 1) -> None:
        if global_batch % world:
            raise ValueError(f"global_batch_size={global_batch} is not divisible by {world} ranks")
        self.order, self.global_batch, self.rank, self.world = order, global_batch, rank, world

    def indices(self, samples_seen: int) -> Int64:
        """This rank's slice of the global batch that starts after ``samples_seen`` samples."""
        share = self.global_batch // self.world
        start = samples_seen + self.rank * share
        return self.order.indices(np.arange(start, start + share, dtype=np.int64))


def training_order(labels: Int64, shuffle: ShuffleConfig, seed: int) -> Order:
    """The order in which a training sees its samples.

    Args:
        labels: (count,) class of each sample.
        shuffle: how it is shuffled, and whether classes are balanced.
        seed: of the training.
    """
    if shuffle.balanced:
        return Balanced(labels, shuffle, f"balanced {seed}")
    return Shuffled(len(labels), shuffle, f"shuffled {seed}")
