"""What a network sees in each sample: features with key and class, written in parts and merged in one order.

A part is two files: ``<name>.safetensors`` with ``features``, float32 of shape (n, D), and ``<name>.jsonl`` with a
header (judge, count, dim) and a line [key, label] for each row. The second is written last: where it is, both are.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from affect_hpc.core.errors import UserError
from affect_hpc.core.io import write_text, writing_file

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of samples in the order of their keys: whatever is computed from it does not know the division.

    Attributes:
        judge: what tells the network apart from others, its name and digest.
        keys: n keys of samples, ascending, each once.
        labels: (n,) class of each sample.
        features: (n, D), finite.
    """

    judge: Mapping[str, str]
    keys: tuple[str, ...]
    labels: Int64
    features: Float32

    def __post_init__(self) -> None:
        count = len(self.keys)
        if self.features.ndim != 2 or len(self.features) != count or self.labels.shape != (count,):
            raise ValueError(
                f"{count} keys do not fit labels of shape {self.labels.shape} and features of {self.features.shape}"
            )
        if any(a >= b for a, b in zip(self.keys, self.keys[1:], strict=False)):
            raise ValueError("the keys do not ascend: build the set with FeatureSet.of")
        # A sum in float64 overflows for no finite features, and needs no mask of their size.
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(self.features.sum(axis=1, dtype=np.float64))
        if not finite.all():
            bad = self.keys[int(finite.argmin())]
            raise ValueError(f"the features of {bad} are not finite numbers: the judge {self.judge} cannot see it")

    @classmethod
    def of(
        cls, judge: Mapping[str, str], keys: Sequence[str], labels: Sequence[int], features: Float32
    ) -> "FeatureSet":
        """The set of samples given in any order.

        Args:
            judge: name and digest of the network.
            keys: n keys.
            labels: n classes.
            features: (n, D) float32.

        Raises:
            UserError: where a key comes twice.
            ValueError: where shapes disagree, or a feature is infinite or NaN.
        """
        _once((key, "the samples given") for key in keys)
        order = sorted(range(len(keys)), key=keys.__getitem__)
        of_sorted = np.asarray(labels, np.int64)[order]
        return cls(dict(judge), tuple(keys[i] for i in order), of_sorted, np.asarray(features, np.float32)[order])

    def __len__(self) -> int:
        return len(self.keys)

    def save(self, folder: Path, name: str) -> None:
        """Write this set as the part ``name`` of ``folder``."""
        with writing_file(folder / f"{name}.safetensors") as aside:
            save_file({"features": np.ascontiguousarray(self.features)}, aside)
        header = {"judge": dict(self.judge), "count": len(self), "dim": self.features.shape[1]}
        rows = zip(self.keys, self.labels.tolist(), strict=True)
        lines = [json.dumps(header, sort_keys=True), *(json.dumps(row) for row in rows)]
        write_text(folder / f"{name}.jsonl", "\n".join(lines) + "\n")

    @classmethod
    def load(cls, folders: Sequence[Path], name: str) -> "FeatureSet":
        """The parts ``name`` of all ``folders`` as one set: the same for any division and any order of the parts.

        Raises:
            UserError: where a part is missing or damaged, a key comes twice, or parts are of different judges or
                lengths of features.
        """
        parts = [_Part.read(Path(folder), name) for folder in folders]
        if not parts:
            raise UserError(f"there are no parts of the features {name!r} to merge: name one folder at least.")
        _once((key, str(part.path)) for part in parts for key in part.keys)
        _agree("judge", {part.path: part.judge for part in parts})
        # A part without samples has asked its network nothing, so it may not know D.
        full = [part for part in parts if part.keys]
        _agree("length of features", {part.path: part.dim for part in full})
        keys = sorted(key for part in parts for key in part.keys)
        row = {key: i for i, key in enumerate(keys)}
        labels = np.empty(len(keys), np.int64)
        features = np.empty((len(keys), (full or parts)[0].dim), np.float32)
        for part in full:
            rows = [row[key] for key in part.keys]
            labels[rows] = part.labels
            features[rows] = part.features()
        return cls(parts[0].judge, tuple(keys), labels, features)

    def of_label(self, label: int) -> "FeatureSet":
        """The samples of one class.

        Raises:
            UserError: where there is none.
        """
        chosen = np.flatnonzero(self.labels == label)
        if not len(chosen):
            there = ", ".join(map(str, np.unique(self.labels))) or "none"
            raise UserError(f"no sample has label {label}: the labels here are {there}; take features of that class.")
        return self._take(chosen)

    def of_labels(self, labels: Sequence[int]) -> "FeatureSet":
        """The samples of some classes; the set itself where these are all."""
        chosen = np.isin(self.labels, labels)
        return self if chosen.all() else self._take(np.flatnonzero(chosen))

    def first(self, count: int) -> "FeatureSet":
        """The first ``count`` samples of each class in the order of keys; all of a class that has fewer."""
        chosen = [np.flatnonzero(self.labels == label)[:count] for label in np.unique(self.labels)]
        return self._take(np.sort(np.concatenate([np.empty(0, np.int64), *chosen])))

    def _take(self, rows: Int64) -> "FeatureSet":
        return FeatureSet(self.judge, tuple(self.keys[i] for i in rows), self.labels[rows], self.features[rows])


