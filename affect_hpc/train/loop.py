"""The training loop. Everything in it is a function of samples seen: a resumed run is the same run."""

import json
import logging
import math
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from affect_hpc.config.train import TrainConfig
from affect_hpc.core.io import append_line
from affect_hpc.core.progress import Progress
from affect_hpc.core.stop import STOP
from affect_hpc.train.checkpoint import Saver
from affect_hpc.train.comm import Ranks, any_rank, mean_over_ranks
from affect_hpc.train.engine import Engine
from affect_hpc.train.optim import lr_factor

log = logging.getLogger(__name__)


Batch = Mapping[str, Tensor]
"""Name -> (B, ...)"""


class Data(Protocol):
    """What this rank is trained on."""

    def after(self, samples_seen: int) -> Iterator[Batch]:
        """This rank's share of each global batch from here to the end of the training."""
        ...


class Task(Protocol):
    """What is trained."""

    def engines(self) -> Mapping[str, Engine]:
        """The networks with their optimisers, by name."""
        ...

    def step(self, batch: Batch, step: int, lr: float) -> Mapping[str, Tensor]:
        """One optimiser step on these samples; returns figures (means over this rank's samples)."""
        ...

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides the engines (averages, counters)."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        ...

    def measures(self, step: int) -> Mapping[str, float]:
        """Slow figures (validation loss, use of the codebook) after this many steps; mostly none. Called by all ranks."""
        ...

    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """Image grids (3, H, W) in [0, 1] for TensorBoard at this step; mostly none."""
        ...


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed all generators of this process; ranks draw different numbers."""
    random.seed(seed + rank)
    np.random.seed(seed + rank)
    torch.manual_seed(seed * 1000 + rank)


def fit(label: str, task: Task, data: Data, config: TrainConfig, ranks: Ranks, keep: Path) -> bool:
    """Train until ``samples_total``; returns False when it was asked to stop before that, with its state saved.

    Resumes from the last good checkpoint below ``keep``; bit for bit the same as a run that was never stopped, on the
    same number of ranks.

    Args:
        label: what is trained, for progress and logs.
        keep: folder for checkpoints, TensorBoard events and ``metrics.jsonl``.

    Raises:
        FloatingPointError: a loss is not finite; names the steps and the last good checkpoint.
    """
    saver = Saver(keep / "checkpoints", ranks, config.keep_checkpoints)
    seed_everything(config.seed, ranks.rank)
    seen = _resume(task, saver, ranks)
    batch = config.global_batch_size
    writer = SummaryWriter(str(keep / "tensorboard"), purge_step=seen) if ranks.is_chief else None
    began, logged, checked = time.monotonic(), seen, seen // batch
    with STOP.at_boundaries(), Progress(label, config.samples_total, "sample", start=seen) as progress:
        for share in data.after(seen):
            step = seen // batch
            lr = config.lr * lr_factor(config.lr_schedule, seen / config.samples_total)
            figures = task.step(share, step, lr)
            seen += batch
            last = seen >= config.samples_total
            stop = any_rank(bool(STOP))
            save = stop or last or (step + 1) % config.save_every == 0
            log_now = last or (step + 1) % config.log_every == 0
            values: dict[str, float] = {}
            if save or log_now:
                # Before every save too: a checkpoint must never hold weights that a bad loss has spoilt.
                values = {name: float(mean_over_ranks(value)) for name, value in figures.items()}
                _require_finite(values, checked, step, saver)
                checked = step + 1
            progress.advance(batch, **values)
            if writer is not None and log_now:
                rate = (seen - logged) / max(time.monotonic() - began, 1e-9)
                began, logged = time.monotonic(), seen
                _log(writer, keep, {**values, "lr": lr, "samples_per_s": rate}, seen)
            if writer is not None:
                for name, picture in task.pictures(step + 1).items():
                    writer.add_image(name, picture, seen)
            if save:
                saver.save(seen, lambda folder: _write(folder, task, ranks))
            if stop and not last:
                log.warning("%s stops after %d samples as it was asked to; the state is saved", label, seen)
                return False
    if writer is not None:
        writer.close()
    return True


def _write(folder: Path, task: Task, ranks: Ranks) -> None:
    for name, engine in task.engines().items():
        engine.save(folder / name)
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "task": task.state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    torch.save(state, folder / f"rank_{ranks.rank:04d}.pt")


def _resume(task: Task, saver: Saver, ranks: Ranks) -> int:
    found = saver.latest()
    if found is None:
        return 0
    folder, seen = found
    for name, engine in task.engines().items():
        engine.load(folder / name)
    mine = folder / f"rank_{ranks.rank:04d}.pt"
    # With more ranks than before, the new ones take rank 0's averages and keep their fresh random stream.
    state = torch.load(mine if mine.exists() else folder / "rank_0000.pt", map_location="cpu", weights_only=True)
    task.load_state(state["task"])
    if mine.exists():
        torch.set_rng_state(state["torch"])
        if "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"])
    log.info("resumed from %s", folder)
    return seen


def _require_finite(values: Mapping[str, float], first: int, last: int, saver: Saver) -> None:
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        good = saver.latest()
        raise FloatingPointError(
            f"{', '.join(bad)} became non-finite between steps {first} and {last}; the last good checkpoint is "
            f"{good[0] if good else 'none: training starts anew'}. Lower the learning rate or use fp32."
        )


def _log(writer: SummaryWriter, keep: Path, values: Mapping[str, float], seen: int) -> None:
    for name, value in values.items():
        writer.add_scalar(name, value, seen)
    append_line(keep / "metrics.jsonl", json.dumps({"samples_seen": seen, **values}))
