"""The settings of edits and of drawn faces: what tells the points of a sweep apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

AXES = ("gamma", "t0", "num_steps", "inverter", "encode_gamma")
NAMES = {
    "gamma": "guidance scale γ",
    "t0": "editing strength t₀",
    "num_steps": "DDIM steps",
    "inverter": "inverter",
    "encode_gamma": "guidance scale of encoding",
}
TEXTS: Mapping[str, Callable[[Any], str]] = {
    "gamma": "γ {:g}".format,
    "t0": "t₀ {:g}".format,
    "num_steps": "{:g} steps".format,
    "inverter": str,
    "encode_gamma": "encoded at γ {:g}".format,
}

GENERATION: Mapping[str, str] = {
    "sampler.name": "sampler",
    "sampler.num_steps": "steps",
    "sampler.eta": "η",
    "sampler.gamma": "γ",
    "sampler.gamma_from": "γ from",
    "sampler.gamma_to": "γ to",
    "sampler.clip": "clip",
    "sampler.spacing": "spacing",
    "sampler.precision": "precision",
    "classifier_scale": "classifier",
    "per_class": "faces an emotion",
    "seed": "seed",
}
"""Key of the settings of drawn faces -> its name for people."""


@dataclass(frozen=True, order=True)
class Setting:
    """One point of a sweep of edits; in this order points stand in tables."""

    t0: int = 0
    num_steps: int = 0
    gamma: float = 0.0
    inverter: str = ""
    encode_gamma: float = 0.0

    @classmethod
    def of(cls, edit: Mapping[str, Any]) -> "Setting":
        """From the content of an edit.json."""
        return cls(
            int(edit["t0"]),
            int(edit["num_steps"]),
            float(edit["gamma"]),
            str(edit["inverter"]),
            float(edit["encode_gamma"]),
        )

    def get(self, axis: str) -> Any:
        """The value on an axis: a number, or the inverter's name."""
        return getattr(self, axis)

    def text(self, axis: str) -> str:
        """The value on an axis with its short name."""
        return TEXTS[axis](self.get(axis))


IN_TABLES = tuple(one.name for one in fields(Setting))
"""The axes as tables have them: strength before steps before guidance."""


def varied(settings: Sequence[Setting]) -> list[str]:
    """The axes on which the settings differ. A guidance of encoding that goes along with gamma is none of its own."""
    found = [axis for axis in AXES if len({setting.get(axis) for setting in settings}) > 1]
    if all(setting.encode_gamma == setting.gamma for setting in settings):
        return [axis for axis in found if axis != "encode_gamma"]
    return found


def told(settings: Sequence[Setting]) -> list[str]:
    """The axes by which people are told a setting: always the thesis' three, others where they differ."""
    return [*AXES[:3], *(axis for axis in varied(settings) if axis not in AXES[:3])]


def plain(value: object) -> str:
    """A setting as people read it."""
    return f"{value:g}" if isinstance(value, float) else str(value)
