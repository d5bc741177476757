"""The points of a sweep as tables: one CSV for machines, Markdown for people."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json
from affect_hpc.report.axes import AXES, IN_TABLES, Setting, plain, told, varied

FIRST = (
    *("judge", "y_target", "t0", "ddim_steps", "gamma", "psnr", "ssim", "lpips", "csim", "target_accuracy"),
    *(f"pred_{emotion}" for emotion in EMOTIONS),
    "n",
)
"""The columns of the thesis' Table 4.2 and what it lacks, in this order; all others come after them."""
SUFFIXES = ("", "_original", "_truth")
LPIPS = "lpips"
BASELINES = ("unedited", "reconstruction")
LOW, HIGH = "_low", "_high"
"""Ends of the columns with the 95 % bootstrap interval of a mean."""
NO_FIGURES = ("y_target", "n", "seen", "interval")
DECIMALS = {"psnr": 2, "round": 2, "calls": 0}
Figure = float | None


@dataclass(frozen=True)
class Row:
    """One row of a point: what was judged, and its figures by column name."""

    name: str
    figures: Mapping[str, Figure]
    count: int

    def get(self, column: str) -> Figure:
        """A figure, or None where it is undefined."""
        return self.figures.get(column)


@dataclass(frozen=True)
class Point:
    """One evaluated point of a sweep, or the baseline."""

    baseline: bool
    setting: Setting
    settings: Mapping[str, Any]
    """All of the edit, as edit.json holds them."""
    judges: Mapping[str, Any]
    rows: Sequence[Row]
    samples: int
    folder: Path
    """Where metrics.json and samples.parquet lie."""

    @property
    def judge(self) -> str:
        """Name of the emotion judge."""
        return str(self.judges["emotion"]["name"])

    @property
    def perceptual(self) -> str:
        """Name of the perceptual distance, which is also its column."""
        return str(self.judges["perceptual"]["name"])

    @property
    def place(self) -> tuple[str, bool, Setting]:
        """Order in a table: by judge, the baseline first."""
        return (self.judge, not self.baseline, self.setting)

    def row(self, name: str) -> Row | None:
        """The row ``name``, or None where there is none."""
        return next((row for row in self.rows if row.name == name), None)

    def get(self, name: str, column: str) -> Figure:
        """A figure of the row ``name``, or None where either is absent."""
        row = self.row(name)
        return row.get(column) if row else None

    def targets(self) -> list[str]:
        """Emotions that faces were edited to."""
        return [row.name for row in self.rows if row.name in EMOTIONS]


def load_point(folder: Path) -> Point:
    """The point whose reduced metrics lie in ``folder``."""
    content = read_json(folder / "metrics.json")
    rows = []
    for entry in content["rows"]:
        figures = {name: value for name, value in entry.items() if name not in NO_FIGURES}
        for name, (low, high) in entry["interval"].items():
            figures |= {name + LOW: low, name + HIGH: high}
        figures |= {f"pred_{emotion}": share for emotion, share in (entry["seen"] or {}).items()}
        rows.append(Row(entry["y_target"], figures, entry["n"]))
    point = content["point"]
    return Point(
        bool(point["baseline"]),
        Setting() if point["baseline"] else Setting.of(point),
        point,
        content["judges"],
        rows,
        int(content["samples"]),
        folder,
    )


def load_points(folders: Sequence[Path]) -> list[Point]:
    """All points, in the order of the tables.

    Raises:
        UserError: where two of them have the same settings: they could not be told from each other.
    """
    points = sorted((load_point(folder) for folder in folders), key=lambda point: point.place)
    for one, other in pairwise(points):
        if one.place == other.place:
            what = "baseline" if one.baseline else ", ".join(map(one.setting.text, AXES))
            raise UserError(
                f"two evaluations of the same point ({what}, judge {one.judge}) stand in one report: points differ in "
                f"{', '.join(AXES)}. Make a report of its own for each value of any other setting."
            )
    return points


def columns(points: Sequence[Point]) -> list[str]:
    """The columns of table.csv: the fixed ones, other references, then stand-ins for LPIPS under their own names."""
    metrics = ["psnr", "ssim", LPIPS, "csim"]
    extra = [name + suffix for suffix in SUFFIXES[1:] for name in metrics]
    stand_ins = sorted({point.perceptual for point in points} - {LPIPS})
    extra += [name + suffix for name in stand_ins for suffix in SUFFIXES]
    seconds = ["second_accuracy", "agreement", *(f"second_csim{suffix}" for suffix in SUFFIXES)]
    extra += [name for name in seconds if any(name in row.figures for point in points for row in point.rows)]
    extra += ["round_trip_db", "residual", "calls", "inverter", "encode_gamma"]
    return [*FIRST, *extra, "identity_judge", "perceptual_judge", *interval_columns(points)]


