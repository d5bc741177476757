"""The same sweep on a real SLURM."""

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from commands import EVALUATION, Said, copy_of, metrics, run

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]


def ask(env: Mapping[str, str], *command: str) -> str:
    """What a SLURM client prints."""
    done = subprocess.run(command, env=dict(env), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Poll until ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.5)


def launch(store: Path, conf: str, *more: str) -> Said:
    """Launch the smoke sweep on the development cluster."""
    return run("launch", "-m", "sweep=smoke", "cluster=slurm_dev", f"store={store}", *more, SLURM_CONF=conf)


def test_a_sweep_on_slurm_gives_the_bits_of_the_local_one(
    smoke_store: Path, devcluster: dict[str, str], tmp_path: Path
) -> None:
    store = copy_of(smoke_store, tmp_path / "store", *EVALUATION)
    conf = devcluster["SLURM_CONF"]
    said = launch(store, conf, "watch=true", "cluster.parts=2")
    assert said.code == 0, said.out + said.err
    assert said.counts["arrays"] <= 14
    assert metrics(store) == metrics(smoke_store)
    assert (store / "views/smoke/report/index.html").exists()
    rows = ask(devcluster, "sacct", "-X", "-n", "-P", "-o", "JobID,JobName,State").split()
    assert any("_1|affect-manipulate" in row and "COMPLETED" in row for row in rows)
    again = launch(store, conf, "cluster.parts=2")
    assert again.counts["submitted"] == 0


def test_a_cancelled_job_is_shown_its_descendants_go_and_rerun_completes(
    smoke_store: Path, devcluster: dict[str, str], tmp_path: Path
) -> None:
    store = copy_of(smoke_store, tmp_path / "store", "manipulate", "evaluate", "reduce", "report")
    conf = devcluster["SLURM_CONF"]
    sent = launch(store, conf, "cluster.parts=2")
    assert sent.code == 0, sent.out + sent.err
    assert sent.counts["submitted"] > 0

    def running() -> list[str]:
        rows = ask(devcluster, "squeue", "-h", "-r", "-t", "R", "-o", "%i %j").splitlines()
        return [row.split()[0] for row in rows if "affect-manipulate" in row]

    wait_for(lambda: bool(running()), "a running manipulate job")
    victim = running()[0]
    ask(devcluster, "scancel", victim)
    wait_for(lambda: not ask(devcluster, "squeue", "-h", "-o", "%i").strip(), "an empty queue", 240)
    # sacct lags behind the queue.
    time.sleep(3)
    shown = run("status", "smoke", "--store", store, SLURM_CONF=conf)
    assert shown.code == 1
    assert "CANCELLED" in shown.out or "FAILED" in shown.out
    assert not (store / "views/smoke/report/index.html").exists()
    again = run("rerun", "smoke", "--store", store, "watch=true", SLURM_CONF=conf)
    assert again.code == 0, again.out + again.err
    assert metrics(store) == metrics(smoke_store)
