"""A reference folder: its tensors, the settings of its cases, and the checks that both fit together.

The name of a case is settings and a result, as in ``t0_500.gamma_3.steps_8.z_edit``: ``key_value`` and a dot, any
number of them in any order, and what was computed. What the name leaves out is looked for at the top of ``config.json``
(not for metrics) and is the product's default otherwise. An input is looked for under the settings of the case first,
then by itself.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from affect_hpc.config.edit import EndLevel, Inverter, Spacing, TimeInput
from affect_hpc.config.sampling import Sampler
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json
from affect_hpc.models.pretrained import Weights

CASES, CHECKPOINT, CONFIG = "cases.safetensors", "ldm.ckpt", "config.json"
INPUTS = (
    *("image", "t", "label", "source_label", "target_label", "sample_label", "z_start", "noise"),
    *("features_generated", "features_real", "image_a", "image_b", "embedding_a", "embedding_b"),
)
"""Tensors that others are computed from, and that are not computed themselves."""
NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"


class Range(NamedTuple):
    """What a number may be."""

    low: float
    high: float
    whole: bool = False


NUMBERS: Mapping[str, Range] = {
    "t0": Range(0, 100_000),
    "steps": Range(1, 100_000, whole=True),
    "gamma": Range(0, 100),
    "encode_gamma": Range(0, 100),
    "gamma_from": Range(0, 100_000, whole=True),
    "gamma_to": Range(0, 100_000, whole=True),
    "classifier_scale": Range(0, 1000),
    "clip": Range(0, 1000),
    "eta": Range(0, 1),
    "refinements": Range(1, 100, whole=True),
    "mixing": Range(0.5, 1),
    "subsets": Range(1, 100_000, whole=True),
    "size": Range(2, 1_000_000, whole=True),
    "seed": Range(0, 2**32 - 1, whole=True),
    "k": Range(1, 1_000_000, whole=True),
}
WORDS: Mapping[str, type[Enum]] = {
    "spacing": Spacing,
    "end_level": EndLevel,
    "time_input": TimeInput,
    "inverter": Inverter,
    "sampler": Sampler,
    "weights": Weights,
}
OF_METRICS = ("subsets", "size", "seed", "k")
"""Words that mean other things at the top of config.json."""
KEYS = "|".join(sorted((*NUMBERS, *WORDS), key=len, reverse=True))
SETTING = re.compile(rf"({KEYS})_({NUMBER}|[a-z][a-z_]*)\.")
Word = TypeVar("Word", bound=Enum)


def size_of(tensor: Tensor) -> str:
    """2x3x8x8 of float32."""
    shape = "x".join(map(str, tensor.shape)) or "a single number"
    return f"{shape} of {str(tensor.dtype).removeprefix('torch.')}"


@dataclass(frozen=True)
class Folder:
    """What a reference folder holds.

    Args:
        path: the folder.
        tensors: of its cases, in the order of the file.
        config: the top of config.json; empty where there is none, which cases of metrics do without.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]

    @property
    def file(self) -> Path:
        """That the tensors are from."""
        return self.path / CASES

    @classmethod
    def read(cls, path: Path) -> "Folder":
        """Raises UserError where a file is missing or wrong."""
        file, config = path / CASES, path / CONFIG
        if not file.is_file():
            raise UserError(f"{path} holds no {CASES}: give a folder with it, {CHECKPOINT} and {CONFIG}.")
        try:
            tensors = load_file(file)
        except SafetensorError as error:
            raise UserError(f"{file} is no safetensors file ({error}): copy it again.") from None
        content = {}
        if config.is_file():
            try:
                content = read_json(config)
            except (OSError, ValueError) as error:
                raise UserError(f"{config} is no JSON ({str(error).splitlines()[0]}): mend it.") from None
            if not isinstance(content, dict):
                raise UserError(f"{config} is no mapping: give one of terms and values.")
        return cls(path, tensors, content)


