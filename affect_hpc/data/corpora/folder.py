"""The user's photos and videos as a corpus: a face of each photo, many of each video, an identity for each file."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affect_hpc.config.corpora import FolderDataConfig, LabelFrom
from affect_hpc.config.data import OnBadFile
from affect_hpc.config.files import VIDEOS, folder_labels, list_files, shown
from affect_hpc.core.errors import UserError
from affect_hpc.data.align import Box
from affect_hpc.data.codec import UInt8Image
from affect_hpc.data.corpora.source import Face, Findings, ShardPlan
from affect_hpc.data.faces import Cropper, Found
from affect_hpc.data.media import BadFileError, frame_count, read_frames, read_photo

SLUG_LENGTH = 40
HASH_LENGTH = 6
LEAST_INSIDE = 0.8
"""Share of a face's landmarks that must lie in its clip's fixed box."""


@dataclass(frozen=True)
class Unit:
    """What a shard takes of one file."""

    path: str
    """Relative, with slashes."""
    stem: str
    """Key of the file: its faces' keys begin with it."""
    label: int | None
    frames: tuple[int, ...] = ()
    """Videos: the frames of this shard."""
    all_frames: tuple[int, ...] = ()
    """Videos: the frames that all shards of the file use; its box comes from the first one with a face."""


class FolderSource:
    """Photos and videos below one folder (see corpora/source.py for the protocol).

    Args:
        config: which folder, and how its files are used.
        cropper: by default the one that ``config.align`` describes, made when the first face is asked for.

    Raises:
        UserError: the folder is absent or empty, or folder names give no label.
    """

    def __init__(self, config: FolderDataConfig, cropper: Cropper | None = None) -> None:
        self.config = config
        self.root = Path(config.root).expanduser()
        self._cropper = cropper
        self._files = list_files(config.root)
        labels: Sequence[int | None] = [None] * len(self._files)
        if config.label is LabelFrom.folder:
            labels = folder_labels(self._files)
        self._labels = dict(zip(self._files, labels, strict=True))
        self._stems = file_stems(self._files)
        self._bad: dict[str, str] = {}
        self.findings = Findings()

    def shards(self) -> list[ShardPlan]:
        """All shards in order, train before val. Looks into the headers of videos, decodes nothing."""
        frames = {path: self._chosen(path) for path in self._files if is_video(path)}
        skip = self.config.on_bad_file is OnBadFile.skip
        usable = [path for path in self._files if not (skip and path in self._bad)]
        if not usable:
            raise UserError(f"data.root={shown(self.root)} holds no file that can be used:\n{self._sentences()}")
        if len(usable) == 1:
            return self._split_in_time(usable[0], frames.get(usable[0], ()))
        held_out = held_out_files(usable, self.config.val_fraction, self.config.seed)
        plans: list[ShardPlan] = []
        for split in ("train", "val"):
            files = [path for path in usable if (path in held_out) == (split == "val")]
            groups = _chunks([self._unit(path) for path in files if not is_video(path)], self.config.samples_per_shard)
            for path in files:
                if is_video(path):
                    groups += self._video_groups(path, frames[path], frames[path])
            plans += _plans(split, groups)
        return plans

    def samples(self, shard: ShardPlan) -> Iterator[Face]:
        """The faces of one shard. Bad files are left out and remembered: ``verdict`` speaks of them."""
        for unit in shard.units:
            try:
                yield from self._video_faces(unit) if is_video(unit.path) else self._photo_faces(unit)
            except BadFileError as error:
                self._leave_out(unit.path, str(error))

    def facts(self) -> dict[str, Any]:
        """Nothing is known of a user's folder beforehand."""
        return {}

    def verdict(self) -> None:
        """To be asked after the last shard, before anything is published.

        Raises:
            UserError: bad files were met and data.on_bad_file=fail; a sentence for each.
        """
        if self._bad and self.config.on_bad_file is OnBadFile.fail:
            raise UserError(self._sentences())

    def _sentences(self) -> str:
        way_out = "remove or mend it, or set data.on_bad_file=skip."
        return "\n".join(f"{shown(path)} {reason}: {way_out}" for path, reason in sorted(self._bad.items()))

    def _leave_out(self, path: str, reason: str) -> None:
        if path not in self._bad:
            self._bad[path] = reason
            self.findings.leave_out(shown(path), reason)

    def _unit(self, path: str, frames: tuple[int, ...] = (), all_frames: tuple[int, ...] = ()) -> Unit:
        return Unit(path, self._stems[path], self._labels[path], frames, all_frames)

    def _chosen(self, path: str) -> tuple[int, ...]:
        try:
            return chosen_frames(frame_count(self.root / path), self.config.frame_stride, self.config.max_frames)
        except BadFileError as error:
            self._leave_out(path, str(error))
            return ()

    def _video_groups(self, path: str, frames: tuple[int, ...], all_frames: tuple[int, ...]) -> list[list[Unit]]:
        size = self.config.samples_per_shard
        return [[self._unit(path, frames[i : i + size], all_frames)] for i in range(0, len(frames), size)]

    def _split_in_time(self, path: str, frames: tuple[int, ...]) -> list[ShardPlan]:
        if path in self._bad:
            raise UserError(self._sentences())
        if len(frames) < 2:
            raise UserError(
                f"data.root={shown(self.root)} has one usable picture only ({shown(path)}): give at least two files,"
                " since a part of them is held out for validation."
            )
        last = _share(len(frames), self.config.val_fraction)
        return _plans("train", self._video_groups(path, frames[:-last], frames)) + _plans(
            "val", self._video_groups(path, frames[-last:], frames)
        )

    def _cut(self) -> Cropper:
        if self._cropper is None:
            self._cropper = Cropper(self.config.align, self.config.size, self.config.compat)
        return self._cropper

    def _photo_faces(self, unit: Unit) -> Iterator[Face]:
        cropper = self._cut()
        image = cropper.prepared(read_photo(self.root / unit.path))
        face, count = cropper.find(image)
        if face is None:
            raise BadFileError("shows no face that the detector finds")
        if count > 1:
            self.findings.note(shown(unit.path), "photo with several faces, the largest taken")
        yield from self._cut_out(unit, 0, shown(unit.path), image, face, cropper.box_of(face, video=False))

    def _video_faces(self, unit: Unit) -> Iterator[Face]:
        cropper = self._cut()
        fixed = self._clip_box(unit)
        for number, frame in read_frames(self.root / unit.path, unit.frames):
            source = f"{shown(unit.path)}#{number}"
            image = cropper.prepared(frame)
            face, count = cropper.find(image, near=fixed)
            if face is None:
                self.findings.leave_out(source, "frame without a face")
                continue
            box = fixed if self.config.align.fixed_box else cropper.box_of(face, video=True)
            if box.share_inside(face.points) < LEAST_INSIDE:
                self.findings.leave_out(source, "frame whose face left the clip's box")
                continue
            if count > 1:
                self.findings.note(source, "frame with several faces, one taken")
            yield from self._cut_out(unit, number, source, image, face, box)

    def _cut_out(
        self, unit: Unit, number: int, source: str, image: UInt8Image, face: Found, box: Box
    ) -> Iterator[Face]:
        align = self.config.align
        if self._cut().is_tiny(box):
            reason = f"face smaller than {align.tiny_px} px"
            if align.drop_tiny:
                self.findings.leave_out(source, reason)
                return
            self.findings.note(source, reason)
        crop = self._cut().crop(image, face, box)
        key = f"{unit.stem}-{number:06d}"
        yield Face(key, crop.image, unit.label, unit.stem, source, landmarks=crop.landmarks, more=crop.geometry)

    def _clip_box(self, unit: Unit) -> Box:
        for _, frame in read_frames(self.root / unit.path, unit.all_frames):
            face, _ = self._cut().find(self._cut().prepared(frame))
            if face is not None:
                return self._cut().box_of(face, video=True)
        raise BadFileError(f"shows no face in any of the {len(unit.all_frames)} frames looked at")


