"""The report of drawn faces: Table 4.1 beside the thesis', uncurated faces, nearest neighbours."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.hashing import flat
from affect_hpc.core.io import read_json
from affect_hpc.data.images import ImageSet
from affect_hpc.metrics.nearest import Neighbours
from affect_hpc.report import thesis
from affect_hpc.report.axes import GENERATION as AXES
from affect_hpc.report.axes import plain
from affect_hpc.report.furniture import text
from affect_hpc.report.sheets import Cell, Column, contact_sheet

FIGURES = ("fid", "kid", "precision", "recall")
HEADS = {"fid": "FID", "kid": "KID × 1000", "precision": "precision", "recall": "recall"}
DESCRIPTION = "generation.json"


def key_of(settings: Mapping[str, Any]) -> str:
    """Equal for equal settings (the content of generation.json)."""
    return json.dumps(flat(settings), sort_keys=True)


@dataclass(frozen=True)
class Point:
    """One evaluated point of a sweep."""

    settings: Mapping[str, Any]
    """By dotted keys."""
    judges: Mapping[str, Mapping[str, str]]
    """features and manifold -> name and digest."""
    judging: Mapping[str, Any]
    """How the figures were computed."""
    left_out: Mapping[str, int]
    rows: Sequence[Mapping[str, Any]]

    @property
    def key(self) -> str:
        """Equal for equal settings."""
        return key_of(self.settings)

    def row(self, name: str) -> Mapping[str, Any]:
        """The row ``name``; empty where there is none."""
        return next((row for row in self.rows if row["name"] == name), {})

    def told(self, axes: Sequence[str]) -> str:
        """Its settings on some axes, for people."""
        return ", ".join(f"{AXES[axis]} {plain(self.settings[axis])}" for axis in axes)


def load_point(folder: Path) -> Point:
    """The point whose figures lie in ``folder``."""
    content = read_json(folder / "metrics.json")
    return Point(flat(content["point"]), content["judges"], content["settings"], content["left_out"], content["rows"])


def varied(points: Sequence[Point]) -> list[str]:
    """The axes on which points differ; of one point, how it was drawn."""
    found = [axis for axis in AXES if len({plain(point.settings[axis]) for point in points}) > 1]
    return found or ["sampler.name", "sampler.num_steps", "sampler.eta", "sampler.gamma"]


def csv_text(points: Sequence[Point]) -> str:
    """Every row of every point; floats in full."""
    judged = ("fid", "kid", "kid_std", "precision", "recall", "n", "n_real")
    names = ["name", *judged, *AXES, "features", "manifold_features"]
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for point in points:
        for row in point.rows:
            writer.writerow(
                {axis: point.settings[axis] for axis in AXES}
                | {"name": row["name"], **{name: row[name] for name in judged}}
                | {"features": point.judges["features"]["name"], "manifold_features": point.judges["manifold"]["name"]}
            )
    return out.getvalue()


def shown(figure: str, value: float | None) -> str:
    """A figure for people; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value * 1000:.2f}" if figure == "kid" else f"{value:.2f}" if figure == "fid" else f"{value:.3f}"


def markdown(points: Sequence[Point]) -> str:
    """The figures for people."""
    axes = varied(points)
    lines = [["setting", "row", *HEADS.values(), "n", "n real"], ["---"] * 2 + ["---:"] * 6]
    for point in points:
        for row in point.rows:
            figures = [shown(figure, row[figure]) for figure in FIGURES]
            lines.append([point.told(axes), row["name"], *figures, str(row["n"]), str(row["n_real"])])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table(point: Point) -> str:
    """A point's figures beside the thesis', as HTML."""
    printed = thesis.generation()
    head = "".join(
        f"<th{' class=edge' if figure == 'fid' else ''}>{HEADS[figure]}</th>" for _ in range(2) for figure in FIGURES
    )
    judges = f"{point.judges['features']['name']}, {point.judges['manifold']['name']}"
    top = (
        '<tr><th></th><th class="group edge" colspan="2">faces</th>'
        f'<th class="group edge" colspan="4">this run ({text(judges)})</th>'
        '<th class="group edge" colspan="4">thesis, Table 4.1 (Inception, VGG16)</th></tr>'
    )
    body = ""
    for row in point.rows:
        theirs = printed.get(row["name"], {})
        cells = f'<td class="text">{text(row["name"])}</td><td class="edge">{row["n"]}</td><td>{row["n_real"]}</td>'
        for i, figure in enumerate(FIGURES):
            cells += f"<td{' class=edge' if i == 0 else ''}>{shown(figure, row[figure])}</td>"
        for i, figure in enumerate(FIGURES):
            cells += f'<td class="thesis{" edge" if i == 0 else ""}">{shown(figure, theirs.get(figure))}</td>'
        kind = ' class="strong point"' if row["name"] in ("mean", "overall") else ""
        body += f"<tr{kind}>{cells}</tr>"
    names = '<th class="text">emotion</th><th class="edge">drawn</th><th>real</th>'
    return f'<div class="scroll"><table><thead>{top}<tr>{names}{head}</tr></thead><tbody>{body}</tbody></table></div>'


def uncurated(images: ImageSet, count: int) -> Image.Image:
    """The first ``count`` faces of each emotion, in the order of their keys (Fig. 4.1)."""
    found: dict[int, list[int]] = {label: [] for label in range(len(EMOTIONS))}
    keys = [entry.key for entry in images.shards]
    for place in sorted(range(len(images)), key=keys.__getitem__):
        own = found[int(images.shards.labels[place])]
        if len(own) < count:
            own.append(place)
    rows = [[Cell(images.image(place)) for place in own] for own in found.values() if own]
    width = max(map(len, rows))
    rows = [[*row, *[Cell(None)] * (width - len(row))] for row in rows]
    labels = [EMOTIONS[label] for label, own in found.items() if own]
    return contact_sheet([Column(str(number + 1)) for number in range(width)], labels, rows)


def neighbours(drawn: ImageSet, corpus: ImageSet, found: Neighbours) -> Image.Image:
    """Drawn faces, each with its nearest training faces and their distances (Fig. 4.2)."""
    rows, labels = [], []
    for key in sorted(found.best):
        place = drawn.shards.index_of(key)
        near = [
            Cell(corpus.image(corpus.shards.index_of(other)), f"{distance**0.5:.4g}")
            for distance, other in found.best[key]
        ]
        rows.append([Cell(drawn.image(place)), *near, *[Cell(None)] * (found.k - len(near))])
        labels.append(EMOTIONS[int(drawn.shards.labels[place])])
    columns = [Column("drawn"), *(Column(f"{rank + 1}.", "nearest" if rank == 0 else "") for rank in range(found.k))]
    return contact_sheet(columns, labels, rows)
