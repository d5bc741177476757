"""From the order of samples to the batches of one training, damaged samples listed and passed over within a budget."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from affect_hpc.config.train import TrainConfig
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import append_line
from affect_hpc.data.codec import encode_json
from affect_hpc.data.loader import Batch, Damage, Reader, Samples
from affect_hpc.data.permutation import Int64
from affect_hpc.data.stream import Stream, training_order


class Quarantine:
    """Damaged samples met so far by this rank, each listed once.

    Args:
        path: file with a line of JSON for each.
        budget: how many are passed over.
    """

    def __init__(self, path: Path, budget: int) -> None:
        self.path, self.budget = path, budget
        self.met: set[int] = set()

    def take(self, damages: list[Damage]) -> None:
        """List new ones; UserError where they are more than the budget."""
        for damage in damages:
            if damage.sample in self.met:
                continue
            self.met.add(damage.sample)
            append_line(self.path, encode_json(damage._asdict()).decode())
            if len(self.met) > self.budget:
                raise UserError(
                    f"{damage.reason}; with it {len(self.met)} samples are damaged, damaged_budget allows"
                    f" {self.budget} (all are listed in {self.path}): prepare these shards anew, or raise"
                    " train.damaged_budget."
                )


class TrainingData:
    """The batches of one training on this rank.

    Args:
        samples: what is trained on.
        labels: (N,) class of each sample.
        config: batch, length, seed, shuffle, workers, damaged_budget.
        rank, world: this process and how many there are.
        keep: folder of ``quarantine.jsonl``.
    """

    def __init__(self, samples: Samples, labels: Int64, config: TrainConfig, rank: int, world: int, keep: Path) -> None:
        self.config = config
        self.stream = Stream(training_order(labels, config.shuffle, config.seed), config.global_batch_size, rank, world)
        self._reader = Reader(samples)
        name = "quarantine.jsonl" if world == 1 else f"quarantine_{rank:04d}.jsonl"
        self._quarantine = Quarantine(keep / name, config.damaged_budget)

    def after(self, samples_seen: int) -> Iterator[Batch]:
        """This rank's share of each global batch that follows; the same ones for any number of workers."""
        steps = range(samples_seen, self.config.samples_total, self.config.global_batch_size)
        places = (self.stream.indices(seen) for seen in steps)
        share, workers = self.config.global_batch_size // self.stream.world, self.config.workers
        found = self._reader.ahead(places, len(steps), share, workers) if workers else map(self._reader.read, places)
        for batch, damages in found:
            self._quarantine.take(damages)
            yield batch

    def fetch(self, indices: Iterable[int]) -> Batch:
        """These samples as one batch."""
        batch, damages = self._reader.read(np.fromiter(indices, np.int64))
        self._quarantine.take(damages)
        return batch
