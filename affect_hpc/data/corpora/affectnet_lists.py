"""What AffectNet's lists say of its images, in the two forms in which its owners have shipped it.

csv (2017): ``Manually_Annotated_Images/<number>/<file>`` and a line for each image in training.csv and validation.csv.
npy (later): ``train_set`` and ``val_set``, each with ``images/<n>.jpg`` and ``annotations/<n>_exp.npy`` and its kin.
"""

import csv
import itertools
import math
import os
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from affect_hpc.config.corpora import AffectNetLayout
from affect_hpc.config.files import PHOTOS, shown
from affect_hpc.core.errors import UserError
from affect_hpc.data.media import BadFileError, reason_of

SPLITS: Mapping[str, tuple[str, str]] = {"train": ("training.csv", "train_set"), "val": ("validation.csv", "val_set")}
"""Our split -> the list of the csv layout, the folder of the npy layout."""
LIST_PLACES = ("Manually_Annotated_file_lists", "")
IMAGE_PLACES = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", "Manually_Annotated")
"""Below the root, the first one that is there."""
COLUMNS = (
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"),
    *("facial_landmarks", "expression", "valence", "arousal"),
)
"""Also the order of editions whose lists have no header."""
EXPRESSIONS = (
    *("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt"),
    *("none", "uncertain", "no-face"),
)
"""AffectNet's classes by their number."""
LABEL_OF: Mapping[int, int] = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7}
"""AffectNet's number -> our emotion id; none, uncertain and no-face have none and are not used."""
NOT_GIVEN = -2.0
"""Valence and arousal of images without any."""
LANDMARK_NUMBERS = 136