def interval_columns(points: Sequence[Point]) -> list[str]:
    """Both ends of the interval of every main column that has one."""
    main = ["target_accuracy", "psnr", "ssim", LPIPS, *sorted({point.perceptual for point in points} - {LPIPS}), "csim"]
    there = {name for point in points for row in point.rows for name in row.figures}
    return [name + end for name in main if name + LOW in there for end in (LOW, HIGH)]


def csv_text(points: Sequence[Point]) -> str:
    """table.csv: every row of every point; floats in full (they read back to the same bits), undefined ones empty."""
    names = columns(points)
    out = io.StringIO()
    writer = csv.DictWriter(out, names, restval="", extrasaction="raise", lineterminator="\n")
    writer.writeheader()
    for point in points:
        for row in point.rows:
            writer.writerow(csv_row(point, row, names))
    return out.getvalue()


def csv_row(point: Point, row: Row, names: Sequence[str]) -> dict[str, str]:
    """Column -> text of one row."""
    cells = {name: repr(value) for name in names if (value := row.get(name)) is not None}
    at = point.setting
    axes = {"t0": str(at.t0), "ddim_steps": str(at.num_steps), "gamma": repr(at.gamma)}
    axes |= {"inverter": at.inverter, "encode_gamma": repr(at.encode_gamma)}
    return (
        cells
        | ({} if point.baseline else axes)
        | {
            "judge": point.judge,
            "y_target": row.name,
            "n": str(row.count),
            "identity_judge": str(point.judges["identity"]["name"]),
            "perceptual_judge": point.perceptual,
        }
    )


def rounded(column: str, value: Figure) -> str:
    """A figure for people: dB with two decimals, all else with three; a dash where it is undefined."""
    if value is None:
        return "–"
    return f"{value:.{DECIMALS.get(column.partition('_')[0], 3)}f}"


def people_columns(points: Sequence[Point]) -> list[str]:
    """The columns that people look at first: those of them that hold anything."""
    stand_ins = sorted({point.perceptual for point in points} - {LPIPS})
    wanted = ["target_accuracy", "psnr", "ssim", LPIPS, *stand_ins, "csim", "psnr_original", "psnr_truth"]
    wanted += ["second_accuracy", "agreement", "second_csim", "round_trip_db", "calls"]
    return [name for name in wanted if any(row.get(name) is not None for point in points for row in point.rows)]


def markdown(points: Sequence[Point]) -> str:
    """table.md: the same rows with the main columns, rounded."""
    names = people_columns(points)
    known = told([point.setting for point in points if not point.baseline])
    axes = [axis for axis in IN_TABLES if axis in known]
    head = ["judge", "y_target", *("steps" if axis == "num_steps" else axis for axis in axes), *names, "n"]
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for point in points:
        at = ["–" if point.baseline else plain(point.setting.get(axis)) for axis in axes]
        for row in point.rows:
            figures = [rounded(name, row.get(name)) for name in names]
            lines.append([point.judge, row.name, *at, *figures, str(row.count)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


@dataclass(frozen=True)
class Sweep:
    """The edited points of one judge, the baseline beside them, and which axis was swept."""

    judge: str
    points: Sequence[Point]
    baseline: Point | None

    @property
    def axis(self) -> str:
        """The axis with most values, gamma where there is but one point."""
        return max(self.told, key=lambda name: len({point.setting.get(name) for point in self.points}))

    @property
    def told(self) -> list[str]:
        """The axes by which its points are told."""
        return told([point.setting for point in self.points])

    def panels(self) -> dict[str, list[Point]]:
        """Label of the other axes' values -> the points along the swept axis there, in order."""
        others = [name for name in IN_TABLES if name in self.told and name != self.axis]
        groups: dict[str, list[Point]] = {}
        for point in sorted(self.points, key=lambda one: [one.setting.get(name) for name in (*others, self.axis)]):
            groups.setdefault(", ".join(map(point.setting.text, others)), []).append(point)
        return groups

    def where(self, point: Point) -> str:
        """A point by the axes that tell it from the others."""
        axes = varied([one.setting for one in self.points]) or [self.axis]
        return ", ".join(map(point.setting.text, axes))

    def targets(self) -> list[str]:
        """Emotions that any point was edited to, in order of their ids."""
        found = {target for point in self.points for target in point.targets()}
        return [emotion for emotion in EMOTIONS if emotion in found]

    def has(self, column: str) -> bool:
        """Whether any edited row has a figure in ``column``."""
        return any(row.get(column) is not None for point in self.points for row in point.rows)


def sweeps(points: Sequence[Point]) -> list[Sweep]:
    """One sweep per emotion judge that saw edited faces."""
    found = []
    for judge in sorted({point.judge for point in points}):
        own = [point for point in points if point.judge == judge]
        edited = [point for point in own if not point.baseline]
        if edited:
            found.append(Sweep(judge, edited, next((point for point in own if point.baseline), None)))
    return found


def best_point(sweep: Sweep) -> Point:
    """The point with the highest mean target accuracy; of equal ones the gentlest (first along the axes)."""
    return max(sweep.points, key=lambda point: point.get("mean", "target_accuracy") or 0.0)
