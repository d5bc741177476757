"""The report of ways between two faces: strips (Fig. 4.3 and 4.4), and how even and how faithful they are."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json
from affect_hpc.data.codec import UInt8Image, decode_png
from affect_hpc.data.images import ImageSet
from affect_hpc.data.shards import Entry, ShardSet
from affect_hpc.metrics import paired
from affect_hpc.report.furniture import text
from affect_hpc.report.sheets import Cell, Column, contact_sheet

DESCRIPTION = "interpolation.json"
AXES: Mapping[str, str] = {
    "eta": "η",
    "slerp": "slerp",
    "label": "label",
    "gamma": "γ",
    "t0": "t₀",
    "num_steps": "steps",
    "num_points": "faces of a way",
    "pairs": "pairs",
    "seed": "seed",
    "time_input": "time input",
    "spacing": "spacing",
    "end_level": "end level",
    "precision": "precision",
}
"""How a point is told: key of its settings -> name for people. In this order points stand."""
FIGURES: Mapping[str, str] = {
    "angle": "angle Ω (°)",
    "psnr_first": "first end (dB)",
    "psnr_second": "second end (dB)",
    "step_mean": "mean step",
    "step_max": "largest step",
    "unevenness": "largest / mean",
    "detour": "detour",
}
"""Figures of a way, as ``measure`` gives them."""
DIGITS = {"angle": 1, "psnr_first": 1, "psnr_second": 1, "step_mean": 2, "step_max": 2, "unevenness": 2, "detour": 2}
ONE_EACH = f"Points of a report differ in {', '.join(AXES)}: make one of its own for each value of any other setting."
STRIPS = 12
"""Ways on one sheet, the first ones; the table has all."""
PRINTED = (
    "The formula as printed (Eq. 4.12) mixes unit vectors: every mixture then has length 1, far below that of noise, so"
    " that the network is shown latents which it never met, and the ends are no round trips. The proper form mixes the"
    " noisy latents themselves, which keeps their length."
)

Levels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Way:
    """One way and its figures."""

    key: str
    first: str
    """Key of the face that it starts from; ``second`` is where it ends."""
    second: str
    labels: tuple[str, str]
    figures: Mapping[str, float]
    jump: float
    """Middle of the largest step: 0 at the first face, 1 at the second."""


@dataclass(frozen=True)
class Point:
    """The ways of one point of a sweep."""

    settings: Mapping[str, Any]
    shards: ShardSet
    ways: Sequence[Way]

    def told(self, axes: Sequence[str]) -> str:
        """Its settings on some axes, for people."""
        return ", ".join(f"{AXES[axis]} {self.settings[axis]}" for axis in axes)

    def mean(self, figure: str) -> float:
        """Plain mean over the ways."""
        return float(np.mean([way.figures[figure] for way in self.ways]))

    def stem(self, axes: Sequence[str]) -> str:
        """Name of its sheet."""
        return "-".join(["strips", *(f"{axis}-{self.settings[axis]}" for axis in axes)])


def load_points(folders: Sequence[Path]) -> list[Point]:
    """All points with their figures; the parts of one are told by their interpolation.json.

    Raises:
        UserError: no folder, a part of a point is missing or there twice, or two points differ on none of the axes.
    """
    if not folders:
        raise UserError("there are no ways to report on: give the output of one interpolation at least.")
    groups: dict[str, list[Path]] = {}
    for folder in sorted(folders):
        groups.setdefault(json.dumps(read_json(folder / DESCRIPTION), sort_keys=True), []).append(folder)
    points = []
    for told, parts in groups.items():
        settings, shards = json.loads(told), ShardSet.open(parts)
        keys = sorted(entry.key for entry in shards)
        if len(set(keys)) != settings["pairs"] or len(keys) != settings["pairs"]:
            raise UserError(
                f"{len(set(keys))} of {settings['pairs']} pairs are there, in {len(keys)} samples of {len(parts)} parts"
                f" like {parts[0]}: give every part once. {ONE_EACH}"
            )
        points.append(Point(settings, shards, [_way(shards, shards.index_of(key)) for key in keys]))
    points.sort(key=lambda point: _place(point.settings))
    for one, other in pairwise(points):
        if _place(one.settings) == _place(other.settings):
            raise UserError(f"two points at {one.told(list(AXES))} stand in one report. {ONE_EACH}")
    return points


def _place(settings: Mapping[str, Any]) -> list[tuple[float, str]]:
    return [_order(settings[axis]) for axis in AXES]


def _order(value: object) -> tuple[float, str]:
    return (float(value), "") if isinstance(value, int | float) else (0.0, str(value))


def varied(points: Sequence[Point]) -> list[str]:
    """The axes on which points differ; of one point, what the thesis varies."""
    return [axis for axis in AXES if len({_order(point.settings[axis]) for point in points}) > 1] or ["eta"]


def _way(shards: ShardSet, place: int) -> Way:
    sample = shards[place]
    ends = [decode_png(shards.read(place, f"{end}.png")) for end in ("first", "second")]
    figures, largest = measure(faces_of(shards, place), ends[0], ends[1])
    middle = (sample.info["fractions"][largest] + sample.info["fractions"][largest + 1]) / 2
    degrees = {"angle": float(np.degrees(sample.info["angle"]))}
    first, second = sample.info["labels"]
    return Way(sample.key, sample.info["first"], sample.info["second"], (first, second), {**degrees, **figures}, middle)


def faces_of(shards: ShardSet, place: int) -> list[UInt8Image]:
    """The faces of a way, from its first end to its second."""
    return [decode_png(shards.read(place, name)) for name in sorted(shards[place].members) if name.startswith("point")]


def measure(faces: Sequence[UInt8Image], first: UInt8Image, second: UInt8Image) -> tuple[Mapping[str, float], int]:
    """Figures of a way that need no judge, and number of its largest step.

    Args:
        faces: at least two, from end to end, (H, W, 3).
        first: what the first stage makes of the face where the way starts; ``second``: where it ends.

    Returns:
        psnr_first, psnr_second: of the ends to these, in dB. step_mean, step_max: root mean square difference of
        neighbours, in levels of 255. unevenness: largest step over the mean one, 1 = all alike. detour: all steps
        together over the difference of the ends, 1 = as short as fading one face into the other. Where nothing
        moves, both are 1.
    """
    steps = [_distance(a, b) for a, b in pairwise(faces)]
    mean, largest, whole = float(np.mean(steps)), int(np.argmax(steps)), _distance(faces[0], faces[-1])
    a, b = (paired.unit_range(images) for images in ([faces[0], faces[-1]], [first, second]))
    psnr_first, psnr_second = paired.psnr(a, b)
    figures = {
        "psnr_first": psnr_first,
        "psnr_second": psnr_second,
        "step_mean": mean,
        "step_max": steps[largest],
        "unevenness": steps[largest] / mean if mean else 1.0,
        "detour": sum(steps) / whole if whole else (np.inf if mean else 1.0),
    }
    return figures, largest


def _distance(a: UInt8Image, b: UInt8Image) -> float:
    difference: Levels = a.astype(np.float64) - b
    return float(np.sqrt(np.mean(difference**2)))


def strips(point: Point, originals: ImageSet) -> Image.Image:
    """The first ways of a point: the original faces at both sides, below each mixture the label of its decoding."""
    shown = point.ways[:STRIPS]
    places = [point.shards.index_of(way.key) for way in shown]
    heads = [Column(f"{fraction:.2f}", "mixed") for fraction in point.shards[places[0]].info["fractions"]]
    heads[0], heads[-1] = Column(heads[0].title, "first end"), Column(heads[-1].title, "second end")
    rows, labels = [], []
    for way, place in zip(shown, places, strict=True):
        sides = [
            Cell(originals.image(originals.shards.index_of(key)), label)
            for key, label in zip((way.first, way.second), way.labels, strict=True)
        ]
        mixed = [
            Cell(face, label)
            for face, label in zip(faces_of(point.shards, place), _decoded_as(point.shards[place]), strict=True)
        ]
        rows.append([sides[0], *mixed, sides[1]])
        labels.append(f"{way.labels[0]}\nto {way.labels[1]}\nΩ {way.figures['angle']:.0f}°")
    return contact_sheet([Column("original", "first face"), *heads, Column("original", "second face")], labels, rows)


def _decoded_as(sample: Entry) -> list[str]:
    return [str(label) for label in sample.info["decoded_as"]]


def csv_text(points: Sequence[Point]) -> str:
    """Every way of every point; floats in full."""
    out = io.StringIO()
    named = ["pair", "first", "second", "label_first", "label_second"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*AXES, *named, *FIGURES, "largest_step_at"])
    for point in points:
        settings = [point.settings[axis] for axis in AXES]
        for way in point.ways:
            figures = [way.figures[figure] for figure in FIGURES]
            writer.writerow([*settings, way.key, way.first, way.second, *way.labels, *figures, way.jump])
    return out.getvalue()


def means(points: Sequence[Point], axes: Sequence[str]) -> str:
    """A row for each point, as HTML."""
    rows = [(point.told(axes), {name: point.mean(name) for name in FIGURES}) for point in points]
    body = "".join(f'<tr><td class="text">{text(told)}</td>{_cells(figures)}</tr>' for told, figures in rows)
    return _table('<th class="text">mean over the ways</th>', "", body)


def every_way(point: Point) -> str:
    """A row for each way, as HTML."""
    body = "".join(
        f'<tr><td class="text">{text(way.first)}</td><td class="text">{text(way.second)}</td>'
        f'<td class="text">{text(" to ".join(way.labels))}</td>{_cells(way.figures)}<td>{way.jump:.2f}</td></tr>'
        for way in point.ways
    )
    heads = '<th class="text">first</th><th class="text">second</th><th class="text">emotions</th>'
    return _table(heads, "<th>largest step at</th>", body)


def _table(left: str, right: str, body: str) -> str:
    heads = left + "".join(f"<th>{text(head)}</th>" for head in FIGURES.values()) + right
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(figures: Mapping[str, float]) -> str:
    return "".join(f"<td>{figures[name]:.{DIGITS[name]}f}</td>" for name in FIGURES)


def remarks(points: Sequence[Point]) -> list[str]:
    """How to read the page, as far as these points need it."""
    found = [
        "Each face is followed back to level t₀ by deterministic DDIM under its own label. The noisy latents are mixed"
        " on the great circle between them (Eq. 4.12), and the mixtures are decoded. Ω is the angle between the two;"
        " independent noise has 90°.",
        "Ends are compared with what the first stage alone makes of the two faces, decibels of PSNR. Without fresh"
        " noise (η 0) that is the round trip of the inversion; what the first stage loses does not count.",
        "A step is the root mean square difference of neighbours, in levels of 255. Largest / mean is 1 for an even"
        " way. The detour is 1 where all steps together are no longer than the difference of the ends, as in fading one"
        " face into the other, which shows two faces at once. Neither figure sees whether the faces between are good.",
        "The same pairs stand on every sheet of a seed; none was chosen.",
    ]
    if any(point.settings["label"] == "nearer" for point in points):
        found.append(
            "The label below a mixture is that of the nearer end. It changes in the middle, and what the network draws"
            " changes with it: the largest step often lies there. The thesis does not say which label it took (D-49)."
        )
    if any(point.settings["label"] == "none" for point in points):
        found.append("No label: the whole way, ends included, is decoded without one, so the ends are no round trips.")
    if any(point.settings["eta"] for point in points):
        found.append(
            "With fresh noise (η above 0, Fig. 4.4) each face of a way has noise of its own: ends are no round trips,"
            " and steps measure the noise as well as the way."
        )
    if any(point.settings["slerp"] == "printed" for point in points):
        found.append(PRINTED)
    return found
