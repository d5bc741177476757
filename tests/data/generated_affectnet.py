"""A generated AffectNet in both layouts: its folders, names and lists, and one face whose place is known.

``python tests/data/generated_affectnet.py DIR --count 200 --layout csv`` writes one, to try a launch with
data=affectnet data.root=DIR. The face is the portrait of Eileen Collins (NASA, public domain) that scikit-image brings,
moved, turned and enlarged; it shows the same expression in every class, as only places and lists are tested with it.
"""

import argparse
import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from affect_hpc.config.corpora import AffectNetDataConfig
from affect_hpc.config.data import AlignConfig, OnBadFile
from affect_hpc.data.align import Box, landmark_box
from affect_hpc.data.corpora.source import UInt8Image

HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
SHARES = (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750, 33_088, 11_645, 82_415)
"""Of AffectNet's classes 0..10 in the list for training, as published."""
CLASSES = len(SHARES)
PATCH = (slice(20, 230), slice(130, 320))
"""Rows and columns of the portrait that are pasted into an image."""
# fmt: off
LANDMARKS: npt.NDArray[np.float64] = np.array([
    180, 104, 180, 115, 181, 126, 182, 138, 184, 150, 191, 160, 199, 168, 209, 176, 220, 179, 232, 177, 243, 171,
    253, 164, 261, 154, 265, 143, 268, 131, 270, 120, 272, 108, 187, 94, 192, 88, 201, 87, 209, 89, 217, 93, 236, 94,
    244, 91, 252, 91, 260, 93, 266, 99, 226, 102, 226, 111, 226, 119, 225, 128, 215, 131, 219, 133, 224, 135, 230, 133,
    235, 132, 195, 101, 201, 98, 207, 99, 213, 104, 206, 104, 200, 104, 238, 105, 244, 101, 250, 101, 256, 105,
    250, 106, 244, 106, 201, 140, 209, 139, 218, 140, 223, 141, 230, 140, 238, 140, 246, 141, 238, 151, 229, 155,
    222, 156, 216, 155, 208, 150, 204, 141, 217, 143, 223, 144, 230, 144, 243, 142, 229, 150, 223, 151, 217, 150,
], np.float64).reshape(68, 2)
# fmt: on
"""Of the portrait, in px: what dlib finds on it at two and three times its size agrees on them within 1 px."""


@dataclass(frozen=True)
class Place:
    """Where a face lies in an image."""

    x: float
    y: float
    """Centre of its landmarks, in px."""
    scale: float
    """Enlargement of the portrait, whose landmarks span 92 px."""
    degrees: float = 0
    """By how much it is turned clockwise."""

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """(2, 3): maps a point of the portrait to where it stands in the image."""
        angle = np.radians(self.degrees)
        turn = self.scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = (LANDMARKS.min(axis=0) + LANDMARKS.max(axis=0)) / 2
        return np.column_stack([turn, np.array([self.x, self.y]) - turn @ middle])

    @property
    def landmarks(self) -> npt.NDArray[np.float64]:
        """(68, 2) in px of the image."""
        return LANDMARKS @ self.matrix[:, :2].T + self.matrix[:, 2]


@dataclass(frozen=True)
class Shot:
    """One generated image."""

    number: int
    split: str
    expression: int
    """AffectNet's number, 0..10."""
    faces: tuple[Place, ...]
    """The one that is annotated first."""
    width: int
    height: int
    is_readable: bool = True

    @property
    def name(self) -> str:
        """As the lists of 2017 have it."""
        return f"{self.number % 7 + 1}/{hashlib.sha224(f'shot {self.number}'.encode()).hexdigest()}.jpg"

    @property
    def valence(self) -> float:
        return -2 if self.expression > 7 else round(np.cos(self.number) * 0.9, 6)

    @property
    def arousal(self) -> float:
        return -2 if self.expression > 7 else round(np.sin(self.number) * 0.9, 6)

    @property
    def annotated(self) -> Place:
        """The face that the corpus speaks of; where there is none, where it says that one is."""
        return self.faces[0] if self.faces else Place(self.width / 2, self.height / 2, 1)

    @property
    def box(self) -> Box:
        """The square around the face's landmarks."""
        return landmark_box(self.annotated.landmarks, 0)

    @property
    def image(self) -> UInt8Image:
        """(height, width, 3)"""
        noise = np.random.default_rng(self.number).normal(0, 6, (self.height, self.width, 1))
        slope = np.linspace(60, 120, self.width)[None, :, None] + np.zeros((self.height, 1, 3))
        picture = Image.fromarray(np.clip(slope + noise, 0, 255).astype(np.uint8))
        for place in reversed(self.faces):
            to_patch = np.linalg.inv(np.vstack([place.matrix, [0, 0, 1]]))[:2]
            to_patch[:, 2] -= (PATCH[1].start, PATCH[0].start)
            how = (picture.size, Image.Transform.AFFINE, tuple(to_patch.ravel()), Image.Resampling.BICUBIC)
            patch = portrait()
            picture.paste(patch.transform(*how), mask=Image.new("L", patch.size, 255).transform(*how))
        return np.asarray(picture)


