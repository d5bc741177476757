"""The program's commands as a user gives them."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parent.parent.parent
EVALUATION = ("reconstruct", "precompute_latents", "manipulate", "evaluate", "reduce", "report")
"""Stages whose runs a test may throw away to have the trained networks alone."""


@dataclass(frozen=True)
class Said:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def counts(self) -> dict[str, int]:
        """The machine-readable last line of a launch."""
        found = re.findall(r"(submitted|arrays|reused|attached)=(\d+)", self.out.strip().splitlines()[-1])
        return {name: int(number) for name, number in found}


def environment(**more: str) -> dict[str, str]:
    """One thread for every library, and the repository on the path."""
    return {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", **more}


def start(module: str, *arguments: object, **env: str) -> "subprocess.Popen[str]":
    """Start ``python -m affect_hpc.<module>``."""
    command = [sys.executable, "-m", f"affect_hpc.{module}", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**env), cwd=REPO
    )


def run(module: str, *arguments: object, **env: str) -> Said:
    """Run ``python -m affect_hpc.<module>`` to its end."""
    process = start(module, *arguments, **env)
    out, err = process.communicate(timeout=900)
    return Said(process.returncode, out, err)


def copy_of(store: Path, target: Path, *without: str) -> Path:
    """A copy of a store, without the runs of some stages."""
    shutil.copytree(store, target, symlinks=True)
    for stage in without:
        shutil.rmtree(target / "runs" / stage)
    return target


def metrics(store: Path) -> dict[str, bytes]:
    """The merged metrics of every evaluation in a store."""
    return {path.parts[-3]: path.read_bytes() for path in (store / "runs" / "reduce").glob("*/out/metrics.json")}


def kill_everything_of(store: Path) -> int:
    """SIGKILL to every process that works for ``store``; returns how many there were."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            if str(store).encode() in words and int(entry.name) != os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)
                count += 1
    return count
