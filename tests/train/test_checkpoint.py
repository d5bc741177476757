"""Saves that are cut short at every moment, full and read-only disks: nothing that was saved is ever lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from affect_hpc.core.errors import UserError
from affect_hpc.train import comm
from affect_hpc.train.checkpoint import Saver, is_good

ALONE = comm.Ranks()
EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "os.listdir", "os.scandir"}
"""What Python tells its audit hooks of the file system."""
SURVIVED, FAILED = 0, 3


def save_and_be_killed(folder: Path, at: int, background: bool) -> int:
    """A process saves and is killed at its ``at``-th file operation; how it ended."""
    process = os.fork()
    if not process:
        count = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event in EVENTS and str(folder) in str(arguments[0]):
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = FAILED
        try:
            saver = Saver(folder, ALONE, 1, background)
            sys.addaudithook(hook)
            saver.save(16, states(2.0))
            saver.wait()
            code = SURVIVED
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def states(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {"net": {"w": torch.full((1000,), value)}, "other": {"v": torch.full((3,), value + 1)}}


def content(folder: Path) -> tuple[int, float]:
    """Samples seen and value of the checkpoint that a new attempt takes up."""
    saver = Saver(folder, ALONE, 1)
    found = saver.latest()
    assert found is not None
    read = saver.read(found[0])
    assert torch.equal(read["net"]["w"] + 1, read["other"]["v"][0].expand(1000)), "all of one save"
    return found[1], float(read["net"]["w"][0])


@pytest.mark.parametrize("background", [False, True])
def test_a_save_killed_at_any_step_leaves_the_old_or_the_new_one(tmp_path: Path, background: bool) -> None:
    """One after the other every file operation of a save is the last one."""
    seen = set()
    for at in range(1, 60):
        folder = tmp_path / str(at)
        Saver(folder, ALONE, 1).save(8, states(1.0))
        ended = save_and_be_killed(folder, at, background)
        if ended == SURVIVED:
            assert content(folder) == (16, 2.0)
            break
        # In the background it is the writer that dies, and the training that hears of it.
        assert ended == (FAILED if background else -signal.SIGKILL)
        found = content(folder)
        assert found in {(8, 1.0), (16, 2.0)}
        seen.add(found[0])
        # The next attempt saves as if nothing had been.
        Saver(folder, ALONE, 1).save(16, states(2.0))
        assert content(folder) == (16, 2.0)
        left = {path.name for path in folder.iterdir()}
        assert left <= {"samples_000000000008", "samples_000000000016"}
    else:
        pytest.fail("a save takes more steps than this test looks at")
    assert seen == {8, 16}, "moments before and after the rename were met"


def test_what_is_written_in_the_background_is_the_state_as_it_stood(tmp_path: Path) -> None:
    saver = Saver(tmp_path, ALONE, 2, background=True)
    weights = torch.zeros(1_000_000)
    for step in range(1, 4):
        weights.fill_(step)
        saver.save(step, {"net": {"w": weights}, "other": {"v": weights[:3] + 1}})
        weights.fill_(-1.0)  # training goes on
    saver.wait()
    found = saver.latest()
    assert found is not None and found[1] == 3
    assert float(saver.read(found[0])["net"]["w"].min()) == 3.0
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == ["2", "3"]


def test_the_last_good_one_is_never_removed(tmp_path: Path) -> None:
    saver = Saver(tmp_path, ALONE, 1)
    saver.save(8, states(1.0))
    saver.save(16, states(2.0))
    assert [path.name[-2:] for path in tmp_path.iterdir()] == ["16"]
    file = tmp_path / "samples_000000000016" / "net.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert Saver(tmp_path, ALONE, 1).latest() is None
    saver.save(16, states(2.0))
    assert is_good(tmp_path / "samples_000000000016")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_is_one_sentence_and_loses_nothing(small_disk: Path, background: bool) -> None:
    saver = Saver(small_disk / "checkpoints", ALONE, 1, background)
    saver.save(8, states(1.0))
    saver.wait()
    with pytest.raises(UserError, match=r"checkpoints: No space left on device.*saved before is as it was"):
        saver.save(16, {"net": {"w": torch.zeros(1 << 20)}})
        saver.wait()
    assert content(small_disk / "checkpoints") == (8, 1.0)
    assert not list((small_disk / "checkpoints").glob("*.tmp")), "half a checkpoint does not fill the disk"


def test_a_read_only_disk_is_one_sentence_and_can_be_read(small_disk: Path) -> None:
    folder = small_disk / "checkpoints"
    Saver(folder, ALONE, 1).save(8, states(1.0))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match="Read-only file system"):
        Saver(folder, ALONE, 1).save(16, states(2.0))
    assert content(folder) == (8, 1.0)
