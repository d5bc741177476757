"""What tests of whole sweeps share: one finished smoke sweep, made once per test run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent / "integration"))
sys.path.insert(0, str(Path(__file__).parent / "data"))

import commands

from affect_hpc.core.stop import STOP


@pytest.fixture(autouse=True)
def _no_stop_left_over() -> Iterator[None]:
    """A test that asks a training to stop asks no later one."""
    yield
    STOP.received = None


@pytest.fixture(scope="session")
def smoke_store(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A store in which the sweep ``smoke`` is done, with two parts for every divisible run. Copy it to change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    store = shared / "smoke_store"
    with FileLock(shared / "smoke_store.lock"):
        if not (store / "views").exists():
            said = commands.run("launch", "-m", "sweep=smoke", f"store={store}", "cluster.parts=2")
            assert said.code == 0, said.out + said.err
    return store
