"""The wish to stop: a signal sets a flag, and the work ends at its next safe point."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Stopped(BaseException):
    """Raised where the work has no safe point to wait for: it is to end at once."""


class StopFlag:
    """Set by SIGUSR2 (time limit or preemption ahead: be started again) and SIGTERM (end now)."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._boundaries = False

    @contextlib.contextmanager
    def at_boundaries(self) -> Iterator[None]:
        """Inside, the work looks at the flag itself, at its step boundaries; elsewhere a signal ends it."""
        before, self._boundaries = self._boundaries, True
        try:
            yield
        finally:
            self._boundaries = before

    def __bool__(self) -> bool:
        return self.received is not None

    def install(self) -> None:
        """Take over both signals of this process, before heavy imports: none must ever meet the default action."""
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if not self._boundaries:
            raise Stopped(f"{self.received.name} came")


STOP = StopFlag()
"""The flag of this process."""