@cache
def portrait() -> Image.Image:
    """The part of the portrait that is pasted."""
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the test face")
    return Image.fromarray(data.astronaut()[PATCH])


def shots(train: int, val: int = 8, seed: int = 0) -> list[Shot]:
    """Images in the order of the lists.

    Each class of train is there in about its published share, val has the eight emotions in turn. The first images of
    train that have an emotion are, in turn: one that cannot be read, one without a face, one with two faces.
    """
    classes = [(np.arange(CLASSES).repeat(quota(train))).tolist(), [i % 8 for i in range(val)]]
    random = np.random.default_rng(seed)
    random.shuffle(classes[0])
    found: list[Shot] = []
    odd = ["unreadable", "nobody", "two"]
    for split, expressions in zip(("train", "val"), classes, strict=True):
        for expression in expressions:
            kind = odd.pop(0) if odd and expression < 8 else "no-face" if expression == 10 else ""
            width, height = (int(side) for side in random.integers(300, 420, 2))
            scale = float(random.uniform(1.1, 1.7))
            reach = 70 * scale
            x, y = (float(random.uniform(reach, side - reach)) for side in (width, height))
            faces: tuple[Place, ...] = (Place(x, y, scale, float(random.uniform(-20, 20))),)
            if kind == "two":
                width, height = 640, 600
                faces = (Place(170, 300, 1.9), Place(480, 300, 1.5))
            elif kind in ("nobody", "no-face"):
                faces = ()
            found.append(Shot(len(found), split, expression, faces, width, height, kind != "unreadable"))
    return found


def quota(count: int) -> npt.NDArray[np.int64]:
    """How many of ``count`` images each class has: by its share, but none without any where there is room."""
    shares = np.array(SHARES) / sum(SHARES)
    least = int(count >= 2 * CLASSES)
    free = count - least * CLASSES
    exact = shares * free
    given = np.floor(exact).astype(np.int64)
    given[np.argsort(given - exact)[: free - given.sum()]] += 1
    return given + least


def write_csv_layout(root: Path, shown: Iterable[Shot]) -> None:
    """AffectNet of 2017."""
    lines: dict[str, list[list[object]]] = {"training.csv": [], "validation.csv": []}
    for shot in shown:
        write_image(root / path_of(shot), shot)
        lines["training.csv" if shot.split == "train" else "validation.csv"].append(csv_row(shot))
    for name, rows in lines.items():
        write_list(root / "Manually_Annotated_file_lists" / name, rows)


def path_of(shot: Shot) -> str:
    """Where the image of a shot lies in the csv layout."""
    return f"Manually_Annotated_Images/{shot.name}"


def write_list(path: Path, rows: Iterable[Sequence[object]], header: str = HEADER) -> None:
    """A list of the csv layout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([header.split(","), *rows])


def csv_row(shot: Shot) -> list[object]:
    """The cells of a shot's row, in the order of the header."""
    points = ";".join(f"{number:.2f}" for number in shot.annotated.landmarks.ravel())
    box = shot.box
    return [shot.name, box.left, box.top, box.side, box.side, points, shot.expression, shot.valence, shot.arousal]


def write_npy_layout(root: Path, shown: Iterable[Shot]) -> None:
    """The later AffectNet, with the eight emotions alone. Its images are the same, not cut any closer."""
    for shot in shown:
        if shot.expression > 7:
            continue
        folder = root / f"{shot.split}_set"
        write_image(folder / "images" / f"{shot.number}.jpg", shot)
        stem = folder / "annotations" / str(shot.number)
        stem.parent.mkdir(parents=True, exist_ok=True)
        # The owners' files hold texts; readers that expect numbers have been seen too.
        as_found = str if shot.number % 2 else float
        np.save(f"{stem}_exp.npy", np.array(str(shot.expression) if shot.number % 2 else shot.expression))
        np.save(f"{stem}_val.npy", np.array(as_found(shot.valence)))
        np.save(f"{stem}_aro.npy", np.array(as_found(shot.arousal)))
        np.save(f"{stem}_lnd.npy", shot.annotated.landmarks.ravel())


def write_image(path: Path, shot: Shot) -> None:
    """The image of a shot as JPEG; cut off in the middle where it is not to be readable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(shot.image).save(path, "JPEG", quality=95)
    if not shot.is_readable:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])


def config(root: Path, **changes: object) -> AffectNetDataConfig:
    """Crops of 64 px, landmarks by dlib, bad files skipped, but for ``changes``."""
    values: dict[str, object] = {
        "name": "affectnet",
        "size": 64,
        "root": str(root),
        "align": AlignConfig(landmarks="dlib", resize=[256, 256]),
        "on_bad_file": OnBadFile.skip,
    }
    return AffectNetDataConfig(**(values | changes))  # type: ignore[arg-type]


def main() -> None:
    """Write one for a trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200, help="images of the list for training")
    parser.add_argument("--layout", choices=("csv", "npy"), default="csv")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    made = shots(arguments.count, max(8, arguments.count // 5), arguments.seed)
    write = write_csv_layout if arguments.layout == "csv" else write_npy_layout
    write(arguments.folder, made)


if __name__ == "__main__":
    main()
