"""From the order of samples to batches of tensors, read ahead by worker processes, damaged samples passed over."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from affect_hpc.config.train import TrainConfig
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import append_line
from affect_hpc.data.codec import DamagedMemberError, encode_json
from affect_hpc.data.permutation import Int64
from affect_hpc.data.stream import Stream, training_order

PREFETCH = 4
"""Batches that each worker reads ahead."""

Batch = Mapping[str, Tensor]
"""Name -> (B, ...)"""


class Samples(Protocol):
    """A set of samples that can be read at random."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def sample(self, index: int) -> Mapping[str, Any]:
        """One sample: name -> array or number, of equal shapes for all samples.

        Raises:
            DamagedMemberError: it cannot be read.
        """
        ...


class Damage(NamedTuple):
    """A sample that could not be read, and the one that took its place."""

    sample: int
    reason: str
    instead: int


class _Reader(Dataset[tuple[Batch, list[Damage]]]):
    """Reads whole batches; lives in the worker processes."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, indices: Any) -> tuple[Batch, list[Damage]]:
        rows, damages = [], []
        for index in indices:
            row, found = self._read(int(index))
            rows.append(row)
            damages += found
        # Arrays of one shape; worker processes hand tensors over without a copy.
        batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        return batch, damages

    def _read(self, index: int) -> tuple[Mapping[str, Any], list[Damage]]:
        count = len(self.samples)
        reasons: dict[int, str] = {}
        # The next good one takes the place of a damaged one: the same for any number of ranks and workers.
        for candidate in ((index + step) % count for step in range(count)):
            try:
                row = self.samples.sample(candidate)
            except DamagedMemberError as error:
                reasons[candidate] = str(error)
            else:
                return row, [Damage(bad, reason, candidate) for bad, reason in reasons.items()]
        raise UserError(f"none of the {count} samples can be read; the first: {reasons[index]}.")


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
        self._reader = _Reader(samples)
        name = "quarantine.jsonl" if world == 1 else f"quarantine_{rank:04d}.jsonl"
        self._quarantine = Quarantine(keep / name, config.damaged_budget)

    def after(self, samples_seen: int) -> Iterator[Batch]:
        """This rank's share of each global batch that follows; the same ones for any number of workers."""
        steps = range(samples_seen, self.config.samples_total, self.config.global_batch_size)
        places = (self.stream.indices(seen) for seen in steps)
        for batch, damages in self._read(places, len(steps)):
            self._quarantine.take(damages)
            yield batch

    def fetch(self, indices: Iterable[int]) -> Batch:
        """These samples as one batch."""
        batch, damages = self._reader[list(indices)]
        self._quarantine.take(damages)
        return batch

    def _read(self, places: Iterator[Int64], count: int) -> Iterator[tuple[Batch, list[Damage]]]:
        if not self.config.workers:
            return (self._reader[indices] for indices in places)
        loader = DataLoader(
            self._reader,
            batch_size=None,
            sampler=_Once(places, count),
            num_workers=self.config.workers,
            prefetch_factor=PREFETCH,
            pin_memory=torch.cuda.is_available(),
        )
        return iter(loader)


class _Once:
    """Batches of indices, handed to the workers in turn; the loader returns their batches in the same order."""

    def __init__(self, places: Iterator[Any], count: int) -> None:
        self.places, self.count = places, count

    def __iter__(self) -> Iterator[Any]:
        return self.places

    def __len__(self) -> int:
        return self.count
