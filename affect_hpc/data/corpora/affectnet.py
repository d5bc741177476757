"""AffectNet (Mollahosseini et al. 2017) as a corpus of faces (thesis sections 4.2 and 4.3.1; D-01 to D-05).

How its folders look is said in affectnet_lists.py. Whose terms must be accepted first: config/terms.py.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from affect_hpc.config.corpora import AffectNetDataConfig, AffectNetLayout
from affect_hpc.config.data import OnBadFile, OnNoFace
from affect_hpc.config.files import shown
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.data.align import Box
from affect_hpc.data.codec import UInt8Image
from affect_hpc.data.corpora.affectnet_lists import (
    EXPRESSIONS,
    SPLITS,
    Annotation,
    Picture,
    annotation_of,
    find_layout,
    read_pictures,
)
from affect_hpc.data.corpora.folder import file_stems
from affect_hpc.data.corpora.source import Face, Findings, ShardPlan
from affect_hpc.data.faces import Cropper
from affect_hpc.data.media import BadFileError, read_photo

log = logging.getLogger(__name__)

PUBLISHED_TRAIN = (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750)
"""Images of the training list by emotion id, as published for 2017."""
PUBLISHED: Mapping[AffectNetLayout, Mapping[str, int]] = {
    AffectNetLayout.csv: {
        **{f"train/{emotion}": count for emotion, count in zip(EMOTIONS, PUBLISHED_TRAIN, strict=True)},
        **{f"val/{emotion}": 500 for emotion in EMOTIONS},
    },
    AffectNetLayout.npy: {"train": sum(PUBLISHED_TRAIN), "val": 3_999},
}
"""Images by split and emotion, where lists tell the emotion, else by split."""


class AffectNetSource:
    """Faces of AffectNet (see corpora/source.py for the protocol).

    Args:
        config: where the corpus lies, and how its images are used.
        cropper: by default the one that ``config.align`` describes, made when the first face is asked for.

    Raises:
        UserError: the folder does not have AffectNet's layout, or a list says what it may not.
    """

    def __init__(self, config: AffectNetDataConfig, cropper: Cropper | None = None) -> None:
        self.config, self.root = config, Path(config.root).expanduser()
        if cropper is not None:
            self._cropper = cropper
        self.layout = find_layout(self.root, config.layout)
        self._pictures = read_pictures(self.root, self.layout)
        # Images are not named by who they show: each is an identity of its own.
        used = (picture.name for split in SPLITS for picture in self._pictures[split] if picture.is_used)
        self._keys = file_stems(list(used))
        self._bad: dict[str, str] = {}
        self.findings = Findings()
        differences = self.facts()["differences"]
        if differences:
            log.warning("AffectNet is not as published: %s", "; ".join(differences))

    def shards(self) -> list[ShardPlan]:
        """All shards, train before val, each with its images in the order of their list. Opens no file."""
        plans = []
        for split in SPLITS:
            chosen = first_used(self._pictures[split], self.config.max_samples)
            for number, (pictures, used) in enumerate(chunks(chosen, self.config.samples_per_shard)):
                plans.append(ShardPlan(split, f"shard-{number:05d}", pictures, used))
        return plans

    def samples(self, shard: ShardPlan) -> Iterator[Face]:
        """The faces of one shard. Bad files are left out and remembered: ``verdict`` speaks of them."""
        for picture in shard.units:
            if picture.again:
                self.findings.leave_out(shown(picture.path), "image that is listed a second time")
                continue
            try:
                annotation = annotation_of(self.root, picture)
                if annotation.label is None:
                    self.findings.count(f"expression {EXPRESSIONS[annotation.expression]}")
                    continue
                face = self._face(picture, annotation)
            except BadFileError as error:
                self._bad[picture.path] = str(error)
                self.findings.leave_out(shown(picture.path), str(error))
                continue
            if face is not None:
                yield face

    def facts(self) -> dict[str, Any]:
        """Images of each split and class against the published numbers. In the npy layout, where classes are told by
        files beside the images, of each split alone.
        """
        counts: Counter[str] = Counter()
        for split, pictures in self._pictures.items():
            for picture in pictures:
                label = picture.annotation.label if picture.annotation is not None else None
                if picture.is_used:
                    counts[split if label is None else f"{split}/{EMOTIONS[label]}"] += 1
        return {
            "layout": self.layout.name,
            "images": dict(counts),
            "published": dict(PUBLISHED[self.layout]),
            "differences": [
                f"{name}: {counts[name]:,} images instead of {published:,}"
                for name, published in PUBLISHED[self.layout].items()
                if counts[name] != published
            ],
        }

    def verdict(self) -> None:
        """To be asked after the last shard, before anything is published.

        Raises:
            UserError: bad files were met and data.on_bad_file=fail; a sentence for each.
        """
        if self._bad and self.config.on_bad_file is OnBadFile.fail:
            way_out = "mend it, or set data.on_bad_file=skip."
            raise UserError(
                "\n".join(f"{shown(path)} {reason}: {way_out}" for path, reason in sorted(self._bad.items()))
            )

    @cached_property
    def _cropper(self) -> Cropper:
        return Cropper(self.config.align, self.config.size, self.config.compat)

    def _face(self, picture: Picture, annotation: Annotation) -> Face | None:
        cropper, align, where = self._cropper, self.config.align, shown(picture.path)
        if not (self.root / picture.path).is_file():
            raise BadFileError("is listed but not there")
        original = read_photo(self.root / picture.path)
        image = cropper.prepared(original)
        found, count = cropper.find(image)
        box = cropper.box_of(found, video=False) if found is not None else self._given_box(original, annotation)
        if box is None:
            self.findings.leave_out(where, "image in which no face is found")
            return None
        if cropper.is_tiny(box):
            if align.drop_tiny:
                self.findings.leave_out(where, f"face smaller than {align.tiny_px} px")
                return None
            self.findings.note(where, f"face smaller than {align.tiny_px} px")
        if found is not None:
            crop = cropper.crop(image, found, box)
            if count > 1:
                self.findings.note(where, "image with several faces, one taken")
        else:
            crop = cropper.crop_box(original, box)
            how = "and turned upright" if crop.landmarks is not None else "as it is: no face is found in it either"
            self.findings.note(where, f"image in which no face is found: annotated box cut {how}")
        key = self._keys[picture.name]
        more = {
            "corpus": "affectnet",
            "valence": annotation.valence,
            "arousal": annotation.arousal,
            "face_box": annotation.box,
            "found_by": "corpus" if found is None else "detector",
            **crop.geometry,
        }
        given = {"given_landmarks": [round(number, 3) for number in annotation.landmarks or ()]}
        return Face(
            key, crop.image, annotation.label, key, where, landmarks=crop.landmarks, more=more, annotations=given
        )

    def _given_box(self, original: UInt8Image, annotation: Annotation) -> Box | None:
        """The corpus' own box, in px of the image as it is; the whole image where there is none; None to leave out."""
        if self.config.on_no_face is OnNoFace.leave_out:
            return None
        height, width = original.shape[:2]
        return squared(annotation.box or (0, 0, width, height))


