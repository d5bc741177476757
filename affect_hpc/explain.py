"""python -m affect_hpc.explain SWEEP/POINT/ROW/FIGURE: how a cell of a report's table came about."""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from affect_hpc.config.packaged import WEIGHTS
from affect_hpc.config.supplied import SUPPLIED
from affect_hpc.core.errors import UserError
from affect_hpc.core.rundir import RunDir
from affect_hpc.hpc.lineage import Record, lineage
from affect_hpc.report.cells import ADDRESS, Cell, find
from affect_hpc.report.differences import by_kind

SHORT = 12
"""Digits of a digest that people see; --json has all."""


def main(argv: list[str] | None = None) -> int:
    """Explain a cell; exit code 0, or 2 where there is no such cell."""
    parser = argparse.ArgumentParser(prog="python -m affect_hpc.explain", description=__doc__)
    parser.add_argument("cell", metavar="CELL", help=f"{ADDRESS}, as in table_4_2/t0=500,gamma=3/mean/psnr")
    parser.add_argument("--store", type=Path, default=Path(), help="folder that holds runs/ and views/ (default: here)")
    parser.add_argument("--json", action="store_true", help="the same for machines, digests in full")
    arguments = parser.parse_args(argv)
    try:
        cell = find(arguments.cell, arguments.store.absolute())
        told = explanation(cell, *lineage(RunDir(cell.run)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(told, indent=1, sort_keys=True) if arguments.json else "\n".join(_lines(told)))
    return 0


def explanation(cell: Cell, records: Sequence[Record], gone: Sequence[str]) -> dict[str, Any]:
    """Everything that is known of a cell, as JSON data.

    Args:
        records: the run that holds it and all before it, parents first.
        gone: names of runs among these whose folders were removed.
    """
    weights = {f"{record.run.name}/{name}": sha256 for record in records for name, sha256 in record.weights.items()}
    given = {f"{one.role} ({one.path})": one.digest for record in records for one in record.given}
    return {
        "cell": {"address": cell.address, "value": cell.value, "interval": cell.interval, "images": cell.count},
        "thesis": {"value": cell.printed, "differs_in": by_kind(cell.differences)},
        "settings": dict(cell.settings),
        "judges": {role: dict(judge) | {"licence": licence(judge["name"])} for role, judge in cell.judges.items()},
        "code": _same(records, "code"),
        "versions": {name: version for record in records for name, version in record.versions.items()},
        "seeds": _named(records, "seed"),
        "precision": _named(records, "precision"),
        "devices": _same(records, "device"),
        "data": {r.run.name: r.digest for r in records if r.spec["stage"] == "prepare_shards"},
        "weights": weights | given,
        "gpu_hours": round(sum(record.hours(of_gpus=True) for record in records), 4),
        "cpu_hours": round(sum(record.hours(of_gpus=False) for record in records), 4),
        "runs": [
            {
                **{"run": r.run.name, "kind": r.spec["kind"], "parts": r.spec["parts"], "code": r.told("code")},
                **{"device": r.told("device"), "node": r.told("node"), "ranks": r.told("ranks"), "digest": r.digest},
                **{"gpu_hours": round(r.hours(True), 4), "cpu_hours": round(r.hours(False), 4), "config": r.config},
            }
            for r in records
        ],
        "gone": list(gone),
        "terms": records[-1].terms,
        "given": [asdict(one) for record in records for one in record.given],
    }


def licence(judge: str) -> str:
    """The licence of a judge's weights; a network that the sweep trained itself has that of its corpus."""
    known = WEIGHTS.get(judge) or SUPPLIED.get(judge)
    return known.licence if known else "that of the corpus that it was trained on"


def _same(records: Iterable[Record], name: str) -> dict[str, list[str]]:
    """Value -> the runs that tell it."""
    found: dict[str, list[str]] = {}
    for record in records:
        found.setdefault(record.told(name), []).append(record.run.name)
    return found


def _named(records: Iterable[Record], name: str) -> dict[str, Any]:
    """The settings of all runs whose key ends so."""
    return {
        f"{record.run.name} {key}": value
        for record in records
        for key, value in record.config.items()
        if key.split(".")[-1] == name
    }


def _lines(told: Mapping[str, Any]) -> Iterable[str]:
    cell, thesis = told["cell"], told["thesis"]
    ends = f", 95 %: {_plain(cell['interval'][0])} to {_plain(cell['interval'][1])}" if cell["interval"] else ""
    images = f", {cell['images']} images" if cell["images"] is not None else ""
    yield f"{cell['address']} = {_plain(cell['value'])}{ends}{images}"
    if thesis["value"] is not None:
        yield f"the thesis prints {_plain(thesis['value'])}"
    for kind, sentences in thesis["differs_in"].items():
        yield f"  {kind} differs: {'; '.join(sentences)}"
    yield from _section("settings", told["settings"])
    judges = {
        role: f"{j['name']}, licence {j['licence']}, sha256 {_cut(j['digest'])}" for role, j in told["judges"].items()
    }
    yield from _section("judges", judges)
    yield from _section("code", {commit: _runs(runs) for commit, runs in told["code"].items()})
    yield from _section("devices", {device: _runs(runs) for device, runs in told["devices"].items()})
    yield from _section("versions", told["versions"])
    yield from _section("seeds", told["seeds"])
    yield from _section("precision", told["precision"])
    yield from _section("data (sha256 over shards)", {name: _cut(sha256) for name, sha256 in told["data"].items()})
    yield from _section("weights (sha256)", {name: _cut(sha256) for name, sha256 in told["weights"].items()})
    names = ("owner", "version", "url", "points")
    yield from _section(
        "terms of the corpora",
        {corpus: "; ".join(_plain(terms[name]) for name in names) for corpus, terms in told["terms"].items()},
    )
    yield ""
    cost = f"{told['gpu_hours']:g} GPU-hours, {told['cpu_hours']:g} CPU-hours"
    yield f"runs: {cost} in all, shared by all cells that hang on them"
    yield from (f"  {name}: its folder is gone" for name in told["gone"])
    for run in told["runs"]:
        cost = f"{run['gpu_hours']:g} GPU-hours" if run["gpu_hours"] else f"{run['cpu_hours']:g} CPU-hours"
        yield f"  {run['run']} ({run['kind']}, {run['parts']} parts): {cost}, outputs sha256 {_cut(run['digest'])}"
        yield from (f"      {key}={_plain(value)}" for key, value in run["config"].items())


def _section(title: str, entries: Mapping[str, Any]) -> Iterable[str]:
    if not entries:
        return
    yield ""
    yield title
    width = max(map(len, entries))
    for name, value in entries.items():
        yield f"  {name:{width}s}  {_plain(value)}"


def _runs(names: Sequence[str]) -> str:
    return f"{len(names)} runs" if len(names) > 1 else names[0]


def _cut(sha256: str) -> str:
    return sha256[:SHORT]


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


if __name__ == "__main__":
    sys.exit(main())
