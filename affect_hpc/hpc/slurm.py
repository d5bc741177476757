"""Submitting a graph to SLURM: arrays in topological order, roots on hold, then released together."""

import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affect_hpc.config.cluster import ClusterConfig
from affect_hpc.core.io import write_json
from affect_hpc.hpc import executors, scheduler
from affect_hpc.hpc.catalog import CATALOG
from affect_hpc.hpc.circumstances import ARCHIVES
from affect_hpc.hpc.graph import Element, Graph
from affect_hpc.hpc.submit import Array, Decisions, arrays, job_of, write_run


class JobStates:
    """Answers about recorded SLURM jobs, from one look at the scheduler per ``refresh``.

    Args:
        cluster: whose scheduler is asked.
    """

    def __init__(self, store: Path, cluster: ClusterConfig) -> None:
        self.store, self.cluster = store, cluster
        self.known: dict[str, scheduler.JobState] = {}
        self._sought: set[str] = set()

    def refresh(self, jobs: list[dict[str, Any]]) -> None:
        """Ask for all these jobs at once."""
        self._sought.clear()
        ids = [full["id"] for job in jobs if (full := job_of(self._found(job), self.store)).get("id")]
        self.known = scheduler.states(ids, self.cluster.env)

    def _found(self, job: dict[str, Any]) -> dict[str, Any]:
        # The launcher was killed between sbatch and writing the id: the queue knows the array by its name.
        if "array" in job and job["array"] not in self._sought and job_of(job, self.store).get("id") is None:
            self._sought.add(job["array"])
            number = scheduler.find_by_name(job["array"], self.cluster.env)
            if number is not None:
                record_id(self.store, job["array"], number, self.cluster)
        return job

    def state(self, job: dict[str, Any]) -> scheduler.JobState:
        """State of a recorded job; LOST where the scheduler has none."""
        full = job_of(job, self.store)
        return self.known.get(full.get("id") or "", scheduler.LOST)

    def is_live(self, job: dict[str, Any]) -> bool:
        """Whether a recorded SLURM job is pending or running."""
        return "array" in job and self.state(job).is_live

    def release_held(self, elements: list[Element]) -> None:
        """Let go what a launcher that was killed in mid-submission left on hold."""
        jobs = [job for element in elements if (job := element.folder(self.store).job()) is not None]
        held = [job_of(job, self.store)["id"] for job in jobs if self.state(job).reason == "JobHeldUser"]
        scheduler.release(held, self.cluster.env)


def record_id(store: Path, name: str, number: str, cluster: ClusterConfig) -> None:
    """Store the id that SLURM gave to the array ``name``."""
    folder = store / "runs" / "_arrays"
    write_json(folder / f"{name}.id.json", {"job_id": number, "cluster": cluster.name})


@dataclass(frozen=True)
class Submission:
    """What one launch sent."""

    jobs: int
    arrays: int


def dependency_text(array: Array, ids: Mapping[str, str]) -> str:
    """The --dependency of an array, given the ids of the arrays submitted before."""
    parts = [f"aftercorr:{number}" for number in (*(ids[name] for name in array.corr), *array.corr_jobs)]
    after = [*(ids[name] for name in array.after), *array.after_jobs]
    if after:
        parts.append("afterok:" + ":".join(after))
    return ",".join(parts)


def planned(graph: Graph, decisions: Decisions, store: Path, cluster: ClusterConfig) -> list[Array]:
    """The arrays that a launch would send."""

    def live_job(element: Element) -> str:
        job = element.folder(store).job()
        assert job is not None, "an attached element has a job"
        return str(job_of(job, store)["id"])

    return arrays(graph, decisions, live_job, cluster.max_array_size)


def texts(graph: Graph, decisions: Decisions, store: Path, cluster: ClusterConfig) -> list[str]:
    """The sbatch text of every array that a launch would send; ids are shown as the names of the arrays."""
    folder = store / "runs" / "_arrays"
    todo = planned(graph, decisions, store, cluster)
    names = {array.name: f"<{array.name}>" for array in todo}
    return [executors.array_text(request(array, folder, array.name, names, cluster, None), cluster) for array in todo]


def request(
    array: Array, folder: Path, name: str, ids: Mapping[str, str], cluster: ClusterConfig, code: Path | None
) -> executors.ArrayRequest:
    """The sbatch call of an array under the unique ``name``, given the ids of the arrays before it."""
    spec = CATALOG[array.kind]
    resources = cluster.resources_of(spec.stage, spec.resource_class)
    dependency = dependency_text(array, ids)
    return executors.ArrayRequest(folder, name, sorted(array.elements), resources, dependency, array.is_root, code)


def submit(graph: Graph, decisions: Decisions, store: Path, cluster: ClusterConfig) -> Submission:
    """Send what is missing. The caller holds the store's lock.

    Intent before effect: index file and job records are written, then sbatch is called, then the id is stored; a
    launcher killed in between leaves a name by which the next one finds the job. Roots are held until everything is
    in the queue, so that no parent can end, and be forgotten by SLURM, before its children are known.
    """
    folder = store / "runs" / "_arrays"
    folder.mkdir(parents=True, exist_ok=True)
    todo = planned(graph, decisions, store, cluster)
    code = archive_code(store)
    launch = uuid.uuid4().hex[:6]
    ids: dict[str, str] = {}
    for array in todo:
        name = f"{array.name}-{launch}"
        elements = {}
        for index, element in array.elements.items():
            write_run(element.node, store)
            elements[str(index)] = str(element.folder(store).path)
        write_json(folder / f"{name}.json", {"name": name, "kind": array.kind, "elements": elements})
        for index, element in array.elements.items():
            place = element.folder(store)
            (place.path / "FAILED").unlink(missing_ok=True)
            job = {
                "executor": "slurm",
                "cluster": cluster.name,
                "array": name,
                "index": index,
                "submitted": time.time(),
            }
            place.record_job(job)
        ids[array.name] = executors.submit_array(request(array, folder, name, ids, cluster, code), cluster)
        record_id(store, name, ids[array.name], cluster)
    scheduler.release([ids[array.name] for array in todo if array.is_root], cluster.env)
    return Submission(sum(len(array.elements) for array in todo), len(todo))


def archive_code(store: Path) -> Path | None:
    """The committed tree of this project, unpacked once below the store; None where there is no git checkout."""
    here = Path(__file__).parent.parent.parent
    if not (here / ".git").exists():
        return None
    commit = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if commit.returncode:
        return None
    target = store / "runs" / ARCHIVES / commit.stdout.strip()
    if not target.exists():
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        aside.mkdir(parents=True)
        archive = subprocess.run(["git", "-C", str(here), "archive", "HEAD"], capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", str(aside)], input=archive.stdout, check=True)
        if not target.exists():
            aside.rename(target)
    return target
