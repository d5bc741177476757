"""Launches against a SLURM in memory: attach, cancel, resume, crashes of the launcher."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, LauncherKilled

from affect_hpc.config.cluster import ClusterConfig
from affect_hpc.config.root import Config
from affect_hpc.core.errors import UserError
from affect_hpc.hpc import executors, scheduler, session, slurm, worker
from affect_hpc.hpc.session import Session
from affect_hpc.hpc.submit import Action

Launch = Callable[[], tuple[int, str]]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    one = FakeSlurm()
    monkeypatch.setattr(scheduler, "call", one.call)
    monkeypatch.setattr(executors, "submit_array", one.submit_array)
    monkeypatch.setattr(slurm, "archive_code", lambda store: None)
    monkeypatch.setattr(worker, "INPUT_PATIENCE_S", 0.0)
    return one


@pytest.fixture
def points(sweep: list[Config], slurm_cluster: ClusterConfig, tmp_path: Path) -> list[Config]:
    """Two points of a sweep, three parts."""
    slurm_cluster.parts = 3
    for point in sweep:
        point.cluster, point.store = slurm_cluster, str(tmp_path)
    return sweep[:2]


@pytest.fixture
def launch(points: list[Config], capsys: pytest.CaptureFixture[str]) -> Launch:
    def launched() -> tuple[int, str]:
        capsys.readouterr()
        code = Session(points, []).launch()
        return code, capsys.readouterr().out.splitlines()[-1]

    return launched


ALL = 3 + 1 + 1 + 3 + 3 + 1 + 3 + 3 + 1 + 2 * (3 + 3 + 3 + 1) + 1
"""shards, vqgan, referee, latents of train and val, ldm, reconstruct, baseline and its reduce; per point invert, edit,
judge, reduce; the report."""


def test_a_whole_sweep_in_few_calls(fake: FakeSlurm, launch: Launch) -> None:
    code, line = launch()
    assert (code, line) == (0, f"submitted={ALL} arrays={len(fake.arrays)} reused=0 attached=0")
    assert len(fake.arrays) <= 14
    assert not any(array.hold for array in fake.arrays.values()), "everything was let go"
    while fake.step():
        pass
    assert not fake.live() and len(fake.order) == ALL
    assert launch() == (0, f"submitted=0 arrays=0 reused={ALL} attached=0")


def test_roots_wait_until_all_is_submitted(fake: FakeSlurm, points: list[Config]) -> None:
    held: list[set[str]] = []
    submit = fake.submit_array

    def watched(*words: object) -> str:
        number = submit(*words)  # type: ignore[arg-type]
        held.append({array.name for array in fake.arrays.values() if not array.dependency and not array.hold})
        return number

    executors.submit_array = watched  # type: ignore[assignment]  # the fixture puts the old one back
    Session(points, []).launch()
    assert not any(held)
    assert [words[:2] for words in fake.calls if words[0] == "scontrol"] == [["scontrol", "release"]]


def test_a_second_launch_attaches(fake: FakeSlurm, launch: Launch) -> None:
    launch()
    arrays = len(fake.arrays)
    assert launch() == (0, f"submitted=0 arrays=0 reused=0 attached={ALL}")
    fake.step(2)
    assert launch() == (0, f"submitted=0 arrays=0 reused=2 attached={ALL - 2}")
    assert len(fake.arrays) == arrays


def test_a_wider_sweep_adds_only_its_own_work(
    fake: FakeSlurm, launch: Launch, points: list[Config], sweep: list[Config]
) -> None:
    launch()
    fake.step(4)
    before = len(fake.arrays)
    points.append(sweep[2])
    code, line = launch()
    # Invert, edit, judge and reduce of the new point, and the report of three points: the old one is not in this plan.
    assert (code, line.split()[0]) == (0, "submitted=11")
    assert len(fake.arrays) - before <= 5
    while fake.step():
        pass
    assert launch()[1].split()[0] == "submitted=0"


def test_after_a_cancel_only_the_missing_is_sent(fake: FakeSlurm, launch: Launch, points: list[Config]) -> None:
    launch()
    fake.step(4)
    done = len(fake.order)
    now = Session(points, [])
    live = now.decide().elements(Action.attach)
    ids = [slurm.job_of(element.folder(now.store).job() or {}, now.store)["id"] for element in live]
    scheduler.cancel(ids, {})
    assert not fake.live()
    code, line = launch()
    assert code == 0 and line.startswith(f"submitted={ALL - done} ") and f"reused={done}" in line
    while fake.step():
        pass
    assert len(fake.order) == len(set(fake.order)) == ALL, "nothing ran twice"


def test_a_failure_stops_its_descendants_and_is_tried_again(fake: FakeSlurm, launch: Launch) -> None:
    fake.fails = {"train_ldm"}
    launch()
    while fake.step():
        pass
    assert not fake.live(), "what depends on it does not wait for ever"
    ran = len(fake.order)
    fake.fails = set()
    code, line = launch()
    assert code == 0 and line.startswith(f"submitted={ALL - (ran - 1)} ")
    while fake.step():
        pass
    assert launch()[1].split()[0] == "submitted=0"


def test_failures_without_end_are_left_alone(fake: FakeSlurm, launch: Launch, points: list[Config]) -> None:
    fake.fails = {"train_ldm"}
    points[0].cluster.max_attempts = 2
    for _ in range(2):
        assert launch()[0] == 0
        while fake.step():
            pass
    code, line = launch()
    assert code == 1 and line.startswith("submitted=0 ")
    now = Session(points, [])
    assert any(name.startswith("train_ldm/") for name in now.forget())
    fake.fails = set()
    assert launch()[0] == 0
    while fake.step():
        pass
    assert not fake.live() and launch()[1].startswith("submitted=0 ")


@pytest.mark.parametrize("steps", [0, 3])
def test_a_launcher_killed_after_sbatch_finds_its_job_by_name(fake: FakeSlurm, launch: Launch, steps: int) -> None:
    fake.dies = "after"
    with pytest.raises(LauncherKilled):
        launch()
    assert len(fake.arrays) == 1 and fake.arrays[100].hold
    fake.dies = ""
    code, line = launch()
    names = [array.name.rpartition("-")[0] for array in fake.arrays.values()]
    assert len(set(names)) == len(names), "nothing was submitted twice"
    assert code == 0 and line == f"submitted={ALL - 3} arrays={len(fake.arrays) - 1} reused=0 attached=3"
    assert not fake.arrays[100].hold, "the next launch lets go what the first one held"
    while fake.step():
        pass
    assert len(fake.order) == len(set(fake.order)) == ALL


def test_a_launcher_killed_before_sbatch_leaves_no_ghost(fake: FakeSlurm, launch: Launch) -> None:
    fake.dies = "before"
    with pytest.raises(LauncherKilled):
        launch()
    fake.dies = ""
    assert launch()[1].startswith(f"submitted={ALL} ")


def test_lost_arrays_are_looked_for_once_each(fake: FakeSlurm, launch: Launch, points: list[Config]) -> None:
    fake.dies = "before"
    with pytest.raises(LauncherKilled):
        launch()
    fake.calls.clear()
    Session(points, []).decide()
    assert len([words for words in fake.calls if any(word.startswith("--name=") for word in words)]) == 1


def test_a_refusal_is_a_sentence(fake: FakeSlurm, points: list[Config]) -> None:
    fake.refuses = True
    with pytest.raises(UserError, match="sbatch refused the array affect-prepare_shards-"):
        Session(points, []).launch()


def test_forget_leaves_running_jobs_alone(fake: FakeSlurm, launch: Launch, points: list[Config]) -> None:
    launch()
    fake.step(3)
    touched = Session(points, []).forget()
    assert touched == []
    assert launch()[1].startswith("submitted=0 "), "no job was doubled"


def test_a_finished_store_needs_no_scheduler(
    fake: FakeSlurm, launch: Launch, points: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch()
    while fake.step():
        pass

    def absent(*words: object) -> str:
        raise UserError("sacct was not found")

    monkeypatch.setattr(scheduler, "call", absent)
    assert launch() == (0, f"submitted=0 arrays=0 reused={ALL} attached=0")


def test_watching_follows_to_the_end(
    fake: FakeSlurm, launch: Launch, points: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    points[0].watch = True
    fake.fails = {"reduce"}
    monkeypatch.setattr(session.time, "sleep", lambda seconds: fake.step(9))
    assert launch()[0] == 1
    fake.fails = set()
    assert launch()[0] == 0


def test_a_dry_run_shows_the_calls_and_makes_none(
    fake: FakeSlurm, points: list[Config], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    points[0].dry_run = True
    assert Session(points, []).launch() == 0
    out = capsys.readouterr().out
    assert out.count("#SBATCH --array=") == out.count("#SBATCH --job-name=affect-") <= 14
    assert "--kill-on-invalid-dep=yes" in out and "--dependency='aftercorr:<affect-" in out
    assert not fake.arrays and not list(tmp_path.iterdir())
