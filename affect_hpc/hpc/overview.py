"""The jobs of a launch as rows: what status shows and cancel ends."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from affect_hpc.config.cluster import ClusterConfig
from affect_hpc.config.compose import collect
from affect_hpc.core import story
from affect_hpc.core.io import read_json_if_there
from affect_hpc.core.progress import duration
from affect_hpc.core.rundir import PartDir, RunDir
from affect_hpc.hpc import local, slurm
from affect_hpc.hpc.render import last_line, log_lines
from affect_hpc.hpc.views import find_launch

COLORS = {"DONE": "green", "RUNNING": "cyan", "PENDING": "yellow", "FAILED": "red", "CANCELLED": "red", "NEW": "dim"}


@dataclass(frozen=True)
class Row:
    """One job."""

    name: str
    state: str
    """DONE, PENDING, RUNNING, FAILED, CANCELLED, TIMEOUT, LOST (unknown to the scheduler), NEW (never submitted)."""
    node: str
    age_s: float
    """Seconds since it was submitted; for a finished one, what it took."""
    attempts: int
    last: str
    """Progress, or the last log line."""
    log: list[str]
    is_live: bool
    job: dict[str, Any] | None


class Overview:
    """All jobs of the last launch of a sweep, or of one run.

    Raises:
        UserError: where nothing of this name was launched from the store.
    """

    EVERY_S = 3.0

    def __init__(self, target: str, store: Path) -> None:
        path = Path(target).absolute()
        runs = next((parent for parent in (path, *path.parents) if parent.name == "runs"), None)
        self.store = runs.parent if runs is not None and (path / "spec.json").exists() else store
        self.launch = find_launch(target, self.store)
        self.nodes = self.launch["nodes"]
        if path.is_dir() and runs is not None:
            self.nodes = [node for node in self.nodes if (self.store / "runs" / node["name"]) in (path, *path.parents)]
        self.cluster = self._cluster()
        self.jobs = slurm.JobStates(self.store, self.cluster)

    def _cluster(self) -> ClusterConfig:
        words = [word for word in self.launch["argv"] if word.startswith("cluster")]
        return collect(words)[0].cluster

    def rows(self) -> list[Row]:
        """The jobs as they stand now."""
        places = [
            (node["name"] + (f"[{i}]" if node["parts"] > 1 else ""), place)
            for node in self.nodes
            for i, place in enumerate(RunDir(self.store / "runs" / node["name"]).parts_of(node["parts"]))
        ]
        records = [job for _, place in places if not place.is_done() and (job := place.job()) is not None]
        recorded = [job for job in records if job["executor"] == "slurm"]
        if recorded:
            self.jobs.refresh(recorded)
        return [self._row(name, place) for name, place in places]

    def _row(self, name: str, place: PartDir) -> Row:
        job, failure, attempts = place.job(), place.failure(), place.attempts()
        if place.is_done():
            done = place.done()
            figures = "  ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in done["summary"].items()
            )
            figures = "; ".join(filter(None, [figures, story.told(place.keep)]))
            return Row(name, "DONE", done["node"], done["seconds"], attempts, figures, [], False, job)
        state, node, live = self._state(job, failure is not None)
        age = time.time() - job["submitted"] if job else 0.0
        progress = read_json_if_there(place.progress) if live and state == "RUNNING" else None
        last = progress["line"] if progress else last_line(place, self.store)
        last = "; ".join(filter(None, [last, story.told(place.keep)]))
        return Row(name, state, node, age, attempts, last, log_lines(place, self.store), live, job)

    def _state(self, job: dict[str, Any] | None, failed: bool) -> tuple[str, str, bool]:
        if job is None:
            return ("FAILED" if failed else "NEW"), "", False
        if job["executor"] == "local":
            if local.is_live(job):
                return "RUNNING", job["host"], True
            return ("FAILED" if failed else "LOST"), job["host"], False
        state = self.jobs.state(job)
        if state.is_live:
            return state.state, state.node, True
        # COMPLETED without DONE: the job ended well for SLURM, but not for us.
        return ("FAILED" if failed or state.state == "COMPLETED" else state.state), state.node, False

    def table(self, rows: list[Row]) -> Table:
        """The rows for people."""
        table = Table(box=None, padding=(0, 1), header_style="bold")
        for column in ("job", "state", "node", "age", "tries", "last line"):
            table.add_column(column, no_wrap=column != "last line", overflow="fold")
        for row in rows:
            color = COLORS.get(row.state, "red")
            age = duration(row.age_s) if row.age_s else ""
            table.add_row(
                row.name, f"[{color}]{row.state}[/]", row.node, age, str(row.attempts or ""), escape(row.last)
            )
        return table
