"""The wish to stop: a signal sets a flag, and the work ends at its next safe point."""

import signal
from types import FrameType


class StopFlag:
    """Set by SIGUSR2 (time limit or preemption ahead: be started again) and SIGTERM (end now)."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.received is not None

    def install(self) -> None:
        """Take over both signals of this process, before heavy imports: none must ever meet the default action."""
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)


STOP = StopFlag()
"""The flag of this process."""
