"""Contact sheets: faces side by side, large enough to see what an edit did, with the judge's verdict below each."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from affect_hpc.data.codec import UInt8Image

CELL = 128
"""Smallest side of a face on a sheet, in pixels: smaller faces are enlarged to it."""
GAP, MARGIN, LABEL, HEAD, STRIP = 8, 20, 104, 46, 22
PAPER, INK, QUIET, GOOD, LINE = "#ffffff", "#22262b", "#7d858d", "#1d8a5f", "#d5dadf"


@dataclass(frozen=True)
class Cell:
    """One face of a sheet."""

    image: UInt8Image | None
    """(H, W, 3); None leaves the place empty."""
    verdict: str = ""
    """Emotion that the judge saw, or empty."""
    good: bool = False
    """Whether that is the wanted one."""


@dataclass(frozen=True)
class Column:
    """Head of a column, in one or two lines."""

    title: str
    note: str = ""


def contact_sheet(columns: Sequence[Column], labels: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """A grid of faces.

    Args:
        columns: one head per column.
        labels: what stands left of each row.
        rows: cells of each row, as many as columns.
    """
    side = _side(rows)
    strip = STRIP if any(cell.verdict for row in rows for cell in row) else 0
    left = MARGIN + (LABEL if any(labels) else 0)
    width = left + len(columns) * (side + GAP) - GAP + MARGIN
    height = MARGIN + HEAD + len(rows) * (side + strip + GAP) - GAP + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for j, column in enumerate(columns):
        middle = left + j * (side + GAP) + side / 2
        draw.text((middle, MARGIN + 12), column.title, INK, _font(16, bold=True), anchor="mm")
        draw.text((middle, MARGIN + 31), column.note, QUIET, _font(12), anchor="mm")
    for i, (label, row) in enumerate(zip(labels, rows, strict=True)):
        top = MARGIN + HEAD + i * (side + strip + GAP)
        draw.text((MARGIN, top + side / 2), label, INK, _font(15), anchor="lm")
        for j, cell in enumerate(row):
            _paste(sheet, draw, cell, (left + j * (side + GAP), top), side)
    return sheet


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, corner: tuple[int, int], side: int) -> None:
    x, y = corner
    if cell.image is None:
        draw.rectangle((x, y, x + side - 1, y + side - 1), outline=LINE)
        return
    face = Image.fromarray(cell.image)
    sheet.paste(face if face.size == (side, side) else face.resize((side, side), Image.Resampling.BICUBIC), corner)
    if cell.verdict:
        colour = GOOD if cell.good else QUIET
        draw.text((x + side / 2, y + side + STRIP / 2 - 1), cell.verdict, colour, _font(12, cell.good), anchor="mm")


def _side(rows: Sequence[Sequence[Cell]]) -> int:
    """Side of all cells: a whole multiple of the faces' own, at least ``CELL``."""
    own = max(int(cell.image.shape[0]) for row in rows for cell in row if cell.image is not None)
    return own * -(-CELL // own)


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # The font that comes with matplotlib: on every machine the same.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / name, size)


def png_bytes(sheet: Image.Image) -> bytes:
    """The sheet without loss."""
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def jpeg_bytes(sheet: Image.Image) -> bytes:
    """The sheet as shown within the page: a tenth of the bytes, no visible difference."""
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()