@dataclass(frozen=True)
class Case:
    """A tensor of the reference that can be recomputed.

    Args:
        name: of the tensor.
        settings: of its name.
        what: the last part of its name.
    """

    folder: Folder
    name: str
    settings: Mapping[str, str]
    what: str

    @classmethod
    def parse(cls, folder: Folder, name: str) -> "Case":
        """The parts of a name; a key that comes twice stays in ``what``, which then means nothing."""
        settings: dict[str, str] = {}
        position = 0
        while (match := SETTING.match(name, position)) and match[1] not in settings:
            settings[match[1]] = match[2]
            position = match.end()
        return cls(folder, name, settings, name[position:])

    @property
    def prefix(self) -> str:
        """The settings as the name has them, with a dot behind them."""
        return self.name.removesuffix(self.what)

    def said(self, key: str) -> tuple[Any, str]:
        """The value of a setting, None where nothing says it, and who says it."""
        if key in self.settings:
            return self.settings[key], f"{self.folder.file}: {self.name}"
        return None if key in OF_METRICS else self.folder.config.get(key), str(self.folder.path / CONFIG)

    def number(self, key: str, default: float) -> float:
        """A setting that is a number; UserError where it is none, or out of range."""
        value, where = self.said(key)
        if value is None:
            return default
        low, high, whole = NUMBERS[key]
        try:
            number = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not low <= number <= high or (whole and number != int(number)):
            kind = "an integer" if whole else "a number"
            raise UserError(f"{where}: {key}={value} cannot be computed: it must be {kind} from {low:g} to {high:g}.")
        return number

    def whole(self, key: str, default: int) -> int:
        """A setting that is an integer; errors as ``number``."""
        return int(self.number(key, default))

    def word(self, key: str, default: Word) -> Word:
        """A setting that is one of few words; UserError where it is another one."""
        value, where = self.said(key)
        if value is None:
            return default
        valid = type(default).__members__
        if not isinstance(value, str) or value not in valid:
            raise UserError(f"{where}: {key}={value} cannot be computed: the valid ones are {', '.join(valid)}.")
        return valid[value]

    def given(self, what: str) -> tuple[str, Tensor]:
        """A tensor of the reference that this one is computed from, and its name."""
        tensors = self.folder.tensors
        for name in (self.prefix + what, what):
            if name in tensors:
                return name, tensors[name]
        # Results are those of the same settings; inputs mostly stand by themselves.
        name = what if what in INPUTS or not self.prefix else self.prefix + what
        raise UserError(f"{self.folder.file} holds no {name}, which its other tensors are computed from: add it.")

    def floats(self, what: str, shape: tuple[int | None, ...], sense: str) -> Tensor:
        """A given tensor of real numbers.

        Args:
            shape: None = any side.
            sense: what the shape has to be, in words.

        Raises:
            UserError: it is missing, has another shape or type.
        """
        name, tensor = self.given(what)
        fits = tensor.ndim == len(shape) and all(b in (None, a) for a, b in zip(tensor.shape, shape, strict=True))
        if not fits or not tensor.is_floating_point() or not tensor.numel():
            raise self.unfit(name, tensor, f"floats of {sense}")
        return tensor

    def integers(self, what: str, count: int, high: int, sense: str) -> Tensor:
        """A given tensor of one integer a sample, 0 .. ``high``, as int64; errors as ``floats``."""
        name, tensor = self.given(what)
        if tensor.shape != (count,) or tensor.is_floating_point():
            raise self.unfit(name, tensor, f"{count} integers ({sense})")
        wrong = [value for value in tensor.tolist() if not 0 <= value <= high]
        if wrong:
            raise UserError(f"{self.folder.file}: {name} holds {wrong[0]}, but {sense} goes from 0 to {high}: mend it.")
        return tensor.long()

    def unfit(self, name: str, tensor: Tensor, needed: str) -> UserError:
        """The sentence that a tensor does not fit the others."""
        return UserError(f"{self.folder.file}: {name} is {size_of(tensor)}, where {self.name} needs {needed}: mend it.")


def undeclared(folder: Folder, cases: list[Case]) -> list[str]:
    """Edits that config.json speaks of (strengths, scales, steps) and that no case is of, as sentences."""
    config = folder.config
    strengths, scales, steps = config.get("strengths"), config.get("scales"), config.get("steps")
    if not (isinstance(strengths, list) and isinstance(scales, list) and isinstance(steps, int)):
        return []
    try:
        levels = [float(strength) * float(config["timesteps"]) for strength in strengths]
        gammas = [float(scale) for scale in scales]
    except (KeyError, TypeError, ValueError):
        return []
    edits = [case.settings for case in cases if case.what in ("z_t0", "z_edit", "x_edit")]
    found = {(edit["t0"], float(edit["gamma"])) for edit in edits if edit["steps"] == str(steps)}
    return [
        f"{folder.path / CONFIG} speaks of edits with strength {strength}, scale {gamma:g} and {steps} steps: "
        f"{folder.file} holds none."
        for strength, level in zip(strengths, levels, strict=True)
        for gamma in gammas
        # How a share of the levels was rounded to a level is the reference's affair.
        if not any(scale == gamma and (t0 == str(strength) or abs(float(t0) - level) <= 1) for t0, scale in found)
    ]


def to_double(tensor: Tensor) -> Tensor:
    """In float64, if it is of floats."""
    return tensor.to(torch.float64) if tensor.is_floating_point() else tensor