def is_video(path: str) -> bool:
    """Whether a file is taken as a video, by its suffix."""
    return Path(path).suffix.lower() in VIDEOS


def chosen_frames(count: int, stride: int, most: int) -> tuple[int, ...]:
    """Numbers of the frames used of a video: every ``stride``-th, thinned evenly to ``most`` (0 = all of them)."""
    frames = range(0, count, stride)
    if not most or len(frames) <= most:
        return tuple(frames)
    return tuple(frames[i * len(frames) // most] for i in range(most))


def held_out_files(files: Sequence[str], fraction: float, seed: int) -> set[str]:
    """The files of the validation split: the first ones in an order that hangs on path and seed alone.

    At least one, and never all; ``files`` has two or more.
    """
    order = sorted(files, key=lambda path: hashlib.sha256(f"{seed}:".encode() + os.fsencode(path)).digest())
    return set(order[: _share(len(files), fraction)])


def file_stems(files: Sequence[str]) -> dict[str, str]:
    """Relative path -> ASCII name for keys, unique in the corpus and the same whatever other files there are."""
    length = HASH_LENGTH
    while True:
        stems = {path: f"{_slug(path)}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:length]}" for path in files}
        if len(set(stems.values())) == len(set(files)):
            return stems
        length += 2


def _slug(path: str) -> str:
    plain = unicodedata.normalize("NFKD", os.path.splitext(path)[0]).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    return slug[-SLUG_LENGTH:].strip("-") or "file"


def _share(count: int, fraction: float) -> int:
    return min(max(1, round(count * fraction)), count - 1)


def _chunks(units: list[Unit], size: int) -> list[list[Unit]]:
    return [units[i : i + size] for i in range(0, len(units), size)]


def _plans(split: str, groups: Sequence[Sequence[Unit]]) -> list[ShardPlan]:
    return [
        ShardPlan(split, f"shard-{i:05d}", tuple(units), sum(len(unit.frames) or 1 for unit in units))
        for i, units in enumerate(groups)
    ]
