"""Running a graph on this machine: the launcher itself waits for parents, with a bounded number of jobs at once."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from affect_hpc.config.cluster import ClusterConfig, ExecutorName
from affect_hpc.core.rundir import process_is_alive, this_host
from affect_hpc.hpc import executors, worker
from affect_hpc.hpc.catalog import CATALOG
from affect_hpc.hpc.graph import Element, Graph
from affect_hpc.hpc.submit import WITHOUT_A_WORD, Action, Decisions, decide, write_run

POLL_S = 0.3
JOB_WORD = "submitit"
"""Stands in the command line of every local job."""


def is_live(job: dict[str, Any]) -> bool:
    """Whether a recorded local job runs. One of another machine is taken to: only that machine could tell."""
    if job.get("executor") != "local":
        return False
    return job["host"] != this_host() or process_is_alive(job["pid"], JOB_WORD)


def store_lock(store: Path) -> FileLock:
    """Held while jobs are decided on and started, so that two launches never start the same one."""
    (store / "runs").mkdir(parents=True, exist_ok=True)
    return FileLock(store / "runs" / ".lock")


class LocalRun:
    """One launch of a graph on this machine.

    Args:
        is_live: asks about recorded jobs, those of other executors included.
        show: called at every poll with the decisions of the moment.
    """

    def __init__(
        self,
        graph: Graph,
        store: Path,
        cluster: ClusterConfig,
        is_live: Callable[[dict[str, Any]], bool],
        show: Callable[[Decisions], None],
    ) -> None:
        self.graph, self.store, self.cluster = graph, store, cluster
        self.is_live, self.show = is_live, show
        self.started: dict[Element, int] = {}
        """Elements started by this launch -> process id of the job."""
        self.failed: set[Element] = set()
        """Elements that failed in this launch: once a launch is enough."""
        self.count = 0
        """Jobs started by this launch."""

    def run(self) -> Decisions:
        """Run what is missing; returns the last decisions, when nothing runs and nothing more can be started."""
        try:
            while True:
                with store_lock(self.store):
                    decisions = self._decide()
                    ready = self._ready(decisions)
                    for batch in batches(ready, self._free_slots(decisions), self.cluster.slots, self._cost):
                        self._start(batch)
                self.show(decisions)
                if not ready and not decisions.elements(Action.attach):
                    return decisions
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            self.stop()
            raise

    def stop(self) -> None:
        """End the jobs of this launch."""
        for pid in self.started.values():
            if process_is_alive(pid, JOB_WORD):
                os.kill(pid, signal.SIGTERM)

    def _decide(self) -> Decisions:
        for element, pid in self.started.items():
            folder = element.folder(self.store)
            if folder.is_done() or element in self.failed or process_is_alive(pid, JOB_WORD):
                continue
            # It may have become done since the first look.
            if not folder.is_done():
                self.failed.add(element)
                if folder.failure() is None:
                    folder.fail(WITHOUT_A_WORD, "lost")
        cluster = self.cluster
        return decide(self.graph, self.store, self.is_live, cluster.retry, cluster.max_attempts, self.failed)

    def _ready(self, decisions: Decisions) -> list[Element]:
        return [
            element
            for element in decisions.elements(Action.run)
            if all(decisions.of[parent].action is Action.reuse for parent in element.parents())
        ]

    def _free_slots(self, decisions: Decisions) -> int:
        taken: dict[tuple[str, int], int] = {}
        for element in decisions.elements(Action.attach):
            job = element.folder(self.store).job()
            if job and "pid" in job:
                taken[job["host"], job["pid"]] = self._cost(element.node.kind)
        return self.cluster.slots - sum(taken.values())

    def _cost(self, kind: str) -> int:
        """Processors that a job of this kind takes."""
        spec = CATALOG[kind]
        resources = self.cluster.resources_of(spec.stage, spec.resource_class)
        return min(resources.cpus_per_task * resources.tasks_per_node, self.cluster.slots)

    def _start(self, elements: list[Element]) -> None:
        for element in elements:
            write_run(element.node, self.store)
            (element.folder(self.store).path / "FAILED").unlink(missing_ok=True)
        self.count += len(elements)
        folders = [element.folder(self.store) for element in elements]
        if self.cluster.executor is ExecutorName.inline:
            self.failed |= {
                element for element, folder in zip(elements, folders, strict=True) if worker.run_element(folder.path)
            }
            return
        spec = CATALOG[elements[0].node.kind]
        resources = self.cluster.resources_of(spec.stage, spec.resource_class)
        pid = executors.start_local([folder.path for folder in folders], resources, self.cluster)
        for element, folder in zip(elements, folders, strict=True):
            job = {"executor": "local", "host": this_host(), "pid": pid, "submitted": time.time()}
            folder.record_job({**job, "log": str(folders[0].log)})
            self.started[element] = pid


def batches(
    ready: list[Element], free: int, slots: int, cost: Callable[[str], int] = lambda kind: 1
) -> list[list[Element]]:
    """Elements that share a process: those of one kind, a slot's fair share of what is ready.

    Starting a process and importing its networks takes seconds, longer than the work of many an element. But a slot
    that comes free a moment before the next one must not take its neighbour's share as well.

    Args:
        free: slots that nothing runs in; may be negative where other launches took more.
        slots: all of them.
        cost: slots that a process of a kind takes. What does not fit waits; smaller ones may go before it.
    """
    chosen: list[list[Element]] = []
    for kind in dict.fromkeys(element.node.kind for element in ready):
        same = [element for element in ready if element.node.kind == kind]
        processes = min(free // cost(kind), len(same))
        for left in range(slots // cost(kind), 0, -1)[: max(processes, 0)]:
            share = -(-len(same) // left)
            chosen.append(same[:share])
            same = same[share:]
            free -= cost(kind)
    return chosen
