"""One cell of a report's table, found by an address, and what the thesis prints at its place."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import flat
from affect_hpc.core.io import read_json
from affect_hpc.report import thesis
from affect_hpc.report.axes import Setting
from affect_hpc.report.differences import Difference, of_editing, of_generation

ADDRESS = "SWEEP/POINT/ROW/FIGURE"
MADE_BY: Mapping[str, str] = {"reduce": "y_target", "judge_generation": "name", "interpolate": "pair"}
"""Kind of the run that holds a point's figures -> the column that names its rows."""


@dataclass(frozen=True)
class Cell:
    """A figure and where it comes from."""

    address: str
    """Whole and exact."""
    value: Any
    interval: tuple[float, float] | None
    """Ends of the 95 % interval, where the figure has one."""
    count: int | None
    """Images behind it."""
    run: Path
    """Folder of the run that holds it."""
    settings: Mapping[str, Any]
    """Of the point, by dotted keys."""
    judges: Mapping[str, Mapping[str, Any]]
    """Role -> name and digest."""
    printed: float | None
    """The thesis' figure at the same setting."""
    differences: Sequence[Difference]
    """What keeps the two apart besides the model."""


def find(address: str, store: Path) -> Cell:
    """The cell at ``SWEEP/POINT/ROW/FIGURE``.

    A point is named as its folder in ``views/<sweep>``, or by some of its settings, ``t0=500,gamma=3``, as many as tell
    it from the others.

    Raises:
        UserError: no such sweep, point, row or figure; the sentence names those that there are.
    """
    names = address.split("/")
    sweeps = sorted(path.parent.name for path in (store / "views").glob("*/launch.json"))
    if names[0] not in sweeps:
        raise UserError(
            f"{address!r} names no sweep of the store {store}: there are {_list(sweeps)}; give {ADDRESS},"
            " or another store with --store."
        )
    view = store / "views" / names[0]
    points = {path.name: path for path in sorted(view.iterdir()) if path.is_dir() and path.name != "report"}
    if len(names) < 2 or not names[1]:
        raise UserError(f"{address!r} names no cell: {names[0]} has the points {_list(points)}; give {ADDRESS}.")
    point = _point(names[1], points)
    rows = _rows(view, point)
    row = _one_of(rows, names[2] if len(names) > 2 else "", "row", address)
    figure = _one_of(_figures(row.content), "/".join(names[3:]), "figure", address)
    low_high = row.content.get("interval", {}).get(names[3])
    printed, differences = _beside(view, point, row, names[3])
    return Cell(
        f"{names[0]}/{point.name}/{names[2]}/{names[3]}",
        figure,
        (low_high[0], low_high[1]) if low_high else None,
        row.content.get("n"),
        row.run,
        flat(row.settings),
        row.judges,
        printed,
        differences,
    )


@dataclass(frozen=True)
class _Row:
    """One row of a point's table."""

    content: Mapping[str, Any]
    settings: Mapping[str, Any]
    judges: Mapping[str, Mapping[str, Any]]
    told: Mapping[str, Any]
    """All that stands beside the rows."""
    run: Path


def _rows(view: Path, point: Path) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for kind in ("reduce", "reduce_baseline", "judge_generation"):
        run = (point / kind).resolve()
        if not (run / "out" / "metrics.json").exists():
            continue
        told = read_json(run / "out" / "metrics.json")
        name = MADE_BY[kind.removesuffix("_baseline")]
        for content in told["rows"]:
            rows.setdefault(content[name], _Row(content, told["point"], told["judges"], told, run))
    if (point / "interpolate").exists():
        rows |= _ways(view, point)
    if not rows:
        raise UserError(f"{point} has no figures yet: `python -m affect_hpc.status {view.name}` says what is to run.")
    return rows


def _ways(view: Path, point: Path) -> dict[str, _Row]:
    """The ways of a point: their figures stand in the report's table alone."""
    run, table = (point / "interpolate").resolve(), view / "report" / "table.csv"
    told = sorted(run.glob("out/interpolation.json")) or sorted(run.glob("parts/*/out/interpolation.json"))
    if not told or not table.exists():
        return {}
    settings = read_json(told[0])
    with table.open() as lines:
        rows = list(csv.DictReader(lines))
    mine = [row for row in rows if all(row[name] == str(value) for name, value in settings.items() if name in row)]
    return {row[MADE_BY["interpolate"]]: _Row(row, settings, {}, {}, run) for row in mine}


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """Figure -> value; the shares of emotions seen as in the tables."""
    plain = {name: value for name, value in row.items() if name not in (*MADE_BY.values(), "n", "seen", "interval")}
    return plain | {f"pred_{emotion}": share for emotion, share in (row.get("seen") or {}).items()}


def _beside(view: Path, point: Path, row: _Row, figure: str) -> tuple[float | None, list[Difference]]:
    """The thesis' figure, and what differs; nothing of rows that it has no counterpart for."""
    corpora = sorted((point / "prepare_shards").resolve().rglob("manifest.json"))
    corpus = read_json(corpora[0])["data"] if corpora else {}
    if "kid_std" in row.content:
        printed = thesis.generation().get(row.content["name"], {}).get(figure)
        return printed, of_generation(flat(row.settings), row.judges, row.told["settings"], corpus)
    if "y_target" not in row.content or row.settings["baseline"]:
        return None, []
    at = Setting.of(row.settings)
    figures = thesis.at(row.content["y_target"], at.t0, at.num_steps, at.gamma) or {}
    return figures.get(figure), of_editing(row.settings, row.judges, row.told["samples"], corpus)


def _point(wanted: str, points: Mapping[str, Path]) -> Path:
    if wanted in points:
        return points[wanted]
    pairs = [part.partition("=")[::2] for part in wanted.split(",")]
    found = [path for name, path in points.items() if all(_has(path, name, *pair) for pair in pairs)]
    if len(found) != 1:
        many = "several points" if found else "no point"
        raise UserError(
            f"{wanted!r} names {many}: {_list([path.name for path in found] or points)}; give one of them, or as many"
            " of its settings as tell it from the others."
        )
    return found[0]


def _has(path: Path, folder: str, key: str, value: str) -> bool:
    """Whether a point has ``key=value`` in its name, or in its settings."""
    named = [part.partition("=")[::2] for part in folder.split(",")]
    settings = read_json(path / "reduce" / "out" / "metrics.json")["point"] if (path / "reduce/out").exists() else {}
    known = {**flat(settings), **dict(named)}
    return any(_same(str(own), value) for name, own in known.items() if name == key or name.endswith(f".{key}"))


def _same(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b


def _one_of(known: Mapping[str, Any], name: str, what: str, address: str) -> Any:
    if name not in known:
        raise UserError(f"{address!r} has {what} {name!r}: the valid ones are {_list(known)}; give {ADDRESS}.")
    return known[name]


def _list(names: Any) -> str:
    return ", ".join(names) or "none"
