"""Printed results of the thesis, as facts to stand beside. Other data and other judges: never one scale with ours."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

TABLES = {"4.2": "table_4_2.csv", "4.3": "table_4_3.csv"}
SETTING = "AffectNet, 4,000 faces at 128 px; emotions seen by HSEmotion, distances by LPIPS (AlexNet)"
LEFT_OUT = (
    "Left out of Table 4.2: the row of surprised at t0 600, gamma 2, which repeats the shares of gamma 1 (D-43). "
    "Left out of Table 4.3: the row of surprised at t0 400, 20 steps, whose shares add up to 0.972 (D-44). "
    "A mean over the six targets is shown only where all six rows stand."
)


@dataclass(frozen=True)
class ThesisRow:
    """One row of a table."""

    target: str
    t0: int
    num_steps: int
    gamma: float
    figures: Mapping[str, float]


@cache
def table(name: str) -> tuple[ThesisRow, ...]:
    """The rows of Table ``name`` (4.2 or 4.3)."""
    text = (files(__package__) / TABLES[name]).read_text()
    keys = ("y_target", "t0", "ddim_steps", "gamma")
    return tuple(
        ThesisRow(
            row["y_target"],
            int(row["t0"]),
            int(row["ddim_steps"]),
            float(row["gamma"]),
            {column: float(value) for column, value in row.items() if column not in keys},
        )
        for row in csv.DictReader(text.splitlines())
    )


@cache
def means(name: str) -> Mapping[tuple[int, int, float], Mapping[str, float]]:
    """(t0, steps, gamma) -> mean over the six targets; points that lack a row are absent."""
    groups: dict[tuple[int, int, float], list[ThesisRow]] = {}
    for row in table(name):
        groups.setdefault((row.t0, row.num_steps, row.gamma), []).append(row)
    return {
        point: {column: sum(row.figures[column] for row in rows) / len(rows) for column in rows[0].figures}
        for point, rows in groups.items()
        if len(rows) == 6
    }


def mean_at(t0: int, num_steps: int, gamma: float) -> Mapping[str, float] | None:
    """The thesis' mean at a point of a sweep, or None where it prints none."""
    point = (t0, num_steps, gamma)
    return means("4.2").get(point) or means("4.3").get(point)


def at(target: str, t0: int, num_steps: int, gamma: float) -> Mapping[str, float] | None:
    """The thesis' figures of a target, or of ``mean``, at a point of a sweep; None where it prints none."""
    if target == "mean":
        return mean_at(t0, num_steps, gamma)
    rows = (*table("4.2"), *table("4.3"))
    wanted = (target, t0, num_steps, gamma)
    return next((row.figures for row in rows if (row.target, row.t0, row.num_steps, row.gamma) == wanted), None)


@cache
def generation() -> Mapping[str, Mapping[str, float]]:
    """Table 4.1: emotion, ``mean`` (of the emotions) or ``overall`` -> fid, kid (as computed, not in thousandths),
    precision, recall."""
    text = (files(__package__) / "table_4_1.csv").read_text()
    return {
        row["name"]: {
            "fid": float(row["fid"]),
            "kid": float(row["kid_x1e-3"]) / 1000,
            "precision": float(row["precision"]),
            "recall": float(row["recall"]),
        }
        for row in csv.DictReader(text.splitlines())
    }
