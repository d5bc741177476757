"""A SLURM cluster of the tests' own, for as long as they run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DEVCLUSTER = Path(__file__).resolve().parents[2] / "slurm" / "devcluster"
NOT_POSSIBLE_HERE = 3


def run_devcluster(command: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """One call of slurm/devcluster; skips the test where this machine cannot have a cluster."""
    done = subprocess.run(
        [sys.executable, str(DEVCLUSTER), command, "--dir", str(folder), *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode == NOT_POSSIBLE_HERE:
        pytest.skip(f"no SLURM cluster here: {done.stderr.strip()}")
    return done


def client_env(folder: Path) -> dict[str, str]:
    """The environment in which SLURM's commands talk to the cluster of this folder."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH_", "SALLOC_", "SACCT_"))}
    return env | {"SLURM_CONF": str(folder / "etc" / "slurm.conf")}


@pytest.fixture(scope="session")
def manage() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`manage(command, folder, *words)` is one call of slurm/devcluster."""
    return run_devcluster


@pytest.fixture(scope="session")
def env_of() -> Callable[[Path], dict[str, str]]:
    """`env_of(folder)` is the environment for the cluster of this folder."""
    return client_env


@pytest.fixture(scope="session")
def devcluster() -> Iterator[dict[str, str]]:
    """Environment variables, SLURM_CONF above all, of a running cluster of four nodes."""
    # Not pytest's own temporary folder: its path may be too long for UNIX sockets.
    with tempfile.TemporaryDirectory(prefix="adc-", dir="/tmp") as name:
        folder = Path(name)
        try:
            started = run_devcluster("up", folder)
            assert started.returncode == 0, started.stderr
            yield client_env(folder)
        finally:
            if os.geteuid() == 0:
                run_devcluster("down", folder)
