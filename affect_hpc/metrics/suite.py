"""What is measured of a set of images, as one mergeable state.

Rows of a point of a sweep:

=========================  ==================================================  =======================================
row                        image                                               psnr, ssim, perceptual, csim against
=========================  ==================================================  =======================================
an emotion                 edited to that emotion                              the reconstruction (D-20)
``round_trip``             decoded under the true label again                  the reconstruction
``reconstruction``         through the first stage and back: the ceiling       the original
``unedited``               the original                                        nothing: only the emotion judge speaks
``<row>_label_<emotion>``  the two above, of the faces with that true label    as the row
``<row>_as_<emotion>``     the two above, taken as an edit to that emotion     nothing but the truth: "doing nothing"
=========================  ==================================================  =======================================

The row ``reconstruction`` has the original as its reference, so its main columns equal its ``*_original`` ones.
Columns with the suffix ``_original`` and ``_truth`` compare with the original and with the rendered target face.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch

from affect_hpc.data.codec import UInt8Image, images_to_tensor
from affect_hpc.experts.registry import EmotionJudge, IdentityJudge, PerceptualDistance
from affect_hpc.metrics import affect, paired
from affect_hpc.metrics.base import Mean, Shares
from affect_hpc.metrics.fingerprint import fingerprint


@dataclass(frozen=True)
class Judges:
    """The frozen networks that look at the images."""

    emotion: EmotionJudge
    identity: IdentityJudge
    perceptual: PerceptualDistance
    second_emotion: EmotionJudge | None = None
    """Another opinion: columns second_accuracy and agreement."""
    second_identity: IdentityJudge | None = None
    """Likewise: column second_csim."""
    device: torch.device = torch.device("cpu")
    """Where they look at images; a judge that is no network of torch takes them from there."""

    def by_role(self) -> dict[str, Any]:
        """Role -> judge, of those that are there."""
        roles = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "device"}
        return {role: judge for role, judge in roles.items() if judge is not None}

    def on(self, device: torch.device) -> "Judges":
        """The same judges, moved to a device."""
        for judge in self.by_role().values():
            if isinstance(judge, torch.nn.Module):
                judge.to(device)
        return replace(self, device=device)


def describe(judges: Judges) -> dict[str, dict[str, Any]]:
    """Role -> name and digest of the judge, and the classes that an emotion judge knows."""
    found = {}
    for role, judge in judges.by_role().items():
        found[role] = {"name": judge.name, "digest": fingerprint(judge)}
        if hasattr(judge, "classes"):
            found[role]["classes"] = list(judge.classes)
    return found


@dataclass(frozen=True)
class Faces:
    """A block of images and what the judges say of it, each asked once."""

    images: Sequence[UInt8Image]
    judges: Judges

    @cached_property
    def unit(self) -> torch.Tensor:
        """(B, 3, H, W) float64 in [0, 1]"""
        return paired.unit_range(self.images).to(self.judges.device)

    @cached_property
    def signed(self) -> torch.Tensor:
        """(B, 3, H, W) float32 in [-1, 1]"""
        return images_to_tensor(self.images).to(self.judges.device)

    @cached_property
    def embedding(self) -> torch.Tensor:
        """(B, D)"""
        return self.judges.identity.embed(self.signed)

    @cached_property
    def seen(self) -> list[str]:
        """The emotion that the judge sees in each image."""
        return self._seen_by(self.judges.emotion)

    @cached_property
    def seen_second(self) -> list[str]:
        """The emotion that the second judge sees in each image; empty where there is none."""
        return self._seen_by(self.judges.second_emotion) if self.judges.second_emotion else []

    @cached_property
    def embedding_second(self) -> torch.Tensor | None:
        """(B, D) by the second identity judge."""
        return self.judges.second_identity.embed(self.signed) if self.judges.second_identity else None

    def _seen_by(self, judge: EmotionJudge) -> list[str]:
        return affect.predicted(judge.probabilities(self.signed), judge.classes)

    def distances(self, reference: "Faces") -> dict[str, list[float]]:
        """Paired metric -> one value per sample. The perceptual one bears its network's name: only LPIPS is lpips."""
        perceptual = self.judges.perceptual.distance(self.signed, reference.signed)
        found = {
            "psnr": paired.psnr(self.unit, reference.unit),
            "ssim": paired.ssim(self.unit, reference.unit),
            self.judges.perceptual.name: [float(value) for value in perceptual.double()],
            "csim": paired.cosine(self.embedding, reference.embedding),
        }
        if self.embedding_second is not None and reference.embedding_second is not None:
            found["second_csim"] = paired.cosine(self.embedding_second, reference.embedding_second)
        return found

    def opinions(self, wanted: Sequence[str]) -> dict[str, list[float | None]]:
        """Whether the judges saw what was wanted; of two, also whether they saw the same (None: one cannot)."""
        first = self.judges.emotion.classes
        found: dict[str, list[float | None]] = {}
        found["target_accuracy"] = [affect.hit(*pair, first) for pair in zip(self.seen, wanted, strict=True)]
        if self.judges.second_emotion is not None:
            second = self.judges.second_emotion.classes
            pairs = list(zip(self.seen, self.seen_second, strict=True))
            found["second_accuracy"] = [
                affect.hit(*pair, second) for pair in zip(self.seen_second, wanted, strict=True)
            ]
            found["agreement"] = [float(a == b) if a in second and b in first else None for a, b in pairs]
        return found


