"""Files are whole or absent, whatever ends the writer."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from affect_hpc.core import io

WRITE_HALF_AND_DIE = """
import os, signal, sys
from pathlib import Path
from affect_hpc.core.io import writing_file, writing_folder
target = Path(sys.argv[2])
with {"file": writing_file, "folder": writing_folder}[sys.argv[1]](target) as aside:
    (aside / "part" if aside.is_dir() else aside).write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_writer_leaves_no_target_and_blocks_nobody(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "deep" / "target"
    died = subprocess.run([sys.executable, "-c", WRITE_HALF_AND_DIE, kind, str(target)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert not target.exists()
    if kind == "file":
        io.write_bytes(target, b"whole")
        assert target.read_bytes() == b"whole"
    else:
        with io.writing_folder(target) as aside:
            (aside / "part").write_bytes(b"whole")
        assert [path.name for path in target.iterdir()] == ["part"]


def test_a_failing_writer_keeps_the_old_content_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "file"
    io.write_text(target, "old")
    with pytest.raises(RuntimeError), io.writing_file(target) as aside:
        aside.write_text("ne")
        assert target.read_text() == "old", "nothing shows before the end"
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for content in ("first", "second"):
        with io.writing_folder(target) as aside:
            (aside / content).write_text(content)
    with pytest.raises(RuntimeError), io.writing_folder(target) as aside:
        (aside / "third").write_text("third")
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [target]


def test_json_round_trip_and_no_infinities(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    content = {"b": [1, 2.5, None, "ä"], "a": {"nested": True}}
    io.write_json(path, content)
    assert io.read_json(path) == content
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        io.write_json(path, {"loss": float("nan")})
    assert path.read_bytes() == before
    assert io.read_json_if_there(tmp_path / "none.json") is None


def _append(path: Path, writer: int, count: int) -> None:
    for number in range(count):
        io.append_line(path, json.dumps({"writer": writer, "number": number, "filling": "x" * 700}))


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    path, count = tmp_path / "lines.jsonl", 200
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append, args=(path, writer, count)) for writer in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for writer in range(4):
        assert [line["number"] for line in lines if line["writer"] == writer] == list(range(count))


def test_manifest_lists_every_file_by_content(tmp_path: Path) -> None:
    io.write_text(tmp_path / "a" / "b.txt", "abc")
    io.write_text(tmp_path / "c", "")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert io.manifest_of(tmp_path) == {"a/b.txt": {"bytes": 3, "sha256": abc}, "c": {"bytes": 0, "sha256": empty}}


def test_files_are_readable_by_others_of_the_group(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        io.write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
