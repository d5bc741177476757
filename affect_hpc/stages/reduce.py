"""Merge the states of all parts, check that every face was judged once, and divide."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from affect_hpc.config.stages import ReduceConfig
from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, write_json
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.metrics.samples import FILE, intervals, write_samples
from affect_hpc.metrics.suite import RowState, SuiteState, keys_digest

log = logging.getLogger(__name__)

SAME = ("point", "targets", "expected", "judges")
"""What all parts of one evaluation must agree on."""


def run(cfg: ReduceConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Reads: states (the parts of one evaluation). Writes: ``metrics.json`` and ``samples.parquet``."""
    folders = inputs.many("states")
    metrics = merged_metrics(folders)
    lines = [json.loads(line) for folder in folders for line in (folder / "samples.jsonl").read_text().splitlines()]
    targets = [row["y_target"] for row in metrics["rows"] if row["y_target"] in metrics["targets"]]
    groups = {row["y_target"]: [row["y_target"]] for row in metrics["rows"]} | {"mean": targets}
    ends = intervals(lines, groups, cfg.seed, cfg.draws)
    for row in metrics["rows"]:
        row["interval"] = {name: list(pair) for name, pair in ends.get(row["y_target"], {}).items()}
    settings = {name: metrics[name] for name in ("point", "judges")}
    write_samples(place.out / FILE, lines, settings)
    write_json(place.out / "metrics.json", metrics)
    return Outcome({"samples": metrics["samples"], "rows": len(metrics["rows"])})


def merged_metrics(folders: Sequence[Path]) -> dict[str, Any]:
    """The content of metrics.json. Equal for any division of the same samples into parts.

    Raises:
        UserError: where parts do not belong together, or a sample was judged twice or not at all.
    """
    contents = [read_json(folder / "state.json") for folder in folders]
    first = contents[0]
    for folder, content in zip(folders, contents, strict=True):
        for name in SAME:
            if content[name] != first[name]:
                raise UserError(
                    f"{folder}/state.json and {folders[0]}/state.json differ in '{name}' ({content[name]} and "
                    f"{first[name]}): they are no parts of one evaluation. Reduce the parts of each one by themselves."
                )
    state = SuiteState()
    for folder, content in zip(folders, contents, strict=True):
        part = SuiteState.from_json(content["state"])
        twice = sorted(state.keys & part.keys)
        if twice:
            raise UserError(f"{folder} judged {len(twice)} faces again, {twice[0]} among them: give every part once.")
        state = state.merge(part)
    expected = first["expected"]
    if len(state.keys) != expected["count"] or keys_digest(sorted(state.keys)) != expected["digest"]:
        raise UserError(
            f"{len(state.keys)} faces were judged where {expected['count']} were expected: a part is missing. Run the "
            "same launch again; it does what is not done."
        )
    rows = dict(state.rows)
    edited = [rows[target] for target in first["targets"] if target in rows]
    if edited:
        rows["mean"] = mean_row(edited)
    order = row_order(list(rows), first["targets"])
    assert sorted(order) == sorted(rows), "every row has its place"
    return {
        "point": first["point"],
        "judges": first["judges"],
        "targets": list(first["targets"]),
        "samples": len(state.keys),
        "rows": [{"y_target": name, **rows[name].compute()} for name in order],
    }


def mean_row(rows: Sequence[RowState]) -> RowState:
    """All targets together. Every target has the same faces, so this is the mean of the targets' means."""
    total = rows[0]
    for row in rows[1:]:
        total = total.merge(row)
    return total


def row_order(names: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Targets as configured, their mean, then all else; rows of single emotions in the order of their ids."""
    whole = ("mean", "round_trip", "unedited", "reconstruction")
    single = (f"{row}_{kind}_{emotion}" for kind in ("label", "as") for row in whole[2:] for emotion in EMOTIONS)
    return [name for name in (*targets, *whole, *single) if name in names]
