"""What a training says of itself: figures for TensorBoard and ``metrics.jsonl``, rates, waiting, memory."""

import json
import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from affect_hpc.config.train import TrainConfig
from affect_hpc.core.io import append_line
from affect_hpc.train.comm import Ranks

T = TypeVar("T")


class Meter:
    """Figures of one training; only the chief writes.

    Args:
        keep: folder of ``tensorboard/`` and ``metrics.jsonl``.
        samples_seen: where the training begins.
        flops_per_sample: of a training step; 0 = unknown.
    """

    def __init__(
        self, keep: Path, config: TrainConfig, ranks: Ranks, samples_seen: int, flops_per_sample: float = 0.0
    ) -> None:
        self.keep, self.config, self.ranks, self.flops_per_sample = keep, config, ranks, flops_per_sample
        self._writer = SummaryWriter(str(keep / "tensorboard"), purge_step=samples_seen) if ranks.is_chief else None
        self._began, self._logged, self._waited = time.monotonic(), samples_seen, 0.0

    def waiting_for(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; what the training waits for them is counted."""
        iterator = iter(batches)
        while True:
            began = time.monotonic()
            batch = next(iterator, None)
            self._waited += time.monotonic() - began
            if batch is None:
                return
            yield batch

    def log(self, figures: Mapping[str, float], samples_seen: int) -> None:
        """Write figures of a step, and rates since the last time."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = (samples_seen - self._logged) / seconds
        rates = {
            "samples_per_s": rate,
            "data_wait_share": min(self._waited / seconds, 1.0),
            "memory_gb": memory_gb(),
        }
        if self.flops_per_sample:
            rates["tflops_a_rank"] = rate * self.flops_per_sample / self.ranks.world / 1e12
            if self.config.peak_tflops:
                rates["flop_utilisation"] = rates["tflops_a_rank"] / self.config.peak_tflops
        self._began, self._logged, self._waited = time.monotonic(), samples_seen, 0.0
        self.write({**figures, **rates}, samples_seen)

    def write(self, figures: Mapping[str, float], samples_seen: int) -> None:
        """Write figures."""
        if self._writer is None:
            return
        for name, value in figures.items():
            self._writer.add_scalar(name, value, samples_seen)
        append_line(self.keep / "metrics.jsonl", json.dumps({"samples_seen": samples_seen, **figures}))

    def show(self, pictures: Mapping[str, Tensor], samples_seen: int) -> None:
        """Write image grids (3, H, W) in [0, 1]."""
        if self._writer is not None:
            for name, picture in pictures.items():
                self._writer.add_image(name, picture, samples_seen)

    def close(self) -> None:
        """Flush what is open."""
        if self._writer is not None:
            self._writer.close()


def memory_gb() -> float:
    """Most memory that this rank has held so far: of its GPU, or of the process where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
