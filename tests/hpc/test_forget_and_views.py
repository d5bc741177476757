"""What rerun forgets, and the names that people use."""

import json
import os
from pathlib import Path

import pytest
from toy_graph import fail, finish

from affect_hpc import rerun
from affect_hpc.config import compose
from affect_hpc.config.root import Config
from affect_hpc.core.errors import UserError
from affect_hpc.hpc import session, views
from affect_hpc.hpc.graph import Element
from affect_hpc.hpc.session import Session
from affect_hpc.hpc.submit import Action


@pytest.fixture
def points(sweep: list[Config], tmp_path: Path) -> list[Config]:
    for point in sweep:
        point.store, point.cluster.parts = str(tmp_path), 2
    return sweep[:2]


@pytest.fixture
def finished(points: list[Config]) -> Session:
    """A sweep that is done to the last part."""
    one = Session(points, ["sweep=cfg_gamma"])
    for element in one.graph.elements():
        finish(element, one.store)
    assert len(one.decide().elements(Action.reuse)) == len(one.graph.elements())
    return one


def undone(one: Session) -> set[str]:
    return {str(element) for element in one.graph.elements() if not element.folder(one.store).is_done()}


def test_nothing_is_forgotten_of_a_sound_sweep(finished: Session) -> None:
    assert finished.forget() == [] and undone(finished) == set()


def test_a_damaged_part_and_its_descendants_are_forgotten(finished: Session) -> None:
    node = finished.points[0]["manipulate"]
    damaged = Element(node, 1)
    (damaged.folder(finished.store).out / "result.txt").write_text("")
    touched = finished.forget()
    below = {finished.points[0][kind] for kind in ("evaluate", "reduce")} | set(finished.graph.targets)
    assert touched[0] == f"{node.name} 0001" and set(touched[1:]) == {one.name for one in below}
    assert undone(finished) == {str(damaged)} | {str(Element(one, i)) for one in below for i in range(one.parts)}
    run = finished.decide().elements(Action.run)
    assert {str(element) for element in run} == undone(finished)


def test_failures_are_forgotten_and_nothing_else(finished: Session) -> None:
    failed = Element(finished.points[1]["reduce"], 0)
    failed.folder(finished.store).forget()
    fail(failed, finished.store, attempts=3)
    finished.graph.targets[0].run_dir(finished.store).parts()[0].forget()
    failed.folder(finished.store).record_job({"executor": "local", "host": os.uname().nodename, "pid": -1})
    assert finished.decide().elements(Action.blocked)[0] == failed
    assert finished.forget() == [failed.node.name]
    assert finished.decide().elements(Action.run) == [failed, Element(finished.graph.targets[0], 0)]


def test_only_the_named_run_is_looked_at(finished: Session) -> None:
    first, second = (finished.points[i]["reduce"] for i in (0, 1))
    for node in (first, second):
        (node.run_dir(finished.store).path / "out" / "result.txt").unlink()
    touched = finished.forget({first.name})
    assert set(touched) == {first.name, finished.graph.targets[0].name}
    assert Element(second, 0).folder(finished.store).is_done()


def test_what_never_ran_is_not_named(points: list[Config]) -> None:
    one = Session(points, [])
    shards = Element(one.points[0]["prepare_shards"], 0)
    finish(shards, one.store)
    (shards.folder(one.store).out / "result.txt").unlink()
    assert one.forget() == [f"{shards.node.name} 0000"]


