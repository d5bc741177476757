"""MEAD (Wang et al. 2020) as a corpus of talking clips: layout, split by actor, one fixed box a clip.

::

    <root>/<actor>/video/<view>/<emotion>/level_<n>/<id>.mp4
    <root>/<actor>/audio/<emotion>/level_<n>/<id>.m4a

The procedure is that of the thesis, sections 5.1 and 5.2.2. Transcripts are the user's own (data.transcripts).
"""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from affect_hpc.config.corpora import MeadDataConfig
from affect_hpc.config.data import OnBadFile
from affect_hpc.config.files import shown
from affect_hpc.core.blocks import blocks
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.data.align import Box
from affect_hpc.data.clips import mask_rows
from affect_hpc.data.corpora.source import Clip, Findings, ShardPlan
from affect_hpc.data.faces import Crop, Cropper
from affect_hpc.data.media import BadFileError, read_clip
from affect_hpc.data.sound import Samples, fitted, read_sound

SPLITS = ("train", "val", "test")
EMOTION_OF: Mapping[str, str] = {"fear": "scared"} | {name: name for name in EMOTIONS if name != "scared"}
"""MEAD's folder name -> ours."""
ACTOR, LEVEL, CLIP_ID = re.compile(r"[MW]\d{3}"), re.compile(r"level_\d+"), re.compile(r"[A-Za-z0-9_-]+")
THESIS_CLIPS: Mapping[str, int] = {"train and val": 21_739, "test": 3_692}
"""Section 5.1; the thesis has no validation split of its own (D-23)."""
SOUND_TOLERANCE_S = 0.1


@dataclass(frozen=True)
class ClipFile:
    """One clip on the disk."""

    actor: str
    emotion: str
    """MEAD's name."""
    level: str
    """level_<n>"""
    number: str
    video: str
    """Relative to the root, with slashes."""

    @property
    def key(self) -> str:
        """Its name in the shards."""
        return f"{self.actor}_{self.emotion}_{self.level}_{self.number}"

    @property
    def audio(self) -> str:
        """Where its sound lies, if it has a file of its own."""
        return f"{self.actor}/audio/{self.emotion}/{self.level}/{self.number}.m4a"

    @property
    def label(self) -> int:
        """Emotion id, 0..7."""
        return EMOTIONS.index(EMOTION_OF[self.emotion])


