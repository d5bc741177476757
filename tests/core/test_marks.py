"""DONE knows no marks: another key, or none, makes no other result, and damage is seen all the same."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from affect_hpc.core.marks import BESIDE, manifest_without_marks, sha256_without_mark, size_without_mark
from affect_hpc.core.rundir import Outcome, PartDir
from affect_hpc.data.codec import encode_png
from affect_hpc.data.provenance import Signer, SyntheticFacts, mark, mark_shards

FACTS = SyntheticFacts("train_ldm/abc", edited=True, title="sheet")


def picture() -> bytes:
    return encode_png(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))


def filled(folder: Path, signer: Signer | None) -> Path:
    """Outputs of a stage: a picture, a shard and a text."""
    folder.mkdir(parents=True)
    (folder / "sheet.png").write_bytes(mark(picture(), "png", FACTS, signer) if signer else picture())
    (folder / "images.tar").write_bytes(b"tar")
    (folder / "table.csv").write_bytes(b"1,2")
    if signer:
        mark_shards(folder, FACTS, signer)
    return folder


def test_results_are_the_same_whoever_signs_and_unsigned(tmp_path: Path) -> None:
    places = []
    for name in ("none", "one", "other"):
        place = PartDir(tmp_path / name)
        filled(place.aside(), Signer.kept_in(tmp_path / f"key-{name}") if name != "none" else None)
        place.finish(place.aside(), Outcome(), 1.0)
        assert place.is_intact()
        places.append(place)
    outputs = [place.done()["outputs"] for place in places]
    assert outputs[0] == outputs[1] == outputs[2] and sorted(outputs[0]) == ["images.tar", "sheet.png", "table.csv"]
    marked = places[1].out
    assert (marked / f"images{BESIDE}").exists()
    assert (marked / "sheet.png").read_bytes() != (places[0].out / "sheet.png").read_bytes()


def test_a_marked_picture_that_is_damaged_or_cut_is_not_intact(tmp_path: Path) -> None:
    place = PartDir(tmp_path)
    filled(place.aside(), Signer.kept_in(tmp_path / "key"))
    place.finish(place.aside(), Outcome(), 1.0)
    sheet = place.out / "sheet.png"
    whole, told = sheet.read_bytes(), place.done()["outputs"]["sheet.png"]
    assert sha256_without_mark(sheet) == told["sha256"]
    sheet.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    assert size_without_mark(sheet) == told["bytes"] and sha256_without_mark(sheet) != told["sha256"]
    sheet.write_bytes(whole[:-100])
    assert not place.is_intact()
    sheet.unlink()
    assert not place.is_intact()


@pytest.mark.parametrize("content", [b"", b"no picture", picture()[:9], picture()[:50]])
def test_what_is_no_whole_picture_is_taken_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest_without_marks(tmp_path) == {"a.png": entry}