def test_a_live_descendant_of_damage_keeps_its_job(finished: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = (Element(finished.points[0][kind], 0) for kind in ("train_ldm", "invert_latents"))
    (parent.folder(finished.store).out / "result.txt").unlink()
    child.folder(finished.store).forget()
    job = {"executor": "local", "host": os.uname().nodename, "pid": 7, "submitted": 0}
    child.folder(finished.store).record_job(job)
    monkeypatch.setattr(session.local, "process_is_alive", lambda pid, word: True)
    finished.forget()
    assert child.folder(finished.store).job() == job


def test_axes_are_the_keys_that_differ(points: list[Config]) -> None:
    assert views.axes(points) == ["edit.gamma=1", "edit.gamma=2"]
    points[1].edit.targets = ["sad", "happy"]
    points[0].edit.targets = ["sad"]
    assert views.axes(points) == ["edit.gamma=1,edit.targets=sad", "edit.gamma=2,edit.targets=sad+happy"]
    assert views.axes(points[:1]) == ["point"]


def test_views_are_relative_links_to_the_runs(points: list[Config], finished: Session, tmp_path: Path) -> None:
    view = views.write_views(tmp_path, points, finished.points, finished.graph)
    views.write_views(tmp_path, points, finished.points, finished.graph)  # again: links are replaced
    link = view / "edit.gamma=2" / "manipulate"
    assert not os.readlink(link).startswith("/")
    assert link.resolve() == finished.points[1]["manipulate"].run_dir(tmp_path).path
    assert (view / "edit.gamma=1" / "train_ldm").resolve() == (view / "edit.gamma=2" / "train_ldm").resolve()
    assert (view / "report" / "result.txt").exists()
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    assert (moved / "views" / "cfg_gamma" / "report" / "result.txt").exists(), "the store may be moved"


def test_a_launch_is_found_by_sweep_and_by_run(
    points: list[Config], finished: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["sweep=cfg_gamma"], ["sweep=cfg_gamma", "edit.gamma=1,2"]):
        views.record_launch(tmp_path, points, words, finished.graph)
    launch = views.find_launch("cfg_gamma", tmp_path)
    assert launch["argv"] == ["sweep=cfg_gamma", "edit.gamma=1,2"] and launch["cwd"] == str(Path.cwd())
    assert len((tmp_path / "runs" / "launches.jsonl").read_text().splitlines()) == 2
    run = finished.points[0]["manipulate"].run_dir(tmp_path).path
    assert views.find_launch(str(run), tmp_path) == launch
    assert views.find_launch(str(run / "parts" / "0001"), tmp_path) == launch
    monkeypatch.chdir(tmp_path)
    assert views.find_launch(str(run.relative_to(tmp_path)), tmp_path) == launch
    assert {node["name"] for node in launch["nodes"]} == {node.name for node in finished.graph.nodes}
    with pytest.raises(UserError, match=r"other is neither a sweep nor a run folder .*: sweeps there are cfg_gamma\."):
        views.find_launch("other", tmp_path)
    with pytest.raises(UserError, match="none was launched here"):
        views.find_launch("other", tmp_path / "empty")


def test_rerun_of_one_run_forgets_that_run(
    points: list[Config],
    finished: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    views.record_launch(tmp_path, points, ["sweep=cfg_gamma", "watch=true"], finished.graph)
    said: list[list[str]] = []

    def collected(words: list[str]) -> list[Config]:
        said.append(words)
        return points

    monkeypatch.setattr(compose, "collect", collected)
    monkeypatch.setattr(Session, "launch", lambda session: len(session.decide().elements(Action.run)))
    reduces = [finished.points[i]["reduce"] for i in (0, 1)]
    for node in reduces:
        (node.run_dir(tmp_path).path / "out" / "result.txt").unlink()
    # Relative to where one stands, not to the store.
    monkeypatch.chdir(tmp_path.parent)
    target = reduces[0].run_dir(tmp_path).path.relative_to(tmp_path.parent)
    words = [str(target), "--store", str(tmp_path), "watch=false"]
    assert rerun.main(words) == 2, "that run and the report"
    ((first, *others),) = said
    assert first == "sweep=cfg_gamma" and "watch=false" in others and "watch=true" not in others
    out = capsys.readouterr().out
    assert f"again: {reduces[0].name}" in out and reduces[1].name not in out
    assert rerun.main(["nothing", "--store", str(tmp_path)]) == 2
    assert "neither a sweep nor a run folder" in capsys.readouterr().err


def test_the_record_of_launches_is_lines_of_json(points: list[Config], finished: Session, tmp_path: Path) -> None:
    views.record_launch(tmp_path, points, [], finished.graph)
    (line,) = (tmp_path / "runs" / "launches.jsonl").read_text().splitlines()
    assert {"when", "who", "argv", "cwd", "commit", "sweep", "nodes"} == json.loads(line).keys()
