"""What the judges said of every single image: one table, for error analysis and for intervals.

A Parquet file with a line an image: key (of the face), label, row (what was judged), seen (emotion), and a column for
each metric, empty where it is undefined. Lines stand in the order of row and key, so that the file is the same for any
division of the work.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from affect_hpc.core.io import write_bytes
from affect_hpc.metrics.intervals import Interval, interval

FILE = "samples.parquet"
PLAIN = ("key", "label", "row", "seen")
Line = Mapping[str, Any]
"""Column -> value, of one image."""


def write_samples(path: Path, lines: Iterable[Line], settings: Mapping[str, Any]) -> None:
    """Write the lines, and how they came about as metadata of the file (key ``affect_hpc``, JSON).

    Args:
        lines: of all parts, in any order.
    """
    ordered = sorted(lines, key=lambda line: (line["row"], line["key"]))
    metrics = sorted({name for line in ordered for name in line} - {*PLAIN})
    columns = {name: pa.array([line[name] for line in ordered], pa.string()) for name in PLAIN}
    columns |= {name: pa.array([line.get(name) for line in ordered], pa.float64()) for name in metrics}
    table = pa.table(columns).replace_schema_metadata({"affect_hpc": json.dumps(settings, sort_keys=True)})
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    write_bytes(path, content.getvalue())


def read_samples(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The lines of a file; of ``columns`` only, where these are named."""
    lines: list[dict[str, Any]] = pq.read_table(path, columns=list(columns) if columns else None).to_pylist()
    return lines


def read_settings(path: Path) -> dict[str, Any]:
    """How the lines of a file came about."""
    settings: dict[str, Any] = json.loads(pq.read_schema(path).metadata[b"affect_hpc"])
    return settings


def intervals(
    lines: Iterable[Line], groups: Mapping[str, Sequence[str]], seed: int, draws: int
) -> dict[str, dict[str, Interval]]:
    """95 % confidence interval of every mean: row -> metric -> its ends.

    What is drawn again is the face: in a row that joins several images of one, all of these come along, for they are
    not independent.

    Args:
        groups: name of a row -> the rows that it joins; a plain row joins itself.
    """
    values: dict[str, dict[str, dict[str, float]]] = {}
    for line in lines:
        row = values.setdefault(line["row"], {})
        for metric, value in line.items():
            if metric not in PLAIN and value is not None:
                row.setdefault(metric, {})[line["key"]] = value
    found: dict[str, dict[str, Interval]] = {}
    for name, members in groups.items():
        parts = [values[member] for member in members if member in values]
        for metric in sorted({metric for part in parts for metric in part}):
            by_face: dict[str, list[float]] = {}
            for part in parts:
                for key, value in part.get(metric, {}).items():
                    by_face.setdefault(key, []).append(value)
            means = {key: sum(own) / len(own) for key, own in by_face.items()}
            ends = interval(means, seed, draws=draws, counts={key: len(own) for key, own in by_face.items()})
            if ends is not None:
                found.setdefault(name, {})[metric] = ends
    return found