def squared(box: tuple[int, int, int, int]) -> Box:
    """The square around a box (left, top, width, height): its short side widened on both sides.

    Raises:
        BadFileError: the box is empty.
    """
    left, top, width, height = box
    if width < 1 or height < 1:
        raise BadFileError(f"shows no face that the detector finds, and its annotated box is {width} x {height} px")
    side = max(width, height)
    return Box(left - (side - width) // 2, top - (side - height) // 2, side)


def first_used(pictures: Sequence[Picture], most: int) -> list[Picture]:
    """The list up to its ``most``-th image that is used; all of it for 0."""
    used = 0
    for number, picture in enumerate(pictures):
        used += picture.is_used
        if most and used > most:
            return list(pictures[:number])
    return list(pictures)


def chunks(pictures: Sequence[Picture], size: int) -> Iterator[tuple[tuple[Picture, ...], int]]:
    """Pieces of a list with ``size`` used images each (the last may have fewer), and how many they have.

    Images that are not used stay in their place, so that every one is counted by exactly one shard.
    """
    piece: list[Picture] = []
    used = 0
    for picture in pictures:
        if picture.is_used and used == size:
            yield tuple(piece), used
            piece, used = [], 0
        piece.append(picture)
        used += picture.is_used
    if piece:
        yield tuple(piece), used
