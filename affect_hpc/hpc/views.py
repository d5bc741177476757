"""Names for people: links from sweep and axis values to run folders, and the record of every launch."""

import getpass
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from affect_hpc.config.root import Config
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import canonical, flat
from affect_hpc.core.io import append_line, read_json, write_json
from affect_hpc.hpc import circumstances
from affect_hpc.hpc.graph import Graph, Node
from affect_hpc.hpc.points import REPORTS


def axes(configs: Sequence[Config]) -> list[str]:
    """One name per sweep point: the keys that differ between the points, with their values."""
    points = [flat(canonical(replace(cfg, stages=type(cfg.stages)(), cluster=type(cfg.cluster)()))) for cfg in configs]
    varied = [key for key in points[0] if any(point.get(key) != points[0][key] for point in points)]
    return [",".join(f"{key}={_plain(point[key])}" for key in varied) or "point" for point in points]


def _plain(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value).replace("/", "_")


def link(where: Path, target: Path) -> None:
    """Point the link ``where`` at ``target``, relatively, in one step."""
    where.parent.mkdir(parents=True, exist_ok=True)
    aside = where.with_name(f".{where.name}.{os.getpid()}.tmp")
    aside.unlink(missing_ok=True)
    aside.symlink_to(os.path.relpath(target, where.parent))
    aside.replace(where)


def write_views(store: Path, configs: Sequence[Config], points: Sequence[dict[str, Node]], graph: Graph) -> Path:
    """Make ``views/<sweep>/<axis=value>/<kind>`` and ``views/<sweep>/report``; returns the sweep's view."""
    view = store / "views" / configs[0].sweep
    for name, point in zip(axes(configs), points, strict=True):
        for kind, node in point.items():
            link(view / name / kind, node.run_dir(store).path)
    for node in graph.nodes:
        if node.kind in REPORTS.values():
            link(view / "report", node.run_dir(store).path / "out")
    return view


def record_launch(store: Path, configs: Sequence[Config], arguments: list[str], graph: Graph) -> None:
    """Add this launch to ``runs/launches.jsonl`` and make it the sweep's current one."""
    launch = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "who": getpass.getuser(),
        "argv": arguments,
        "cwd": str(Path.cwd()),
        "commit": circumstances.commit(),
        "sweep": configs[0].sweep,
        "nodes": [{"name": node.name, "kind": node.kind, "parts": node.parts} for node in graph.nodes],
    }
    append_line(store / "runs" / "launches.jsonl", json.dumps(launch, sort_keys=True))
    write_json(store / "views" / configs[0].sweep / "launch.json", launch)


def find_launch(target: str, store: Path) -> dict[str, Any]:
    """The last launch of a sweep, or the last one that had the given run.

    Args:
        target: name of a sweep, or path of a run folder.

    Raises:
        UserError: where there is none.
    """
    current = store / "views" / target / "launch.json"
    if current.exists():
        launch: dict[str, Any] = read_json(current)
        return launch
    path = Path(target).absolute()
    record = store / "runs" / "launches.jsonl"
    lines = record.read_text().splitlines() if record.exists() else []
    for line in reversed(lines):
        launch = json.loads(line)
        if any((store / "runs" / node["name"]) in (path, *path.parents) for node in launch["nodes"]):
            return launch
    sweeps = sorted(entry.parent.name for entry in (store / "views").glob("*/launch.json"))
    known = ", ".join(sweeps) or "none was launched here"
    raise UserError(f"{target} is neither a sweep nor a run folder of the store {store}: sweeps there are {known}.")