class MeadSource:
    """Talking clips of MEAD (see corpora/source.py for the protocol).

    Args:
        config: where the corpus lies, and how its clips are used.
        cropper: by default the one that ``config.align`` describes, made when the first clip is asked for.

    Raises:
        UserError: the folder does not have MEAD's layout, no actor is left to train on, or the transcripts cannot be
            read.
    """

    def __init__(self, config: MeadDataConfig, cropper: Cropper | None = None) -> None:
        self.config, self.root = config, Path(config.root).expanduser()
        if cropper is not None:
            self._cropper = cropper
        self._clips = find_clips(self.root, config.view)
        self._splits = split_of_actors({clip.actor for clip in self._clips}, config)
        self._texts = read_transcripts(Path(config.transcripts).expanduser()) if config.transcripts else {}
        self.findings = Findings()

    def shards(self) -> list[ShardPlan]:
        """All shards: train, val, test, each with its clips in the order of their keys. Opens no file."""
        plans = []
        for split in SPLITS:
            clips = self._clips_of(split)
            for number, block in enumerate(blocks(len(clips), self.config.samples_per_shard)):
                units = tuple(clips[i] for i in block)
                plans.append(ShardPlan(split, f"shard-{number:05d}", units, len(units)))
        return plans

    def samples(self, shard: ShardPlan) -> Iterator[Clip]:
        """The clips of one shard. Bad files are left out and remembered: ``verdict`` speaks of them."""
        for unit in shard.units:
            try:
                yield self._clip(unit)
            except BadFileError as error:
                self.findings.leave_out(shown(unit.video), str(error))

    def facts(self) -> dict[str, Any]:
        """Actors and clips of each split against the published numbers, and what the transcripts cover."""
        clips = {split: self._clips_of(split) for split in SPLITS}
        emotions = {split: Counter(clip.emotion for clip in clips[split]) for split in SPLITS}
        found = {"train and val": len(clips["train"]) + len(clips["val"]), "test": len(clips["test"])}
        keys = {clip.key for clip in self._clips}
        facts: dict[str, Any] = {
            "actors": {split: sorted({clip.actor for clip in clips[split]}) for split in SPLITS},
            "clips": {split: dict(sorted(emotions[split].items())) for split in SPLITS},
            "thesis": dict(THESIS_CLIPS),
            "differences": [
                f"{split}: {found[split]} clips, the thesis has {published}"
                for split, published in THESIS_CLIPS.items()
                if found[split] != published
            ],
            "absent_test_actors": sorted(set(self.config.test_actors) - self._splits.keys()),
        }
        if self.config.transcripts:
            facts["transcripts"] = {
                "clips_with_text": len(keys & self._texts.keys()),
                "clips_without_text": len(keys - self._texts.keys()),
                "texts_of_unknown_clips": len(self._texts.keys() - keys),
            }
        return facts

    def verdict(self) -> None:
        """To be asked after the last shard, before anything is published.

        Raises:
            UserError: clips were left out and data.on_bad_file=fail; a sentence for each.
        """
        bad = self.findings.left_out()
        if bad and self.config.on_bad_file is OnBadFile.fail:
            way_out = "remove or mend it, or set data.on_bad_file=skip."
            raise UserError("\n".join(f"{path} {reason}: {way_out}" for path, reason in sorted(bad.items())))

    @cached_property
    def _cropper(self) -> Cropper:
        return Cropper(self.config.align, self.config.size, self.config.compat)

    def _clips_of(self, split: str) -> list[ClipFile]:
        return sorted((clip for clip in self._clips if self._splits[clip.actor] == split), key=lambda clip: clip.key)

    def _clip(self, unit: ClipFile) -> Clip:
        config, video = self.config, self.root / unit.video
        box = self._box(unit)
        crops = [self._cropper.crop_box(self._cropper.prepared(frame), box) for frame in read_clip(video, config.fps)]
        missing = [number for number, crop in enumerate(crops) if crop.landmarks is None]
        for number in missing:
            self.findings.note(f"{shown(unit.video)}#{number}", "frame without landmarks")
        landmarks = stacked_landmarks(crops)
        return Clip(
            key=unit.key,
            frames=[crop.image for crop in crops],
            label=unit.label,
            identity=unit.actor,
            source=shown(unit.video),
            fps=config.fps,
            landmarks=landmarks,
            mask_row=mask_rows(landmarks, config.size, config.mask_margin_px),
            sound=self._sound(unit, len(crops)),
            sample_rate=config.sample_rate,
            more={
                "actor": unit.actor,
                "emotion": unit.emotion,
                "level": unit.level,
                "view": config.view,
                "transcript": self._texts.get(unit.key),
                "box": crops[0].geometry["box"],
                "matrix": crops[0].geometry["matrix"],
                "missing_landmarks": missing,
            },
        )

    def _box(self, unit: ClipFile) -> Box:
        """The clip's fixed box, of the first frame that shows a face (D-24)."""
        count = 0
        for frame in read_clip(self.root / unit.video, self.config.fps):
            face, _ = self._cropper.find(self._cropper.prepared(frame))
            count += 1
            if face is None:
                continue
            box = self._cropper.box_of(face, video=True)
            if self._cropper.is_tiny(box):
                reason = f"face smaller than {self.config.align.tiny_px} px"
                if self.config.align.drop_tiny:
                    raise BadFileError(f"shows a {reason}")
                self.findings.note(shown(unit.video), reason)
            return box
        raise BadFileError(f"shows no face in any of its {count} frames")

    def _sound(self, unit: ClipFile, frames: int) -> Samples:
        """The clip's sound, as long as its frames; empty where it has none."""
        rate, length_s = self.config.sample_rate, frames / self.config.fps
        for path in (unit.audio, unit.video):
            if not (self.root / path).is_file():
                continue
            try:
                sound = read_sound(self.root / path, rate)
            except BadFileError as error:
                if path == unit.audio:
                    self.findings.note(shown(path), f"sound file that cannot be used: it {error}")
                continue
            if abs(len(sound) / rate - length_s) > SOUND_TOLERANCE_S:
                reason = f"sound more than {SOUND_TOLERANCE_S} s longer or shorter than the picture, cut or padded"
                self.findings.note(shown(path), reason)
            return fitted(sound, round(length_s * rate))
        self.findings.note(shown(unit.video), "clip without sound")
        return np.zeros(0, np.int16)


