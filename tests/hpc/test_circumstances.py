"""What DONE tells of the code, the machine and the time of an element."""

import os
import subprocess
from pathlib import Path

import pytest

from affect_hpc.core.io import read_json, write_json
from affect_hpc.core.rundir import Outcome, PartDir
from affect_hpc.hpc import circumstances


def git(folder: Path, *words: str) -> str:
    said = subprocess.run(
        ["git", "-C", folder, "-c", "user.name=n", "-c", "user.email=e@x", *words], capture_output=True, check=True
    )
    return said.stdout.decode().strip()


def test_the_commit_of_a_checkout_says_whether_its_files_are_the_commits(tmp_path: Path) -> None:
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert circumstances.commit(package) is None, "no git there"
    git(package.parent, "init", "-q")
    assert circumstances.commit(package) is None, "git does not know the file"
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-qm", "one")
    head = git(package.parent, "rev-parse", "HEAD")
    assert circumstances.commit(package) == head
    (package.parent / "notes.txt").write_text("beside the package")
    assert circumstances.commit(package) == head
    (package / "more.py").write_text("x = 1")
    assert circumstances.commit(package) == f"{head}+changes"


def test_an_unpacked_archive_is_the_commit_that_it_is_named_by(tmp_path: Path) -> None:
    package = tmp_path / "runs" / circumstances.ARCHIVES / "0123abcd" / "affect_hpc"
    package.mkdir(parents=True)
    assert circumstances.commit(package) == "0123abcd"


def test_the_processor_is_told_by_its_model_where_the_kernel_names_one(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text(
        "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor\t: 1\nmodel name\t: Some CPU @ 2 GHz\n"
    )
    assert circumstances.cpu_name(told) == "Some CPU @ 2 GHz"
    told.write_text("processor\t: 0\n")
    assert circumstances.cpu_name(told) == os.uname().machine


def test_ranks_are_counted_as_the_launcher_of_the_job_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in circumstances.WORLDS:
        monkeypatch.delenv(name, raising=False)
    assert circumstances.of_element()["ranks"] == 1
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert circumstances.of_element()["ranks"] == 8


def test_done_counts_the_seconds_of_attempts_that_were_stopped_or_killed(tmp_path: Path) -> None:
    place = PartDir(tmp_path / "run")
    for stopped in (True, False):  # the second one is killed
        place.begin_attempt()
        began = read_json(place.path / "attempts.json")["began"]
        write_json(place.progress, {})
        os.utime(place.progress, (began + 100, began + 100))
        if stopped:
            place.take_back_attempt()
    place.begin_attempt()
    place.aside().mkdir()
    place.finish(place.aside(), Outcome(), 7.0, {"code": "abc"})
    done = place.done()
    assert done["seconds"] == 7.0 and abs(done["spent"] - 207) < 1
    assert done["code"] == "abc" and place.attempts() == 2
