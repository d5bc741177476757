"""The development cluster behaves like SLURM where the launcher relies on it, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

Env = dict[str, str]
Manage = Callable[..., subprocess.CompletedProcess[str]]
EnvOf = Callable[[Path], Env]


def call(env: Env, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A SLURM command; with a wrong configuration they would retry for a minute."""
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert not check or done.returncode == 0, f"{words}: {done.stderr}"
    return done


def submit(env: Env, script: str, *words: str) -> str:
    """Submit a one-line script; its job id."""
    words = ("sbatch", "--parsable", "--output=/dev/null", *words, f"--wrap={script}")
    return call(env, *words).stdout.strip()


def states(env: Env, job: str) -> dict[str, str]:
    """What sacct says of a job or an array, by element."""
    rows = call(env, "sacct", "-X", "-n", "-P", "-j", job, "-o", "JobID,State").stdout.splitlines()
    return {name: state.split()[0] for name, state in (row.split("|") for row in rows)}


def wait_for(what: Callable[[], object], wanted: object, limit_s: float = 60) -> None:
    """Poll, since sacct lags behind; the last answer is shown when time runs out."""
    deadline = time.monotonic() + limit_s
    while (got := what()) != wanted:
        assert time.monotonic() < deadline, f"after {limit_s} s still: {got!r}"
        time.sleep(0.3)


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that name this folder in arguments or environment, but for our own."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes()
            if str(folder).encode() in text + (entry / "environ").read_bytes():
                found.append(text.replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # It has ended meanwhile.
            continue
    return found


@pytest.fixture
def second(manage: Manage) -> Iterator[Path]:
    """A small second cluster beside the first."""
    with tempfile.TemporaryDirectory(prefix="adc2-", dir="/tmp") as name:
        folder = Path(name)
        try:
            started = manage("up", folder, "--nodes", "1", "--gpus-per-node", "1")
            assert started.returncode == 0, started.stderr
            yield folder
        finally:
            if os.geteuid() == 0:
                manage("down", folder)


def test_array_completes_in_sacct(devcluster: Env) -> None:
    job = submit(devcluster, "true", "--array=0-4")
    wait_for(lambda: states(devcluster, job), {f"{job}_{i}": "COMPLETED" for i in range(5)})


def test_dependant_of_a_failing_job_is_cancelled(devcluster: Env) -> None:
    first = submit(devcluster, "exit 3", "--hold")
    then = submit(devcluster, "true", f"--dependency=afterok:{first}", "--kill-on-invalid-dep=yes")
    call(devcluster, "scontrol", "release", first)
    wait_for(lambda: states(devcluster, first), {first: "FAILED"})
    wait_for(lambda: states(devcluster, then), {then: "CANCELLED"})


def test_aftercorr_chains_element_by_element(devcluster: Env) -> None:
    script = "[ $SLURM_ARRAY_TASK_ID != 2 ]"
    first = submit(devcluster, script, "--array=0-3", "--hold")
    words = (f"--dependency=aftercorr:{first}", "--kill-on-invalid-dep=yes", "--array=0-3")
    then = submit(devcluster, "true", *words)
    call(devcluster, "scontrol", "release", first)
    kept = {f"{then}_{i}": "COMPLETED" for i in (0, 1, 3)}

    def done() -> object:
        got = states(devcluster, then)
        return {name: got.get(name) for name in kept}

    wait_for(done, kept)
    # An element that never ran need not have a row of its own in sacct, but it must not have run.
    assert states(devcluster, then).get(f"{then}_2") in (None, "CANCELLED")
    wait_for(lambda: call(devcluster, "squeue", "-h", "-r", "-j", then, check=False).stdout, "")


def test_gpus_are_counted_and_refused_beyond_the_node(devcluster: Env, tmp_path: Path) -> None:
    refused = call(devcluster, "sbatch", "--nodes=1", "--gres=gpu:5", "--wrap=true", check=False)
    assert refused.returncode != 0
    assert "not available" in refused.stderr
    out = tmp_path / "out"
    job = submit(devcluster, f"echo $CUDA_VISIBLE_DEVICES >{out}", "--gres=gpu:3")
    wait_for(lambda: states(devcluster, job), {job: "COMPLETED"})
    assert len(out.read_text().split(",")) == 3


def test_two_nodes_resolve_each_other(devcluster: Env) -> None:
    names_of_job = "$(scontrol show hostnames $SLURM_JOB_NODELIST)"
    script = f"for n in {names_of_job}; do getent hosts $n || exit 1; done; hostname"
    done = call(devcluster, "srun", "--nodes=2", "--ntasks-per-node=1", "bash", "-c", script)
    names = {line for line in done.stdout.splitlines() if " " not in line}
    assert len(names) == 2, done.stdout


def hosts_of(folder: Path) -> list[str]:
    """Lines of /etc/hosts that this cluster wrote; another one may come up at the same time."""
    return [line for line in Path("/etc/hosts").read_text().splitlines() if line.endswith(f" {folder}")]


def test_second_up_changes_nothing(devcluster: Env, manage: Manage) -> None:
    folder = Path(devcluster["SLURM_CONF"]).parents[1]
    before, hosts = sorted(processes_of(folder)), hosts_of(folder)
    again = manage("up", folder)
    assert again.returncode == 0
    assert again.stdout.startswith("already up")
    assert sorted(processes_of(folder)) == before
    assert hosts_of(folder) == hosts != []
    assert manage("env", folder).stdout == f"export SLURM_CONF={devcluster['SLURM_CONF']}\n"


def test_two_clusters_live_side_by_side(devcluster: Env, second: Path, manage: Manage, env_of: EnvOf) -> None:
    env = env_of(second)
    assert manage("status", second).returncode == 0
    job = submit(env, "true")
    wait_for(lambda: states(env, job), {job: "COMPLETED"})
    assert states(devcluster, job) == {}
    assert manage("down", second).returncode == 0
    assert manage("status", Path(devcluster["SLURM_CONF"]).parents[1]).returncode == 0


def test_status_sees_a_dead_node_and_up_repairs_it(second: Path, manage: Manage) -> None:
    pid_of = {
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_slurmd_of(entry, second)
    }
    assert len(pid_of) == 1
    os.kill(pid_of.pop(), signal.SIGKILL)
    wait_for(lambda: manage("status", second).returncode, 1)
    repaired = manage("up", second)
    assert repaired.returncode == 0, repaired.stderr
    assert repaired.stdout.startswith("up again")
    assert manage("status", second).returncode == 0


def _is_slurmd_of(entry: Path, folder: Path) -> bool:
    try:
        argv = (entry / "cmdline").read_bytes().split(b"\0")
        return argv[0].endswith(b"slurmd") and str(folder).encode() in (entry / "environ").read_bytes()
    except OSError:
        return False


def test_down_leaves_no_process_and_no_hosts_line(second: Path, manage: Manage, env_of: EnvOf) -> None:
    env = env_of(second)
    job = submit(env, "sleep 600")

    def state() -> str:
        return call(env, "squeue", "-h", "-j", job, "-o", "%T").stdout.strip()

    wait_for(state, "RUNNING")
    assert processes_of(second)
    assert str(second) in Path("/etc/hosts").read_text()
    assert manage("down", second).stdout.startswith("down")
    wait_for(lambda: processes_of(second), [], 10)
    assert str(second) not in Path("/etc/hosts").read_text()
    assert {path.name for path in second.iterdir()} == {".affect-devcluster", "log"}
    again = manage("down", second)
    assert (again.returncode, again.stdout.startswith("nothing is up")) == (0, True)


def test_a_daemon_that_fails_is_named_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second: Path, manage: Manage
) -> None:
    manage("down", second)
    broken = tmp_path / "slurmctld"
    broken.write_text("#!/bin/sh\necho out of luck >&2\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    failed = manage("up", second)
    assert failed.returncode == 1
    assert "slurmctld did not start" in failed.stderr
    assert "out of luck" in failed.stderr
    wait_for(lambda: processes_of(second), [], 10)
    assert str(second) not in Path("/etc/hosts").read_text()


def test_probe_finds_the_cluster_sane(devcluster: Env, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    probe = Path(__file__).resolve().parents[2] / "slurm" / "probe.sbatch"
    env = devcluster | {"AFFECT_PYTHON": sys.executable}
    words = ("sbatch", "--wait", f"--chdir={tmp_path}", "--output=out", str(probe))
    done = subprocess.run(words, env=env, cwd=tmp_path, timeout=300, check=False, capture_output=True)
    report = (tmp_path / "out").read_text()
    assert done.returncode == 0, report
    assert report.endswith("probe: all ok\n")
    checks = {line.split()[1] for line in report.splitlines() if line.startswith("ok")}
    assert checks >= {"clock", "MaxArraySize", "network", "python", "sacct", "shared-folder", "torch"}
