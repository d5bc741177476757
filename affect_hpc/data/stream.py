"""The order of training samples: a function of (seed, samples seen), the same for any number of ranks."""

import numpy as np
import numpy.typing as npt


class TrainStream:
    """Endless keyed permutations, one per epoch; the whole state is the number of samples seen.

    Args:
        count: samples of the corpus.
        global_batch: samples of one step over all ranks; divisible by ``world``.
        seed: key of the order.
        rank, world: this process and how many there are; each takes a fixed contiguous slice of every global batch.
    """

    def __init__(self, count: int, global_batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if global_batch % world:
            raise ValueError(f"global_batch_size={global_batch} is not divisible by {world} ranks")
        if count < 1:
            raise ValueError("the stream has no samples")
        self.count, self.global_batch, self.seed = count, global_batch, seed
        self.rank, self.world = rank, world
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def _sample(self, position: int) -> int:
        epoch = position // self.count
        if epoch != self._epoch:
            key = np.random.SeedSequence([self.seed, epoch])
            self._order = np.random.Generator(np.random.Philox(key)).permutation(self.count)
            self._epoch = epoch
        return int(self._order[position % self.count])

    def indices(self, samples_seen: int) -> npt.NDArray[np.int64]:
        """This rank's slice of the global batch that starts after ``samples_seen`` samples."""
        share = self.global_batch // self.world
        start = samples_seen + self.rank * share
        return np.array([self._sample(position) for position in range(start, start + share)])
