"""Progress of long work: a moving line on a terminal, plain lines in a log, a small file for the launcher."""

import contextlib
import os
import sys
import time
from pathlib import Path
from types import TracebackType

from affect_hpc.core.io import write_json

PROGRESS_FILE = "AFFECT_PROGRESS_FILE"
"""Environment variable: where the running job leaves its progress for others to see."""

LOG_EVERY_S = 10.0
SHOW_EVERY_S = 0.5


def duration(seconds: float) -> str:
    """``seconds`` for people: 42s, 3m07s, 2h05m."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Progress:
    """Counts units of work of a known total; says rate and ETA now and then.

    Args:
        label: what is going on.
        total: units in all.
        unit: name of one unit.
        start: units done by an earlier attempt (they do not count for the rate).
    """

    def __init__(self, label: str, total: int, unit: str, start: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.start = self.done = start
        self._began = self._shown = self._logged = time.monotonic()
        self._file = Path(os.environ[PROGRESS_FILE]) if os.environ.get(PROGRESS_FILE) else None
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        self._publish({})
        return self

    def advance(self, units: int, **figures: float) -> None:
        """Count ``units`` more; ``figures`` stand on the line (a loss, say)."""
        self.done += units
        now = time.monotonic()
        if now - self._shown >= SHOW_EVERY_S:
            self._shown = now
            self._publish(figures)
            if self._terminal:
                print(f"\r\033[K{self.line(figures)}", end="", file=sys.stderr, flush=True)
            elif now - self._logged >= LOG_EVERY_S:
                self._logged = now
                print(self.line(figures), file=sys.stderr, flush=True)

    def line(self, figures: dict[str, float]) -> str:
        """The progress as one line."""
        rate, eta = self._rate_and_eta()
        tail = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
        return (
            f"{self.label} {self.done}/{self.total} {self.unit}s ({100 * self.done / max(1, self.total):.0f} %)"
            f"  {rate:.3g} {self.unit}s/s  ETA {duration(eta)}{tail}"
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._publish({})
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr)
        took = duration(time.monotonic() - self._began)
        rate, _ = self._rate_and_eta()
        print(
            f"{self.label} {self.done}/{self.total} {self.unit}s in {took}, {rate:.3g} {self.unit}s/s",
            file=sys.stderr,
            flush=True,
        )

    def _rate_and_eta(self) -> tuple[float, float]:
        elapsed = max(time.monotonic() - self._began, 1e-6)
        rate = (self.done - self.start) / elapsed
        return rate, (self.total - self.done) / rate if rate > 0 else 0.0

    def _publish(self, figures: dict[str, float]) -> None:
        if self._file is None:
            return
        # A full disk must stop the work itself, with its own message, never the report about it.
        with contextlib.suppress(OSError):
            content = {"label": self.label, "line": self.line(figures), "done": self.done, "total": self.total}
            write_json(self._file, content)
