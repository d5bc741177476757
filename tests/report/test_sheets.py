"""Where a contact sheet puts its faces, and which faces it chooses."""

import io

import numpy as np
import pytest
from PIL import Image

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.data.shards import Entry
from affect_hpc.report import sheets
from affect_hpc.report.gallery import choose
from affect_hpc.report.sheets import Cell, Column, contact_sheet


def flat(size: int, colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((size, size, 3), colour, np.uint8)


@pytest.mark.parametrize(("size", "side"), [(64, 128), (100, 200), (128, 128), (224, 224)])
def test_faces_are_enlarged_by_whole_numbers_and_stand_in_their_place(size: int, side: int) -> None:
    rows = [[Cell(flat(size, (255, 0, 0))), Cell(flat(size, (0, 255, 0)))], [Cell(None), Cell(flat(size, (0, 0, 255)))]]
    sheet = contact_sheet([Column("a"), Column("b")], ["", ""], rows)
    left, top = sheets.MARGIN, sheets.MARGIN + sheets.HEAD
    step = side + sheets.GAP
    assert sheet.getpixel((left, top)) == (255, 0, 0)
    assert sheet.getpixel((left + step + side - 1, top + side - 1)) == (0, 255, 0)
    assert sheet.getpixel((left + step, top + step)) == (0, 0, 255)
    assert sheet.getpixel((left + side // 2, top + step + side // 2)) == (255, 255, 255)
    grid = 2 * sheets.MARGIN + 2 * step - sheets.GAP
    assert sheet.size == (grid, grid + sheets.HEAD)


def test_png_keeps_every_pixel() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    sheet = contact_sheet([Column("x", "y")], ["row"], [[Cell(noise, "happy", True)]])
    with Image.open(io.BytesIO(sheets.png_bytes(sheet))) as again:
        left, top = sheets.MARGIN + sheets.LABEL, sheets.MARGIN + sheets.HEAD
        assert np.array_equal(np.asarray(again)[top : top + 128, left : left + 128], noise)


def sample(key: str, emotion: str, identity: str) -> Entry:
    return Entry(key, {"label": EMOTIONS.index(emotion), "identity": identity}, {})


def test_choice_takes_each_label_in_turn_and_new_people_first() -> None:
    samples = [
        sample("a", "sad", "1"),
        sample("b", "happy", "2"),
        sample("c", "sad", "1"),
        sample("d", "angry", "1"),
        sample("e", "sad", "3"),
        sample("f", "neutral", "4"),
    ]
    chosen = [one.key for one in choose(samples, "happy", 9)]
    assert chosen == ["f", "a", "d", "e", "c"]
    assert [one.key for one in choose(samples, "happy", 2)] == ["f", "a"]
