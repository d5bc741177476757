"""The training loop. Everything in it is a function of samples seen: a resumed run is the same run."""

import logging
import math
import random
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from affect_hpc.config.train import TrainConfig
from affect_hpc.core import story
from affect_hpc.core.progress import Progress
from affect_hpc.core.rundir import PartDir, this_host
from affect_hpc.core.stop import STOP
from affect_hpc.train.checkpoint import Saver
from affect_hpc.train.comm import Ranks, highest_of_ranks, mean_over_ranks, objects_of_ranks
from affect_hpc.train.ema import Ema
from affect_hpc.train.engine import Engine
from affect_hpc.train.meter import Meter
from affect_hpc.train.optim import lr_factor
from affect_hpc.train.statefile import State
from affect_hpc.train.watchdog import Watchdog, report_to

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

    def flops_per_sample(self) -> float:
        """Arithmetic of a step for one sample (2 for a multiply-add); 0 where nobody counted it."""
        ...

    def averages(self) -> Mapping[str, Ema]:
        """Averages of weights, by name; the same on all ranks."""
        ...

    def state(self) -> dict[str, Any]:
        """What this rank needs besides, to go on (counters); small."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        ...

    def measures(self, step: int) -> Mapping[str, float]:
        """Slow figures (validation loss, use of the codebook) after this many steps; mostly none.

        Called by all ranks.
        """
        ...

    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """Image grids (3, H, W) in [0, 1] for TensorBoard at this step; mostly none."""
        ...


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed all generators of this process; ranks draw different numbers."""
    random.seed(seed + rank)
    np.random.seed(seed + rank)
    torch.manual_seed(seed * 1000 + rank)


def fit(
    label: str, task: Task, data: Data, config: TrainConfig, ranks: Ranks, keep: Path, element: Path | None = None
) -> bool:
    """Train until ``samples_total``; returns False when it was asked to stop before that, with its state saved.

    Resumes from the last good checkpoint below ``keep``: bit for bit the same as a run that was never stopped on the
    same number of ranks, and on the same samples in the same order on another.

    Args:
        label: what is trained, for progress and logs.
        keep: folder for checkpoints, TensorBoard events and ``metrics.jsonl``.
        element: folder of the element of work that this training is, or is a part of; above ``keep`` where not given.

    Raises:
        FloatingPointError: a loss is not finite; names the steps and the last good checkpoint.
        UserError: a checkpoint could not be written.
    """
    element = element or keep.parent
    saver = Saver(keep / "checkpoints", ranks, config.keep_checkpoints, config.save_in_background)
    seed_everything(config.seed, ranks.rank)
    seen = _resume(task, saver, ranks)
    if ranks.is_chief:
        story.begin(label, keep, element, seen, this_host())
    batch = config.global_batch_size
    meter = Meter(keep, config, ranks, seen, task.flops_per_sample())
    checked = seen // batch
    watchdog = Watchdog(ranks.rank, ranks.world, config.stall_s, report_to(PartDir(element)))
    with STOP.at_boundaries(), watchdog, Progress(label, config.samples_total, "sample", start=seen) as progress:
        for share in meter.waiting_for(data.after(seen)):
            step = seen // batch
            lr = config.lr * lr_factor(config.lr_schedule, seen / config.samples_total)
            last = seen + batch >= config.samples_total
            log_now = last or (step + 1) % config.log_every == 0
            for engine in task.engines().values():
                engine.measure = log_now
            figures = task.step(share, step, lr)
            seen += batch
            stop = _agreed_to_stop()
            save = stop or last or (step + 1) % config.save_every == 0
            values: dict[str, float] = {}
            if save or log_now:
                # Before every save too: a checkpoint must never hold weights that a bad loss has spoilt.
                values = {name: float(mean_over_ranks(value)) for name, value in figures.items()}
                _require_finite(values, checked, step, saver)
                checked = step + 1
            watchdog.step_done()
            progress.advance(batch, **values)
            with watchdog.during("what is measured after step"):
                measures = task.measures(step + 1)
                if log_now:
                    norms = {f"grad_norm_{name}": engine.grad_norm for name, engine in task.engines().items()}
                    meter.log({**values, **norms, "lr": lr, **measures}, seen)
                elif measures:
                    meter.write(measures, seen)
                if ranks.is_chief:
                    meter.show(task.pictures(step + 1), seen)
            if save:
                with watchdog.during("the save after step"):
                    saver.save(seen, _states(task, ranks))
                    if stop or last:
                        saver.wait()
            if stop and not last:
                log.warning("%s stops after %d samples as it was asked to; the state is saved", label, seen)
                meter.close()
                return False
    meter.close()
    return True


def _agreed_to_stop() -> bool:
    """Whether any rank was told to stop; all then take it that they were told the same.

    A signal may reach one rank only. The wish to be started again (SIGUSR2) outweighs the wish to end: a job that is
    preempted gets both.
    """
    wish = 0 if STOP.received is None else 2 if STOP.received is signal.SIGUSR2 else 1
    wish = highest_of_ranks(wish)
    if wish:
        STOP.received = signal.SIGUSR2 if wish == 2 else signal.SIGTERM
    return wish > 0


def _states(task: Task, ranks: Ranks) -> dict[str, State]:
    """Everything a resumed run needs, gathered from all ranks: file name -> state."""
    random_states: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        random_states["cuda"] = torch.cuda.get_rng_state()
    of_ranks = objects_of_ranks({"random": random_states, "task": task.state()})
    states: dict[str, State] = {name: engine.state() for name, engine in task.engines().items()}
    averages = {name: average.state() for name, average in task.averages().items()}
    return {
        **states,
        "averages": averages,
        "ranks": {f"{rank:04d}": state for rank, state in enumerate(of_ranks)},
    }


def _resume(task: Task, saver: Saver, ranks: Ranks) -> int:
    found = saver.latest()
    if found is None:
        return 0
    folder, seen = found
    states = saver.read(folder)
    for name, engine in task.engines().items():
        engine.load_state(states[name])
    for name, average in task.averages().items():
        average.load(states["averages"][name])
    # With more ranks than before, the new ones take rank 0's counters and keep their fresh random stream.
    of_ranks = states["ranks"]
    mine = of_ranks.get(f"{ranks.rank:04d}")
    task.load_state((mine or of_ranks["0000"]).get("task", {}))
    if mine:
        torch.set_rng_state(mine["random"]["torch"])
        if "cuda" in mine["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(mine["random"]["cuda"])
    if ranks.world != len(of_ranks):
        log.warning(
            "%s was saved by %d ranks, this run has %d: equal but for rounding", folder, len(of_ranks), ranks.world
        )
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