def find_clips(root: Path, view: str) -> list[ClipFile]:
    """All clips of one view below ``root``, by listing folders.

    Raises:
        UserError: it does not have MEAD's layout; says where it differs.
    """
    if not root.is_dir():
        raise UserError(f"data.root={shown(root)} is no folder: give the folder that holds MEAD's actors (M003, ...).")
    actors = [name for name in _folders(root) if ACTOR.fullmatch(name)]
    if not actors:
        there = shown(", ".join(_folders(root)[:8])) or "no folder at all"
        raise UserError(
            f"data.root={shown(root)} holds no folder of an actor (M003, ...), but {there}: give the folder that does."
        )
    lacking = [actor for actor in actors if not (root / actor / "video" / view).is_dir()]
    if lacking:
        views = sorted({name for actor in lacking for name in _folders(root / actor / "video")})
        raise UserError(
            f"data.root={shown(root)} lacks the folder video/{view} of {', '.join(lacking)}, whose views are"
            f" {shown(', '.join(views)) or 'none'}: unpack their videos, or choose another data.view."
        )
    clips = [clip for actor in actors for clip in _clips_of_actor(root, actor, view)]
    if not clips:
        raise UserError(f"data.root={shown(root)} holds no .mp4 of view {view}: unpack the actors' videos.")
    return clips


def _clips_of_actor(root: Path, actor: str, view: str) -> Iterator[ClipFile]:
    place = f"{actor}/video/{view}"
    for emotion in _folders(root / place):
        if emotion not in EMOTION_OF:
            raise UserError(
                f"{shown(root / place / emotion)} is named after no emotion of MEAD: the folders of a view are called"
                f" {', '.join(sorted(EMOTION_OF))}; rename or remove it."
            )
        for level in _folders(root / place / emotion):
            here = f"{place}/{emotion}/{level}"
            if not LEVEL.fullmatch(level):
                raise UserError(f"{shown(root / here)} is no level: rename it to level_1, level_2, ..., or remove it.")
            for path in sorted((root / here).iterdir()):
                if path.suffix.lower() != ".mp4" or path.name.startswith("."):
                    continue
                if not CLIP_ID.fullmatch(path.stem):
                    raise UserError(f"{shown(path)} is no clip of MEAD (001.mp4, 002.mp4, ...): rename or remove it.")
                yield ClipFile(actor, emotion, level, path.stem, f"{here}/{path.name}")


def _folders(place: Path) -> list[str]:
    if not place.is_dir():
        return []
    return sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def split_of_actors(actors: set[str], config: MeadDataConfig) -> dict[str, str]:
    """Actor -> split. Who is held out for validation hangs on the actors' names and the seed alone.

    Raises:
        UserError: no actor is left for training.
    """
    others = sorted(
        actors - set(config.test_actors),
        key=lambda actor: hashlib.sha256(f"{config.seed}:{actor}".encode()).digest(),
    )
    if len(others) <= config.val_actors:
        raise UserError(
            f"data.val_actors={config.val_actors} leaves no actor to train on: data.root has {len(others)} besides"
            f" those of data.test_actors; give at most {max(len(others) - 1, 0)}."
        )
    splits = dict.fromkeys(actors, "test") | dict.fromkeys(others, "train")
    return splits | dict.fromkeys(others[: config.val_actors], "val")


def read_transcripts(path: Path) -> dict[str, str]:
    """Clip key -> what is said, of a CSV with the columns clip and text.

    Raises:
        UserError: it cannot be read, lacks a column, or names a clip twice.
    """
    texts: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            table = csv.DictReader(handle)
            absent = [name for name in ("clip", "text") if name not in (table.fieldnames or ())]
            if absent:
                raise UserError(
                    f"data.transcripts={shown(path)} has no column {' and no column '.join(absent)}, but"
                    f" {', '.join(table.fieldnames or ()) or 'no line at all'}: its first line must be clip,text."
                )
            for row in table:
                key, text = (row["clip"] or "").strip(), (row["text"] or "").strip()
                if key in texts:
                    raise UserError(
                        f"data.transcripts={shown(path)} names the clip {key!r} again in line {table.line_num}: keep"
                        " one line a clip."
                    )
                texts[key] = text
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"data.transcripts={shown(path)} cannot be read ({error}): give a CSV file in UTF-8.") from None
    return texts


def stacked_landmarks(crops: Sequence[Crop]) -> npt.NDArray[np.float32]:
    """(T, 68, 2) in px of the crops; NaN for those without."""
    nothing = np.full((68, 2), np.nan, np.float32)
    return np.stack([nothing if crop.landmarks is None else crop.landmarks for crop in crops])
