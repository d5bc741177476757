"""The command that inspects shards: what it prints, draws and returns."""

import importlib.util
import io
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from made_shards import HELD_OUT, clip, face, write, write_set
from PIL import Image

from affect_hpc.core.errors import UserError
from affect_hpc.data.codec import encode_npy
from affect_hpc.data.inspection import inspect
from affect_hpc.data.shard_check import Report
from affect_hpc.data.shards import ShardWriter

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_set(tmp_path)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("inspect_shards", ROOT / "tools" / "inspect_shards.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_command_says_what_it_found(shards: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([str(shards)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "val: 4 samples  neutral 1  happy 1  sad 1  surprised 1"
    assert lines[-1].startswith("0 faults in 3 shards, 12 samples, 36 members, ")
    write(shards / "val", "shard-00000", [face(8, label=9)])
    assert tool.main([str(shards), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["faults"] == [
        {"shard": HELD_OUT, "member": "face-008", "reason": "has the label 9: labels are 0 to 7"}
    ]
    assert report["samples"] == 9 and report["counts"]["val"] == {"unlabelled": 1}


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        *(
            (name, f"{name} is no folder: shards are read")
            for name in ("pipe:cat x.tar", "s3://b", "gs://b", "http://a/b")
        ),
        ("absent", "absent is no folder: give one with"),
        ("empty", r"empty holds no \*\.tar at any depth"),
    ],
)
def test_wrong_use_is_one_sentence(
    tmp_path: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str], folder: str, sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    given = folder if ":" in folder else str(tmp_path / folder)
    assert tool.main([given]) == 2
    with pytest.raises(UserError, match=sentence):
        inspect(given)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_sheet_shows_the_chosen_faces(shards: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    report: Report = inspect(shards)
    drawn = list(tool.samples(shards, report, 4))
    # Four of twelve: every third one.
    assert [sample.label for sample in drawn] == ["neutral", "surprised", "angry", "happy"]
    pictures = [np.asarray(Image.open(io.BytesIO(sample.pictures["png"]))) for sample in drawn]
    assert all(np.array_equal(image, face(i).image) for image, i in zip(pictures, (0, 3, 6, 9), strict=True))
    assert tool.main([str(shards), "--sheet", str(shards / "sheet.png"), "--samples", "12"]) == 0
    assert tool.main([str(shards), "--sheet", str(shards / "sheet.png"), "--samples", "0"]) == 2
    assert "--samples 0 draws nothing" in capsys.readouterr().err


def test_clips_are_drawn_as_rows_of_frames(tmp_path: Path, tool: ModuleType) -> None:
    write(tmp_path, "shard", [clip(i) for i in (0, 3, 30)])
    drawn = list(tool.samples(tmp_path, inspect(tmp_path), 64))
    rows = [tool.frames_of(sample) for sample in drawn]
    assert rows[0] == ["000000.png", "000001.png"] and len(rows[1]) == 5
    assert len(rows[2]) == tool.FRAMES_IN_A_ROW and rows[2][:3] == ["000000.png", "000002.png", "000005.png"]
    sheet = np.asarray(Image.open(io.BytesIO(tool.draw(drawn))))
    frame = np.asarray(Image.fromarray(clip(0).frames[1]).resize((128, 128), Image.Resampling.BICUBIC))
    assert any(np.array_equal(sheet[66:194, left : left + 128], frame) for left in range(sheet.shape[1] - 128))


def test_a_sheet_of_no_pictures_is_refused(tmp_path: Path, tool: ModuleType) -> None:
    with ShardWriter(tmp_path, "latents") as writer:
        writer.write("x", {"npy": encode_npy(np.zeros(3))}, {"label": 0})
    assert tool.main([str(tmp_path), "--sheet", str(tmp_path / "sheet.png")]) == 2