@dataclass(frozen=True)
class Score:
    """What is known of one image: its values (None = undefined) and the emotion seen in it."""

    values: Mapping[str, float | None]
    seen: str


def score(faces: Faces, references: Mapping[str, Faces], wanted: Sequence[str]) -> list[Score]:
    """Judge a block of images.

    Args:
        faces: the images.
        references: suffix of the columns ("" for the main ones) -> the images that they are compared with, in order.
        wanted: the emotion that each image should show.
    """
    columns: dict[str, list[float]] = {}
    measured: dict[int, dict[str, list[float]]] = {}
    for suffix, reference in references.items():
        # The same faces may stand behind two suffixes: they are compared with once.
        if id(reference) not in measured:
            measured[id(reference)] = faces.distances(reference)
        columns |= {name + suffix: values for name, values in measured[id(reference)].items()}
    values: dict[str, Sequence[float | None]] = {**columns, **faces.opinions(wanted)}
    return [Score({name: found[i] for name, found in values.items()}, seen) for i, seen in enumerate(faces.seen)]


@dataclass(frozen=True)
class RowState:
    """The metrics of one row of the table."""

    seen: Shares
    means: Mapping[str, Mean] = field(default_factory=dict)
    count: int = 0

    def add(self, one: Score) -> "RowState":
        """One image more."""
        means = {name: Mean().add(value) for name, value in one.values.items()}
        return RowState(self.seen.add(one.seen), _merged(self.means, means), self.count + 1)

    def merge(self, other: "RowState") -> "RowState":
        """The metrics over the images of both."""
        return RowState(self.seen.merge(other.seen), _merged(self.means, other.means), self.count + other.count)

    def compute(self) -> dict[str, Any]:
        """Figures of the row: metric -> mean or None, ``n``, ``seen`` (class -> share, or None)."""
        figures: dict[str, Any] = {name: mean.compute() for name, mean in sorted(self.means.items())}
        return {**figures, "n": self.count, "seen": self.seen.compute()}

    def to_json(self) -> dict[str, Any]:
        """An exact text form."""
        means = {name: mean.to_json() for name, mean in self.means.items()}
        return {"seen": self.seen.to_json(), "means": means, "count": self.count}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RowState":
        """The inverse of ``to_json``."""
        means = {name: Mean.from_json(mean) for name, mean in content["means"].items()}
        return cls(Shares.from_json(content["seen"]), means, int(content["count"]))


def _merged(a: Mapping[str, Mean], b: Mapping[str, Mean]) -> dict[str, Mean]:
    return {name: a.get(name, Mean()).merge(b.get(name, Mean())) for name in {**a, **b}}


@dataclass(frozen=True)
class SuiteState:
    """All rows over a set of samples, and which samples these are."""

    keys: frozenset[str] = frozenset()
    rows: Mapping[str, RowState] = field(default_factory=dict)

    def add(self, key: str, scores: Mapping[str, Score], classes: Sequence[str]) -> "SuiteState":
        """One sample more: row -> its score there. ``classes`` are those of the emotion judge."""
        rows = {name: RowState(Shares.over(classes)).add(one) for name, one in scores.items()}
        return self.merge(SuiteState(frozenset([key]), rows))

    def merge(self, other: "SuiteState") -> "SuiteState":
        """The state over the samples of both; ValueError where a sample would be counted twice."""
        twice = sorted(self.keys & other.keys)
        if twice:
            raise ValueError(f"{len(twice)} samples were judged twice, {twice[0]} among them")
        rows = dict(self.rows)
        for name, row in other.rows.items():
            rows[name] = rows[name].merge(row) if name in rows else row
        return SuiteState(self.keys | other.keys, rows)

    def to_json(self) -> dict[str, Any]:
        """An exact text form; equal states give equal text."""
        return {"keys": sorted(self.keys), "rows": {name: row.to_json() for name, row in self.rows.items()}}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "SuiteState":
        """The inverse of ``to_json``."""
        rows = {name: RowState.from_json(row) for name, row in content["rows"].items()}
        return cls(frozenset(content["keys"]), rows)


def keys_digest(keys: Sequence[str]) -> str:
    """SHA-256 of a set of sample keys, whatever their order."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()
