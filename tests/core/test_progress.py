"""Progress: its arithmetic, its words and its file."""

import json
from pathlib import Path

import pytest

from affect_hpc.core import progress as module
from affect_hpc.core.progress import PROGRESS_FILE, Progress, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    watch = Clock()
    monkeypatch.setattr(module, "time", watch)
    monkeypatch.delenv(PROGRESS_FILE, raising=False)
    return watch


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (42.4, "42s"), (59.6, "1m00s"), (187, "3m07s"), (3600, "1h00m"), (7530, "2h05m"), (90061, "25h01m")],
)
def test_duration_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rate_and_eta_count_this_attempt_only(clock: Clock) -> None:
    with Progress("train_ldm", 1000, "sample", start=400) as progress:
        clock.now += 10
        progress.advance(200, loss=0.12345)
        line = progress.line({"loss": 0.12345})
    # 200 samples in 10 s are 20 a second; 400 are left.
    assert line == "train_ldm 600/1000 samples (60 %)  20 samples/s  ETA 20s  loss 0.1235"


def test_nothing_done_yet_divides_by_nothing(clock: Clock) -> None:
    assert "(0 %)" in Progress("x", 0, "face").line({})


def test_lines_of_a_log_are_rare_and_the_last_one_is_final(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("draw", 100, "face") as progress:
        for _ in range(100):
            clock.now += 0.25
            progress.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3, "one each 10 s of 25 s, and the end"
    assert lines[-1] == "draw 100/100 faces in 25s, 4 faces/s"


def test_others_read_the_progress_from_its_file(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    monkeypatch.setenv(PROGRESS_FILE, str(path))
    with Progress("draw", 4, "face") as progress:
        assert json.loads(path.read_text())["done"] == 0
        clock.now += 1
        progress.advance(3)
        said = {"label": "draw", "done": 3, "total": 4, "line": progress.line({})}
        assert json.loads(path.read_text()) == said


def test_a_full_disk_stops_no_progress(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRESS_FILE, "/proc/no/such/place.json")
    with Progress("draw", 1, "face") as progress:
        clock.now += 1
        progress.advance(1)
    assert progress.done == 1
