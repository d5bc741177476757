"""A training on two nodes goes on by itself when it is signalled, requeued, preempted or robbed of a node."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from commands import Said, copy_of, run
from test_slurm_sweep import ask, wait_for

from affect_hpc.core.io import read_json, sha256_file

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

SAMPLES, EVERY = 1920, 10
LONG = 9600
"""Samples that 80 seconds, the first of which are spent on starting, are too short for."""
EVENTS = os.environ.get("AFFECT_HPC_EVENTS", "signal crash").split()
"""What befalls the training, one after the other; also there: scancel, requeue, preempt, limit."""
WORDS = (
    *("stage=train_ldm", "model=smoke", "use.first_stage=train", "cluster=slurm_dev", "cluster.parts=1"),
    *("data.train_samples=64", "data.val_samples=16", "data.samples_per_shard=16"),
    *("edit.t0=500", "edit.num_steps=4", "edit.num_samples=8"),
    *("cluster.resources.train.nodes=2", "cluster.resources.train.tasks_per_node=2"),
    *("cluster.resources.train.cpus_per_task=1", f"stages.train_ldm.train.save_every={EVERY}"),
)


class Training:
    """One launch of it in a store of its own."""

    def __init__(self, store: Path, env: Mapping[str, str], *words: str, samples: int = SAMPLES) -> None:
        self.store, self.env, self.samples = store, env, samples
        self.words = (*WORDS, f"stages.train_ldm.train.samples_total={samples}", f"store={store}", *words)

    def launch(self, *more: str) -> Said:
        said = run("launch", *self.words, *more, SLURM_CONF=self.env["SLURM_CONF"])
        assert said.code == 0, said.out + said.err
        return said

    @property
    def folder(self) -> Path:
        """The run that holds a job of this launch: smoke_store has none of that length."""
        return next(path.parent for path in self.store.glob("runs/train_ldm/*/config.yaml") if self._is_ours(path))

    def _is_ours(self, config: Path) -> bool:
        return f"samples_total: {self.samples}" in config.read_text()

    def done(self) -> int:
        """Samples of the attempt that runs."""
        try:
            return int(read_json(self.folder / "progress.json")["done"])
        except (FileNotFoundError, StopIteration):
            return 0

    def attempts(self) -> list[dict[str, float]]:
        with contextlib.suppress(FileNotFoundError, StopIteration):
            return [json.loads(line) for line in (self.folder / "keep" / "attempts.jsonl").read_text().splitlines()]
        return []

    def digests(self) -> dict[str, str]:
        """Weights, averages, optimiser, generators: everything that the run ends with."""
        newest = max((self.folder / "keep" / "checkpoints").glob("samples_*[0-9]"))
        files = [*newest.glob("*.safetensors"), *(self.folder / "out").rglob("*.safetensors")]
        return {path.relative_to(self.folder).as_posix(): sha256_file(path) for path in files}

    def job(self) -> str:
        (job,) = ask(self.env, "squeue", "-h", "-r", "-o", "%i", "--name", self._name()).split()
        return job

    def _name(self) -> str:
        rows = ask(self.env, "squeue", "-h", "-r", "-o", "%j").split()
        return next(row for row in rows if "train_ldm" in row)

    def nodes(self) -> list[str]:
        line = ask(self.env, "squeue", "-h", "-r", "-o", "%N", "--name", self._name()).strip()
        return ask(self.env, "scontrol", "show", "hostnames", line).split()

    def processes(self) -> list[int]:
        """The ranks that run, by their numbers as this machine counts."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
                ours = b"affect_hpc.hpc.worker" in words and f"{self.store}".encode() in words + environment
                if ours and b"SLURM_PROCID" in environment and b"srun" not in words:
                    found.append(int(entry.name))
        return sorted(found)


def befall(event: str, training: Training) -> None:
    """What clusters do to jobs."""
    job, env = training.job(), training.env
    if event == "signal":
        # One rank of four, and not the first: the others must hear of it.
        os.kill(training.processes()[-1], signal.SIGUSR2)
    elif event == "scancel":
        ask(env, "scancel", "--signal=USR2", job)
    elif event == "requeue":
        ask(env, "scontrol", "requeue", job)
    elif event == "preempt":
        command = ["sbatch", "--parsable", "-p", "main", "-N4", "--exclusive", "--wrap", "sleep 5", "-o", "/dev/null"]
        ask(env, *command)
    elif event == "crash":
        node = training.nodes()[-1]
        # The whole machine goes at once: its namespace ends with its first process.
        subprocess.run(["pkill", "-KILL", "-f", f"^unshare .*{node}"], check=True)
    else:
        raise ValueError(event)


def test_it_ends_as_if_nothing_had_happened(smoke_store: Path, devcluster: dict[str, str], tmp_path: Path) -> None:
    clean = Training(copy_of(smoke_store, tmp_path / "clean"), devcluster)
    clean.launch("watch=true")
    events = [event for event in EVENTS if event != "limit"]
    partition = ("cluster.partition=low",) if "preempt" in EVENTS else ()
    troubled = Training(copy_of(smoke_store, tmp_path / "troubled"), devcluster, *partition)
    troubled.launch()
    for number, event in enumerate(events):
        share = SAMPLES * (number + 1) // (len(events) + 1)
        wait_for(
            lambda share=share, number=number: len(troubled.attempts()) == number + 1 and troubled.done() >= share,
            f"the attempt before the event {event}",
            300,
        )
        befall(event, troubled)
    wait_for((troubled.folder / "DONE").exists, "the end of the training", 300)
    assert troubled.digests() == clean.digests()
    attempts = troubled.attempts()
    assert len(attempts) == len(events) + 1
    for event, attempt in zip(events, attempts[1:], strict=True):
        assert event not in ("signal", "scancel") or attempt["lost"] == 0, "a warned training loses nothing"
    shown = run("status", str(troubled.folder), "--store", troubled.store, SLURM_CONF=devcluster["SLURM_CONF"])
    assert f"resumed {len(events)} times" in " ".join(shown.out.split())


@pytest.mark.skipif("limit" not in EVENTS, reason="takes minutes: AFFECT_HPC_EVENTS=limit runs it")
def test_a_time_limit_costs_attempts_and_no_samples(
    smoke_store: Path, devcluster: dict[str, str], tmp_path: Path
) -> None:
    clean = Training(copy_of(smoke_store, tmp_path / "clean"), devcluster, samples=LONG)
    clean.launch("watch=true")
    limit = ("cluster.resources.train.timeout_min=2", "cluster.signal_delay_s=40")
    limited = Training(copy_of(smoke_store, tmp_path / "limited"), devcluster, *limit, samples=LONG)
    limited.launch()
    wait_for((limited.folder / "DONE").exists, "the end of the training", 900)
    assert limited.digests() == clean.digests()
    assert len(limited.attempts()) > 1, "it ended within the limit: make LONG longer"
    assert sum(attempt["lost"] for attempt in limited.attempts()) == 0
