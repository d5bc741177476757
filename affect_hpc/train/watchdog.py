"""Ends a training that stands still, in seconds, and says which rank stood where.

Libraries of distributed work wait for half an hour before they give up a rank that does not come. A thread of each
rank therefore watches how long the present step takes beside the ones before it.
"""

import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from affect_hpc.core.rundir import HANG, PartDir

log = logging.getLogger(__name__)

FACTOR = 20
"""A step may take this many times the longest one so far."""
FIRST_STEP_S = 900.0
"""What the first steps may take: kernels are compiled, caches filled."""
FIRST_STEPS = 2
PATIENCE_S = 3.0
"""How long a rank that only waits for others lets the one that is waited for speak first."""
EXIT_HANGS = 70
WAITING = ("torch/distributed/", "deepspeed/comm/", "deepspeed/utils/comms")
"""Parts of file names: a stack that ends there waits for other ranks."""


class Watchdog:
    """Watches the main thread of one rank.

    Args:
        rank, world: this rank, and how many there are.
        least_s: a step may always take this long; 0 = do not watch.
        report: called with the one sentence that says what hangs, before the process is ended.
        end: ends the process.
    """

    def __init__(
        self,
        rank: int,
        world: int,
        least_s: float,
        report: Callable[[str], None],
        end: Callable[[int], None] = os._exit,
    ) -> None:
        self.rank, self.world, self.least_s = rank, world, least_s
        self._report, self._end = report, end
        self._main = threading.get_ident()
        self._step, self._longest, self._began = 0, 0.0, time.monotonic()
        self._doing, self._limit_s = "step", FIRST_STEP_S
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self.least_s > 0:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()

    def step_done(self) -> None:
        """The main thread is at a step boundary."""
        now = time.monotonic()
        self._step += 1
        if self._step > FIRST_STEPS:
            self._longest = max(self._longest, now - self._began)
        self._begin("step", max(self.least_s, FACTOR * self._longest) if self._step >= FIRST_STEPS else FIRST_STEP_S)

    @contextlib.contextmanager
    def during(self, doing: str, limit_s: float = FIRST_STEP_S) -> Iterator[None]:
        """Something that may take longer than a step."""
        before = self._limit_s
        self._begin(doing, limit_s)
        try:
            yield
        finally:
            self._begin("step", before)

    def _begin(self, doing: str, limit_s: float) -> None:
        self._doing, self._limit_s, self._began = doing, limit_s, time.monotonic()

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self.least_s / 4)):
            taken = time.monotonic() - self._began
            if taken > self._limit_s:
                self._bark(taken)
                return

    def _bark(self, taken: float) -> None:
        frame = sys._current_frames()[self._main]
        stack = traceback.extract_stack(frame)
        waits = any(part in entry.filename.replace(os.sep, "/") for entry in stack for part in WAITING)
        place = next((entry for entry in reversed(stack) if "affect_hpc" in entry.filename), stack[-1])
        where = f"{Path(place.filename).name}:{place.lineno} ({place.name})"
        who = f"rank {self.rank} of {self.world}"
        if waits and self.world > 1:
            # The one that is waited for says so itself, unless it is gone.
            time.sleep(PATIENCE_S)
            what = f"{who} waits for another rank at {where}"
        else:
            what = f"{who} hangs at {where}"
        print(f"{what}; its stack:\n{''.join(traceback.format_list(stack))}", file=sys.stderr, flush=True)
        self._report(
            f"{what}: {self._doing} {self._step + 1} has taken {taken:.0f} s, {self._limit_s:.0f} s are allowed"
            " (train.stall_s); the log holds its stack, the last checkpoint is kept."
        )
        self._end(EXIT_HANGS)


def report_to(place: PartDir) -> Callable[[str], None]:
    """Writes what hangs to FAILED of an element, unless another rank has said more already."""

    def report(message: str) -> None:
        before = place.failure()
        if before is None or " hangs at " not in str(before["message"]):
            place.fail(message, HANG)

    return report
