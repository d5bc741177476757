"""One job: what it reads, what it leaves behind, and how it ends."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy_graph import finish

from affect_hpc.config.corpora import DemoDataConfig
from affect_hpc.config.root import Config
from affect_hpc.config.stages import PrepareShardsConfig
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import write_json, write_text
from affect_hpc.core.rundir import Inputs, Outcome, PartDir, Workplace
from affect_hpc.core.stop import STOP
from affect_hpc.hpc import worker
from affect_hpc.hpc.graph import Edge, Element, External, Node
from affect_hpc.hpc.plans import plan
from affect_hpc.hpc.submit import write_run

DATA = DemoDataConfig("demo", 64, train_samples=8, val_samples=8)
StageRun = Callable[[Any, Inputs, Workplace], Outcome]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_ARRAY_JOB_ID", "RANK", worker.PROGRESS_FILE):
        # Set first, so that what the worker sets is undone too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(worker, "INPUT_PATIENCE_S", 0.0)
    yield
    STOP.received = None


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[[StageRun], None]:
    """Replaces every stage module."""

    def replaced(run: StageRun) -> None:
        monkeypatch.setattr(worker.importlib, "import_module", lambda name: SimpleNamespace(run=run))

    return replaced


@pytest.fixture
def place(tmp_path: Path) -> PartDir:
    node = Node("prepare_shards", PrepareShardsConfig(data=DATA))
    write_run(node, tmp_path)
    return Element(node, 0).folder(tmp_path)


def writes(cfg: Any, inputs: Inputs, place: Workplace) -> Outcome:
    write_text(place.out / "train" / "file.txt", f"{cfg.data.train_samples}")
    return Outcome({"faces": 16})


def test_success_is_done_with_a_manifest(place: PartDir, stage: Callable[[StageRun], None]) -> None:
    stage(writes)
    assert worker.run_element(place.path) == 0
    done = place.done()
    assert done["summary"] == {"faces": 16} and list(done["outputs"]) == ["train/file.txt"]
    assert (place.out / "train" / "file.txt").read_text() == "8", "the config arrived as its dataclass"
    assert place.is_intact() and place.failure() is None and not place.aside().exists()


def test_a_second_run_does_nothing(place: PartDir, stage: Callable[[StageRun], None]) -> None:
    stage(writes)
    worker.run_element(place.path)
    before = place.done()

    def never(cfg: Any, inputs: Inputs, place: Workplace) -> Outcome:
        raise AssertionError("it ran again")

    stage(never)
    assert worker.run_element(place.path) == 0
    assert place.done() == before and place.attempts() == 1


def raiser(error: BaseException) -> StageRun:
    def run(cfg: Any, inputs: Inputs, place: Workplace) -> Outcome:
        write_text(place.out / "half.txt", "half")
        write_text(place.keep / "checkpoint", "state")
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "kind", "message"),
    [
        (UserError("data.root is empty: fill it."), 2, "user", "data.root is empty: fill it."),
        (RuntimeError("shape mismatch\nmore"), 1, "error", "RuntimeError: shape mismatch"),
        (PermissionError(errno.EACCES, "denied"), 1, "error", "PermissionError: [Errno 13] denied"),
        (MemoryError(), 1, "error", "MemoryError: "),
        (SystemExit(0), 1, "error", "SystemExit: 0"),
    ],
)
def test_a_failure_leaves_its_message_and_no_half_output(
    place: PartDir,
    stage: Callable[[StageRun], None],
    capfd: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    kind: str,
    message: str,
) -> None:
    stage(raiser(error))
    assert worker.run_element(place.path) == code
    failure = place.failure()
    assert failure is not None and (failure["message"], failure["kind"]) == (message, kind)
    assert not place.out.exists() and not place.aside().exists() and not place.is_done()
    assert (place.keep / "checkpoint").exists(), "checkpoints survive attempts"
    assert place.attempts() == 1
    shown = capfd.readouterr().err
    assert f"failed: {message}" in shown
    assert ("Traceback" in shown) == (kind == "error"), "a user's mistake is a sentence"
    stage(writes)
    assert worker.run_element(place.path) == 0
    assert place.failure() is None and list(place.done()["outputs"]) == ["train/file.txt"]


def test_a_full_disk_is_named(place: PartDir, stage: Callable[[StageRun], None]) -> None:
    stage(raiser(OSError(errno.ENOSPC, "No space left on device")))
    assert worker.run_element(place.path) == 2
    failure = place.failure()
    assert failure is not None and failure["message"] == (
        f"the disk that holds {place.path} is full: free some space there (or set store=DIR) and launch again."
    )


@pytest.mark.parametrize(("received", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR2, worker.LOCAL_AGAIN)])
def test_a_stop_is_neither_done_nor_failed(
    place: PartDir, stage: Callable[[StageRun], None], received: signal.Signals, code: int
) -> None:
    def stopped(cfg: Any, inputs: Inputs, place: Workplace) -> Outcome:
        write_text(place.out / "half.txt", "half")
        STOP.received = received
        return Outcome(stopped=True)

    stage(stopped)
    for _ in range(4):
        assert worker.run_element(place.path) == code
    assert not place.is_done() and place.failure() is None and not place.aside().exists()
    assert place.attempts() == 0, "a stop is no failure, however often"


def test_on_slurm_a_stopped_element_asks_for_itself_alone(
    place: PartDir, stage: Callable[[StageRun], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(worker.subprocess, "run", lambda words, **more: asked.append(words))
    monkeypatch.setenv("SLURM_JOB_ID", "905")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "900")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    STOP.received = signal.SIGUSR2
    stage(lambda cfg, inputs, place: Outcome(stopped=True))
    assert worker.run_element(place.path) == 0
    assert asked == [["scontrol", "requeue", "900_4"]]
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert worker.run_element(place.path) == 0
    assert len(asked) == 1, "rank 0 asks for all"


def test_other_ranks_leave_the_marks_to_the_first(
    place: PartDir, stage: Callable[[StageRun], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    stage(raiser(UserError("no")))
    assert worker.run_element(place.path) == 2
    assert place.failure() is None and place.attempts() == 0


def test_no_run_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert worker.run_element(tmp_path) == 2
    assert "is no run folder: it has no spec.json" in capfd.readouterr().err


def test_inputs_are_own_part_whole_runs_or_given_folders(tmp_path: Path) -> None:
    latents = Node("invert_latents", PrepareShardsConfig(data=DATA), parts=2)
    given = External(tmp_path / "networks", "digest")
    parents = {"latents": (Edge(latents, each=True),), "all": (Edge(latents),), "ldm": (given,)}
    edit = Node("manipulate", PrepareShardsConfig(data=DATA), parents, 2)
    write_run(edit, tmp_path)
    run = edit.run_dir(tmp_path)
    with pytest.raises(UserError, match="is not DONE: run it first"):
        worker.gather_inputs(run, 1)
    finish(Element(latents, 1), tmp_path)
    with pytest.raises(UserError, match="0000 is not DONE"):
        worker.gather_inputs(run, 1)
    finish(Element(latents, 0), tmp_path)
    outs = [place.out for place in latents.run_dir(tmp_path).parts()]
    inputs = worker.gather_inputs(run, 1)
    assert inputs.roles == {"latents": (outs[1],), "all": tuple(outs), "ldm": (given.path,)}
    assert inputs.own == {"latents"}


def test_every_stage_reads_its_config_back_as_it_was(sweep: list[Config], tmp_path: Path) -> None:
    for point in sweep:
        point.store = str(tmp_path)
    for node in plan(sweep)[0].nodes:
        run = write_run(node, tmp_path)
        read = worker.stage_config(run, node.kind)
        assert replace(node, config=read).signature == node.signature
        assert read == node.config and type(read) is type(node.config)


def test_the_command_takes_its_element_from_the_index_file(place: PartDir, tmp_path: Path) -> None:
    write_json(tmp_path / "array.json", {"elements": {"3": str(place.path)}})
    write_json(place.path / "DONE", {"outputs": {}})
    command = [sys.executable, "-m", "affect_hpc.hpc.worker"]
    root = Path(worker.__file__).parents[2]
    env = {**os.environ, "SLURM_ARRAY_TASK_ID": "3"}

    def called(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *words], capture_output=True, text=True, env=env, cwd=root, check=False)

    empty, done = called(), called("--array", str(tmp_path / "array.json"))
    assert empty.returncode == 2 and "give a run folder or --array FILE" in empty.stderr
    assert done.returncode == 0 and f"{place.path} is done." in done.stderr


def test_the_command_stops_between_elements(
    place: PartDir, stage: Callable[[StageRun], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Node("prepare_shards", PrepareShardsConfig(data=replace(DATA, seed=1)))
    second = write_run(other, tmp_path).parts()[0]

    def stopped(cfg: Any, inputs: Inputs, place: Workplace) -> Outcome:
        STOP.received = signal.SIGTERM
        return Outcome(stopped=True)

    stage(stopped)
    monkeypatch.setattr(worker.STOP, "install", lambda: None)
    monkeypatch.setattr(worker.logs, "set_up", lambda: None)
    monkeypatch.setattr(sys, "argv", ["worker", str(place.path), str(second.path)])
    assert worker.main() == 143
    assert not (second.path / "attempts.json").exists(), "the second one was not begun"
    stage(raiser(RuntimeError("no")))
    assert worker.main() == 1
    assert second.failure() is not None, "a failure does not end its neighbours"
