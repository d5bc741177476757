"""Run folders: shares of work, the markers of an element, and a divided run as a whole."""

import os
from pathlib import Path

import pytest

from affect_hpc.core.io import write_json, write_text
from affect_hpc.core.rundir import Inputs, Outcome, PartDir, RunDir, Workplace, process_is_alive


@pytest.mark.parametrize("count", [0, 1, 7, 8, 100])
@pytest.mark.parametrize("parts", [1, 2, 3, 8, 11])
def test_shares_cut_the_work_without_gap_or_overlap(count: int, parts: int) -> None:
    shares = [Workplace(Path(), Path(), part, parts).slice(count) for part in range(parts)]
    assert [unit for share in shares for unit in share] == list(range(count))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def _finish(place: PartDir, text: str) -> None:
    write_text(place.aside() / "file", text)
    place.finish(place.aside(), Outcome({"loss": 0.5}), 2.04)


def test_finish_turns_the_aside_into_out_with_its_manifest(tmp_path: Path) -> None:
    place = PartDir(tmp_path)
    place.fail("oh", "error")
    _finish(place, "one")
    assert place.is_done() and place.is_intact() and place.failure() is None
    assert not place.aside().exists()
    done = place.done()
    assert list(done["outputs"]) == ["file"] and done["outputs"]["file"]["bytes"] == 3
    assert done["summary"] == {"loss": 0.5} and done["seconds"] == 2.0
    _finish(place, "twice")
    assert (place.out / "file").read_text() == "twice"


def test_damage_is_seen(tmp_path: Path) -> None:
    place = PartDir(tmp_path)
    assert not place.is_intact(), "nothing is there yet"
    _finish(place, "content")
    (place.out / "file").write_text("cont")
    assert not place.is_intact()
    (place.out / "file").unlink()
    assert not place.is_intact() and place.is_done()


def test_attempts_count_failures_and_crashes_but_no_stops(tmp_path: Path) -> None:
    place = PartDir(tmp_path)
    assert place.attempts() == 0
    place.begin_attempt()
    place.begin_attempt()
    assert place.attempts() == 2
    place.take_back_attempt()
    assert place.attempts() == 1
    place.forget()
    place.take_back_attempt()
    assert place.attempts() == 0


def test_forget_keeps_checkpoints_and_outputs(tmp_path: Path) -> None:
    place = PartDir(tmp_path)
    _finish(place, "x")
    write_text(place.keep / "step_5" / "state", "state")
    place.record_job({"executor": "local"})
    place.forget()
    assert not place.is_done() and place.job() is None
    assert (place.keep / "step_5" / "state").exists() and (place.out / "file").exists()


def test_a_divided_run_is_done_when_all_its_parts_are(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "runs" / "evaluate" / "abc")
    assert run.name == "evaluate/abc" and run.spec() is None
    write_json(run.path / "spec.json", {"parts": 3})
    assert [place.path.name for place in run.parts()] == ["0000", "0001", "0002"]
    for number, place in enumerate(run.parts()):
        assert not run.settle()
        write_text(place.aside() / "file", "x")
        place.finish(place.aside(), Outcome(), number)
    assert run.settle() and run.is_done()
    assert run.outputs() == tuple(place.path / "out" for place in run.parts())


def test_a_run_without_parts_is_its_own_element(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "abc")
    write_json(run.path / "spec.json", {"parts": 1})
    assert [place.path for place in run.parts()] == [run.path]
    assert not run.settle()
    _finish(run.parts()[0], "x")
    assert run.settle()


def test_roles_hold_one_or_many_folders() -> None:
    inputs = Inputs({"shards": (Path("a"),), "states": (Path("b"), Path("c"))})
    assert inputs.one("shards") == Path("a") and inputs.many("states") == (Path("b"), Path("c"))
    assert inputs.many("referee") == ()
    with pytest.raises(ValueError, match="too many"):
        inputs.one("states")


def test_a_process_is_known_by_number_and_word() -> None:
    word = Path(f"/proc/{os.getpid()}/cmdline").read_bytes().decode().split("\0")[0]
    assert process_is_alive(os.getpid(), word)
    assert not process_is_alive(os.getpid(), "another program")
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert not process_is_alive(child, ""), "a zombie does no work"
    os.waitpid(child, 0)
    assert not process_is_alive(child, "")
