"""From what a user names to the faces of photos: upright crops, where they lie, and which emotion they show now."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from affect_hpc.config.files import PHOTOS, shown
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import sha256_file
from affect_hpc.data.codec import UInt8Image, images_to_tensor
from affect_hpc.data.faces import Cropper, Found, area
from affect_hpc.data.media import BadFileError, read_photo, reason_of
from affect_hpc.data.paste import Placement, placed
from affect_hpc.experts.registry import EmotionJudge

HASH_LENGTH = 6


@dataclass(frozen=True)
class Photo:
    """A file, and how what is made of it is called."""

    path: Path
    stem: str
    """Unique among the photos of a call."""

    def __str__(self) -> str:
        return shown(self.path)


@dataclass(frozen=True)
class Label:
    """The emotion that a face shows now."""

    emotion: str
    said_by: str
    """A judge, or ``user``."""
    probability: float | None = None
    """The judge's."""


@dataclass(frozen=True)
class Face:
    """A face of a photo."""

    photo: Photo
    digest: str
    """SHA-256 of the photo's file, as it was when the face was cut out."""
    crop: UInt8Image
    """(size, size, 3)"""
    place: Placement
    label: Label


def listed(words: Sequence[str], out: Path) -> list[Photo]:
    """The photos that a user names, each once.

    Args:
        words: files, and folders whose photos at any depth are meant, hidden ones left out.
        out: where edits go; what lies in it is no photo of a folder.

    Raises:
        UserError: a file does not exist, or a folder holds no photo or is itself where edits go.
    """
    paths: dict[Path, Path] = {}
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir():
            if path.resolve() == out.resolve():
                raise UserError(f"--out={shown(out)} is the folder of the photos: give another one, or single photos.")
            found = _photos_below(path, out.resolve())
            if not found:
                raise UserError(f"{shown(path)} holds no photo: give files or folders with {' '.join(PHOTOS)}.")
        elif path.exists():
            found = [path]
        else:
            raise UserError(f"{shown(path)} does not exist: give photos, or folders that hold them.")
        for file in found:
            paths.setdefault(file.resolve(), file)
    counts = Counter(file.stem for file in paths.values())
    # Where names meet, the place tells the photos apart; it stays the same whatever other photos there are.
    return [
        Photo(file, file.stem if counts[file.stem] == 1 else f"{file.stem}-{_place(whole)}")
        for whole, file in paths.items()
    ]


def _photos_below(folder: Path, out: Path) -> list[Path]:
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (Path(place) / name).resolve() != out
        )
        photos = (name for name in sorted(names) if Path(name).suffix.lower() in PHOTOS and not name.startswith("."))
        found += [Path(place) / name for name in photos]
    return found


def _place(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:HASH_LENGTH]


class Labeller:
    """Says which emotion a face shows now: the user's word for all, or a judge's for each.

    Args:
        emotions: those that the model knows.
        emotion: the user's word; empty to ask the judge.
    """

    def __init__(self, emotions: Sequence[str], emotion: str, judge: EmotionJudge | None) -> None:
        self.emotions, self.emotion, self.judge = emotions, emotion, judge

    def __call__(self, crop: UInt8Image) -> Label:
        """The label of one face, judged by itself: it hangs on no other face."""
        if self.judge is None:
            return Label(self.emotion, "user")
        with torch.inference_mode():
            (row,) = self.judge.probabilities(images_to_tensor([crop])).tolist()
        known = {name: value for name, value in zip(self.judge.classes, row, strict=True) if name in self.emotions}
        best = max(known, key=lambda name: known[name])
        return Label(best, self.judge.name, known[best])


def faces_of(photo: Photo, cropper: Cropper, labeller: Labeller, every: bool) -> tuple[list[Face], int]:
    """The largest face of a photo, or all of them, and how many were left out since they are smaller than a crop.

    Raises:
        BadFileError: the photo cannot be read, or shows no face that is large enough.
    """
    digest, image = read(photo)
    regions = sorted(cropper.landmarks.regions(image), key=area, reverse=True)
    if not regions:
        raise BadFileError("shows no face that the detector finds")
    faces, sides = [], []
    for region in regions if every else regions[:1]:
        found = Found(region, cropper.landmarks.points(image, region))
        box = cropper.box_of(found, video=False)
        sides.append(box.side)
        if box.side < cropper.size:
            continue
        crop = cropper.crop(image, found, box)
        place = placed(crop.geometry, image.shape, cropper.size, cropper.config, cropper.compat)
        faces.append(Face(photo, digest, crop.image, place, labeller(crop.image)))
    if not faces:
        size = cropper.size
        raise BadFileError(
            f"shows a face of {max(sides)} x {max(sides)} px, less than the model's {size} x {size}: give a larger"
            " picture"
        )
    return faces, len(sides) - len(faces)


def read(photo: Photo) -> tuple[str, UInt8Image]:
    """SHA-256 of the file, and the (H, W, 3) image, upright as its EXIF orientation says; or BadFileError."""
    try:
        digest = sha256_file(photo.path)
    except OSError as error:
        raise BadFileError(f"cannot be read ({reason_of(error)})") from None
    return digest, read_photo(photo.path)


def id_of(label: Label) -> int:
    """The emotion's id."""
    return EMOTIONS.index(label.emotion)
