"""Batches of samples, read in this process or ahead by workers, which write them into memory that all share.

Handing a batch over costs one copy: the shared memory is made once, where torch's own way makes, maps and clears new
memory for each batch, which took as long as decoding it.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from affect_hpc.core.errors import UserError
from affect_hpc.data.codec import DamagedMemberError
from affect_hpc.data.permutation import Int64

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


class Reader:
    """Reads samples, the next good one in place of a damaged one."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def row(self, index: int) -> tuple[Mapping[str, Any], list[Damage]]:
        """Sample ``index`` or the one in its place, and what was passed over; UserError where none can be read."""
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

    def room(self, size: int) -> dict[str, Tensor]:
        """Memory for a batch of ``size`` samples."""
        return {name: torch.from_numpy(np.empty((size, *row.shape), row.dtype)) for name, row in self._pattern.items()}

    @cached_property
    def _pattern(self) -> Mapping[str, npt.NDArray[Any]]:
        """Some sample: all others have its names, shapes and types."""
        row, _ = self.row(0)
        return {name: np.asarray(value) for name, value in row.items()}

    def fill(self, indices: Iterable[int], room: Batch) -> list[Damage]:
        """Read these samples into the rows of ``room``; returns what was passed over."""
        targets: dict[str, npt.NDArray[Any]] = {name: tensor.numpy() for name, tensor in room.items()}
        damages: list[Damage] = []
        for place, index in enumerate(indices):
            row, found = self.row(int(index))
            for name, target in targets.items():
                target[place] = row[name]
            damages += found
        return damages

    def read(self, indices: Int64) -> tuple[Batch, list[Damage]]:
        """These samples as a batch, and what was passed over."""
        room = self.room(len(indices))
        return room, self.fill(indices, room)

    def ahead(
        self, places: Iterable[Int64], count: int, size: int, workers: int
    ) -> Iterator[tuple[Batch, list[Damage]]]:
        """``count`` batches of ``size`` samples, in the order of ``places``, read ahead by ``workers`` processes."""
        # A batch is asked for when the one before the last of its round was copied: one room more is enough.
        rooms = [self.room(size) for _ in range(workers * PREFETCH + 1)]
        for tensor in (tensor for room in rooms for tensor in room.values()):
            tensor.share_memory_()  # type: ignore[no-untyped-call]
        tasks = ((number % len(rooms), indices) for number, indices in enumerate(places))
        loader = DataLoader(
            _Filler(self, rooms),
            batch_size=None,
            sampler=_Once(tasks, count),
            num_workers=workers,
            prefetch_factor=PREFETCH,
        )
        pinned = torch.cuda.is_available()
        for number, damages in loader:
            batch = {name: torch.empty_like(tensor, pin_memory=pinned) for name, tensor in rooms[number].items()}
            for name, tensor in rooms[number].items():
                # By NumPy: torch would wake its threads, whose waiting takes the processors from the workers.
                batch[name].numpy()[...] = tensor.numpy()
            yield batch, damages


class _Filler(Dataset[tuple[int, list[Damage]]]):
    """What lives in the worker processes: fills the room it is told and says which."""

    def __init__(self, reader: Reader, rooms: list[dict[str, Tensor]]) -> None:
        self.reader, self.rooms = reader, rooms

    def __getitem__(self, task: Any) -> tuple[int, list[Damage]]:
        number, indices = task
        return number, self.reader.fill(indices, self.rooms[number])


class _Once:
    """Tasks, handed to the workers in turn; the loader returns their results in the same order."""

    def __init__(self, tasks: Iterator[Any], count: int) -> None:
        self.tasks, self.count = tasks, count

    def __iter__(self) -> Iterator[Any]:
        return self.tasks

    def __len__(self) -> int:
        return self.count