@dataclass(frozen=True, slots=True)
class Annotation:
    """What the corpus says of an image."""

    expression: int
    """AffectNet's number, 0..10."""
    valence: float | None = None
    arousal: float | None = None
    """Each in [-1, 1]."""
    landmarks: "array[float] | None" = None
    """x0, y0, x1, ... of 68 points, in px of the image; None for images that are not used."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, width, height of the face in px of the image."""

    @property
    def label(self) -> int | None:
        """Our emotion id; None for images that are not used."""
        return LABEL_OF.get(self.expression)


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of a split."""

    name: str
    """As its list has it; the same wherever the images lie."""
    path: str
    """Relative to the root, with slashes."""
    annotation: Annotation | None
    """None: it lies in files of its own, which ``annotation_of`` reads."""
    again: bool = False
    """Whether an earlier row, of this split or of train, names the same image."""

    @property
    def is_used(self) -> bool:
        """Whether a face is expected of it, as far as the list tells."""
        return not self.again and (self.annotation is None or self.annotation.label is not None)


def find_layout(root: Path, wanted: AffectNetLayout) -> AffectNetLayout:
    """The layout that is there, csv or npy.

    Raises:
        UserError: the folder is absent, shows neither or both, or lacks what the layout asks for.
    """
    if not root.is_dir():
        raise UserError(f"data.root={shown(root)} is no folder: give the folder that AffectNet was unpacked into.")
    if wanted is AffectNetLayout.auto:
        marks = {
            AffectNetLayout.csv: any(_list(root, split) for split in SPLITS) or _images(root) is not None,
            AffectNetLayout.npy: any((root / folder).is_dir() for _, folder in SPLITS.values()),
        }
        if all(marks.values()):
            raise UserError(
                f"data.root={shown(root)} holds AffectNet in both layouts: choose one with data.layout=csv or"
                " data.layout=npy."
            )
        wanted = next((layout for layout, there in marks.items() if there), AffectNetLayout.auto)
    if wanted is AffectNetLayout.csv:
        missing = [name for split, (name, _) in SPLITS.items() if not _list(root, split)]
        missing += [] if _images(root) else [f"{IMAGE_PLACES[0]}/"]
    else:
        needed = [f"{folder}/{part}" for _, folder in SPLITS.values() for part in ("images", "annotations")]
        missing = [place for place in needed if not (root / place).is_dir()]
    if missing:
        there = ", ".join(sorted(path.name for path in root.iterdir() if not path.name.startswith("."))[:10])
        lacks = f"lacks {', '.join(missing)}" if wanted is not AffectNetLayout.auto else "shows neither layout"
        raise UserError(
            f"data.root={shown(root)} {lacks} (it holds {shown(there) or 'nothing'}): AffectNet of 2017 has"
            f" {IMAGE_PLACES[0]}/ and, beside it or in {LIST_PLACES[0]}/, training.csv and validation.csv; the later"
            " one has train_set/ and val_set/, each with images/ and annotations/."
        )
    return wanted


def read_pictures(root: Path, layout: AffectNetLayout) -> dict[str, list[Picture]]:
    """Split -> its images in the order of its list (npy: of their names). Opens no image.

    Raises:
        UserError: a list cannot be read, or says what it may not (names file and row), or has no image to be used.
    """
    found: dict[str, list[Picture]] = {}
    names: set[str] = set()
    for split in SPLITS:
        if layout is AffectNetLayout.npy:
            place = root / SPLITS[split][1] / "images"
            found[split] = list(_npy_pictures(root, split))
        else:
            images, path = _images(root), _list(root, split)
            assert images is not None and path is not None, "find_layout has seen both"
            place = path
            found[split] = list(_csv_pictures(path, images.relative_to(root).as_posix(), names))
        if not any(picture.is_used for picture in found[split]):
            raise UserError(f"{shown(place)} names no image of AffectNet's eight emotions: unpack or copy it again.")
    return found


def annotation_of(root: Path, picture: Picture) -> Annotation:
    """What the corpus says of an image.

    Raises:
        BadFileError: an annotation of the npy layout is absent or damaged.
        UserError: it says what it may not.
    """
    if picture.annotation is not None:
        return picture.annotation
    image = PurePosixPath(picture.path)
    stem = root / image.parent.parent / "annotations" / image.stem
    expression = read_expression(_scalar(f"{stem}_exp.npy"), f"{stem}_exp.npy")
    if expression not in LABEL_OF:
        return Annotation(expression)
    valence, arousal = (read_number(_scalar(path), path) for path in (f"{stem}_val.npy", f"{stem}_aro.npy"))
    points = array("f", _array(f"{stem}_lnd.npy", np.float32).ravel())
    return Annotation(expression, *_given(valence, arousal), landmarks=_complete(points, f"{stem}_lnd.npy"))


def read_expression(value: object, where: str) -> int:
    """AffectNet's number of a class; UserError where it has no such class.

    Args:
        value: as text or number.
        where: file, and row of a list.
    """
    text = str(value).strip()
    if text.isascii() and text.isdigit() and int(text) < len(EXPRESSIONS):
        return int(text)
    known = ", ".join(f"{number} {name}" for number, name in enumerate(EXPRESSIONS))
    raise UserError(f"{shown(where)}: the expression {text!r} is no class of AffectNet: the valid ones are {known}.")


def read_number(value: object, where: str) -> float:
    """A finite number; UserError where it is none."""
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{shown(where)}: {str(value)!r} is no number: mend or remove that entry.")
    return number


def _csv_pictures(path: Path, images: str, names: set[str]) -> Iterator[Picture]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = csv.reader(handle)
            first = [cell.strip() for cell in next(rows, [])]
            has_header = any(cell in COLUMNS for cell in first)
            place = _places(first if has_header else list(COLUMNS), path)
            for row in itertools.chain([] if has_header else [first], rows):
                if not row:
                    continue
                where = f"{path}, row {rows.line_num}"
                if len(row) <= max(place.values()):
                    raise UserError(
                        f"{shown(where)} has {len(row)} columns: a row of AffectNet holds {', '.join(COLUMNS)}."
                    )
                cells = {name: row[column] for name, column in place.items()}
                name = cells["subDirectory_filePath"].strip()
                yield Picture(name, f"{images}/{name}", _csv_annotation(cells, where), again=name in names)
                names.add(name)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{shown(path)} cannot be read ({reason_of(error)}): unpack or copy it again.") from None


def _places(header: list[str], path: Path) -> dict[str, int]:
    absent = [name for name in COLUMNS if name not in header]
    if absent:
        raise UserError(
            f"{shown(path)} has no column {' and no column '.join(absent)}, but {', '.join(header)}: use AffectNet's"
            " own list."
        )
    return {name: header.index(name) for name in COLUMNS}


def _csv_annotation(row: Mapping[str, str], where: str) -> Annotation:
    expression = read_expression(row["expression"], where)
    if expression not in LABEL_OF:
        return Annotation(expression)
    left, top, width, height = (round(read_number(row[name], where)) for name in COLUMNS[1:5])
    points = array("f")
    text = row["facial_landmarks"].strip().strip(";")
    try:
        points.extend(map(float, text.split(";") if text else ()))
    except ValueError as error:
        raise UserError(f"{shown(where)}: a landmark is no number ({error}): mend or remove that row.") from None
    valence, arousal = read_number(row["valence"], where), read_number(row["arousal"], where)
    return Annotation(
        expression, *_given(valence, arousal), landmarks=_complete(points, where), box=(left, top, width, height)
    )


def _given(valence: float, arousal: float) -> tuple[float | None, float | None]:
    return (None if valence == NOT_GIVEN else valence, None if arousal == NOT_GIVEN else arousal)


def _complete(points: "array[float]", where: str) -> "array[float]":
    if len(points) != LANDMARK_NUMBERS or not all(map(math.isfinite, points)):
        raise UserError(
            f"{shown(where)} has {sum(map(math.isfinite, points))} numbers as landmarks, not {LANDMARK_NUMBERS} (x and"
            " y of 68 points): mend or remove that entry."
        )
    return points


def _npy_pictures(root: Path, split: str) -> Iterator[Picture]:
    folder = f"{SPLITS[split][1]}/images"
    with os.scandir(root / folder) as entries:
        names = [entry.name for entry in entries if os.path.splitext(entry.name)[1].lower() in PHOTOS]
    for name in sorted(names, key=os.fsencode):
        yield Picture(f"{folder}/{name}", f"{folder}/{name}", None)


def _scalar(path: str) -> object:
    values = _array(path)
    if values.size != 1:
        raise BadFileError(f"has the annotation {shown(Path(path).name)} with {values.size} values instead of one")
    value = values.reshape(()).item()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _array(path: str, dtype: type[np.generic] | None = None) -> "np.ndarray[Any, Any]":
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype)
    except (OSError, ValueError, EOFError) as error:
        raise BadFileError(f"has no usable annotation {shown(Path(path).name)} ({reason_of(error)})") from None


def _list(root: Path, split: str) -> Path | None:
    places = (root / place / SPLITS[split][0] for place in LIST_PLACES)
    return next((path for path in places if path.is_file()), None)


def _images(root: Path) -> Path | None:
    return next((root / place for place in IMAGE_PLACES if (root / place).is_dir()), None)
