"""The command that shows and fetches supplied weights, with files of this machine in place of the network's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from affect_hpc.config import packaged, supplied
from affect_hpc.config.supplied import SUPPLIED, SuppliedFile
from affect_hpc.core.io import read_json, sha256_file


@pytest.fixture
def tool(load_tool: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The command on a machine that has nothing yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("AFFECT_HPC_EXPERTS", str(tmp_path / "experts"))
    return load_tool("fetch_weights")


def publish(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Let ``path`` be what the address of network ``name`` gives."""
    file = SuppliedFile((SUPPLIED[name].files[0].names[0],), path.as_uri())
    monkeypatch.setitem(SUPPLIED, name, replace(SUPPLIED[name], files=(file,)))  # type: ignore[misc]


def test_the_list_tells_all_of_every_network(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([]) == 0
    said = capsys.readouterr().out
    for name in ("enet_b2_7", "enet_b2_8", "cosface", "ir_se50", "clip", "inception", "vgg16", "lpips", "lpips_vgg"):
        assert f"\n{name} " in f"\n{said}"
    assert said.count("absent: ") == len(tool.NAMES) == said.count("licence ") == said.count(" for ")
    assert str(supplied.expert_folder() / "cosface" / "backbone.pth") in said


def test_names_choose_and_unknown_ones_are_answered_with_the_known(
    tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["cosface"]) == 0
    assert "ir_se50" not in capsys.readouterr().out
    assert tool.main(["arcface"]) == 2
    assert "unknown network arcface: the valid names are enet_b2_7, enet_b2_8, cosface" in capsys.readouterr().err


def test_what_is_here_is_shown_with_its_digest_which_is_recorded(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "given" / "cosface" / "backbone.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    words = ["cosface", "--folder", str(tmp_path / "given")]
    assert tool.main(words) == 0
    assert f"here: {path}" in (said := capsys.readouterr().out) and sha256_file(path) in said
    assert read_json(path.parent / supplied.RECORD) == {"backbone.pth": sha256_file(path)}
    path.write_bytes(b"other weights")
    assert tool.main(words) == 1
    assert "cosface: " in (said := capsys.readouterr().err) and "has changed since its first use" in said


def test_a_download_lies_where_the_program_looks_and_happens_once(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source.pt"
    source.write_bytes(b"weights")
    publish(monkeypatch, "ir_se50", source)
    target = tmp_path / "experts" / "ir_se50" / "source.pt"
    monkeypatch.setattr(tool, "SUPPLIED", SUPPLIED)
    file = replace(SUPPLIED["ir_se50"].files[0], names=("source.pt",))
    monkeypatch.setitem(SUPPLIED, "ir_se50", replace(SUPPLIED["ir_se50"], files=(file,)))  # type: ignore[misc]
    assert tool.main(["--download", "ir_se50"]) == 0
    assert target.read_bytes() == b"weights" and "here: " in capsys.readouterr().out
    source.unlink()
    assert tool.main(["--download", "ir_se50"]) == 0


def test_a_pinned_file_of_the_hub_is_checked_as_it_comes(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source.pth"
    source.write_bytes(b"weights")
    name = "vgg16-397923af.pth"
    monkeypatch.setattr(tool, "HUB_URLS", {**tool.HUB_URLS, name: source.as_uri()})
    assert tool.main(["--download", "vgg16"]) == 1
    assert f"has SHA-256 {sha256_file(source)[:12]}... instead of 397923af" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*vgg16*"))
    for module in (tool, packaged):
        monkeypatch.setattr(module, "sha256_file", lambda _: "397923af" + "0" * 56)
    assert tool.main(["--download", "vgg16"]) == 0
    assert (packaged.hub_folder() / name).read_bytes() == b"weights"


def test_without_a_network_it_is_one_sentence_and_nothing_is_left(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(monkeypatch, "enet_b2_7", tmp_path / "nowhere.pt")
    assert tool.main(["--download", "enet_b2_7", "cosface"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "enet_b2_7: file:" in first and "cannot be fetched" in first and "by hand" in first
    assert "cosface: backbone.pth has no address to fetch it from: get it from insightface" in second
    assert not (tmp_path / "experts").exists()


def test_a_web_page_or_a_part_is_no_file(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    page.write_text("<html>log in first</html>")
    publish(monkeypatch, "enet_b2_7", page)
    assert tool.main(["--download", "enet_b2_7"]) == 1
    assert "gives a web page and no file" in capsys.readouterr().err
    whole = tmp_path / "whole.pt"
    whole.write_bytes(b"weights")
    publish(monkeypatch, "enet_b2_7", whole)
    monkeypatch.setattr(tool.shutil, "copyfileobj", lambda reply, handle: handle.write(reply.read(3)))
    assert tool.main(["--download", "enet_b2_7"]) == 1
    assert "cut off after 3 of 7 bytes" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*enet*") if path.is_file()]
