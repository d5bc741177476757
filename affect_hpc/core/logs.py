"""Logging of a process: plain lines on standard error."""

import logging
import sys


def set_up(level: int = logging.INFO) -> None:
    """Send the project's log lines to standard error; other packages speak from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("affect_hpc").setLevel(level)
