"""A rank that stands still is named with its place, and the job ends."""

import threading
from pathlib import Path

import pytest

from affect_hpc.core.rundir import PartDir
from affect_hpc.train.watchdog import EXIT_HANGS, Watchdog, report_to


def watched(least_s: float) -> tuple[Watchdog, list[str], list[int], threading.Event]:
    said: list[str] = []
    ended: list[int] = []
    over = threading.Event()

    def end(code: int) -> None:
        ended.append(code)
        over.set()

    return Watchdog(1, 2, least_s, said.append, end), said, ended, over


def stand_still(over: threading.Event) -> None:
    assert over.wait(60), "the watchdog ends it"


def test_a_step_that_does_not_end_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    watchdog, said, ended, over = watched(0.05)
    with watchdog:
        for _ in range(3):
            watchdog.step_done()
        stand_still(over)
    assert ended == [EXIT_HANGS]
    assert said[0].startswith("rank 1 of 2 hangs at ") and "step 4 has taken" in said[0]
    assert "stand_still" in capfd.readouterr().err


def test_the_first_steps_have_time_and_slow_work_says_how_much() -> None:
    watchdog, said, _, _ = watched(0.01)
    with watchdog:
        threading.Event().wait(0.2)
        watchdog.step_done()
        with watchdog.during("the save after step"):
            threading.Event().wait(0.2)
    assert not said


def test_what_hangs_is_told_before_who_waits_for_it(tmp_path: Path) -> None:
    place = PartDir(tmp_path)
    report = report_to(place)
    report("rank 0 of 2 waits for another rank at comm.py:1")
    report("rank 1 of 2 hangs at train_ldm.py:5")
    report("rank 0 of 2 waits for another rank at comm.py:1")
    failure = place.failure()
    assert failure is not None and failure["message"] == "rank 1 of 2 hangs at train_ldm.py:5"