@dataclass(frozen=True)
class _Part:
    path: Path
    judge: dict[str, str]
    dim: int
    keys: tuple[str, ...]
    labels: tuple[int, ...]

    @classmethod
    def read(cls, folder: Path, name: str) -> "_Part":
        """Keys and labels of a part; its features stay on the disk."""
        path = folder / f"{name}.safetensors"
        try:
            first, *lines = path.with_name(f"{name}.jsonl").read_text().splitlines()
            header = json.loads(first)
            rows = [json.loads(line) for line in lines]
            part = cls(path, dict(header["judge"]), int(header["dim"]), tuple(r[0] for r in rows), _labels(rows))
            count = int(header["count"])
            with safe_open(path, "np") as file:
                shape = file.get_slice("features").get_shape()
        except FileNotFoundError:
            raise UserError(f"{folder} has no features {name!r}: let the job that writes them finish first.") from None
        except (ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
            raise UserError(f"the features {path} are damaged ({error}): remove them and compute them anew.") from None
        if list(shape) != [count, part.dim] or len(rows) != count:
            raise UserError(
                f"the features {path} are damaged ({len(rows)} keys, {count} announced, features of shape"
                f" {tuple(shape)}): remove them and compute them anew."
            )
        return part

    def features(self) -> Float32:
        """(n, D)"""
        with safe_open(self.path, "np") as file:
            found: Float32 = file.get_tensor("features")
        return found


def _labels(rows: Sequence[Sequence[Any]]) -> tuple[int, ...]:
    return tuple(int(row[1]) for row in rows)


def _once(keys: Iterable[tuple[str, str]]) -> None:
    """Pairs of key and where it stands; UserError where a key stands twice."""
    seen: dict[str, str] = {}
    twice: dict[str, str] = {}
    for key, where in keys:
        if key in seen:
            twice[key] = where
        seen.setdefault(key, where)
    if twice:
        key = min(twice)
        places = " and ".join(sorted({seen[key], twice[key]}))
        raise UserError(
            f"{len(twice)} samples come twice, {key!r} among them (in {places}): name every part"
            " once, and let no two parts take the same sample."
        )


def _agree(what: str, found: Mapping[Path, Any]) -> None:
    """UserError where the parts do not say the same."""
    entries = list(found.items())
    for path, value in entries[1:]:
        if value != entries[0][1]:
            raise UserError(
                f"the features {path} have {what} {value}, but {entries[0][0]} has {entries[0][1]}: merge parts of one"
                " network alone, and compute the others anew."
            )
