"""One launch from plan to end."""

import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from affect_hpc.config.cluster import ExecutorName
from affect_hpc.config.root import Config
from affect_hpc.core.rundir import PartDir
from affect_hpc.hpc import local, slurm, views
from affect_hpc.hpc.plans import plan
from affect_hpc.hpc.points import REPORTS
from affect_hpc.hpc.render import Follower, plan_tree
from affect_hpc.hpc.submit import Action, Decisions, decide

WATCH_EVERY_S = 2.0


class Session:
    """A planned sweep and what can be done with it.

    Args:
        configs: the sweep points.
        arguments: the command line they came from.
    """

    def __init__(self, configs: list[Config], arguments: list[str]) -> None:
        self.configs, self.arguments = configs, arguments
        self.cluster = configs[0].cluster
        self.store = Path(configs[0].store).absolute()
        self.graph, self.points = plan(configs)
        self.jobs = slurm.JobStates(self.store, self.cluster)
        self.console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)

    @property
    def on_slurm(self) -> bool:
        """Whether jobs of this launch go to SLURM."""
        return self.cluster.executor is ExecutorName.slurm

    def is_live(self, job: dict[str, Any]) -> bool:
        """Whether a recorded job of any executor is pending or running."""
        return local.is_live(job) or self.jobs.is_live(job)

    def decide(self) -> Decisions:
        """What is to be done with each element now."""
        self._ask()
        return decide(self.graph, self.store, self.is_live, self.cluster.retry, self.cluster.max_attempts)

    def _ask(self) -> None:
        # Only about what is not done: a finished store needs no scheduler.
        places = [element.folder(self.store) for element in self.graph.elements()]
        records = [job for place in places if not place.is_done() and (job := place.job()) is not None]
        recorded = [job for job in records if job["executor"] == "slurm"]
        if recorded:
            self.jobs.refresh(recorded)

    def _runs(self, place: PartDir) -> bool:
        job = place.job()
        return not place.is_done() and job is not None and self.is_live(job)

    def launch(self) -> int:
        """Print the plan, submit what is missing, follow it; returns the exit code."""
        first = self.configs[0]
        decisions = self.decide()
        title = f"{first.sweep}: {len(self.configs)} point(s), {len(self.graph.nodes)} runs, {len(decisions.of)} jobs"
        self.console.print(plan_tree(self.graph, decisions, self.cluster, f"{title}, cluster={self.cluster.name}"))
        if first.dry_run:
            return self._dry_run(decisions)
        views.write_views(self.store, self.configs, self.points, self.graph)
        views.record_launch(self.store, self.configs, self.arguments, self.graph)
        return self._launch_slurm() if self.on_slurm else self._launch_local()

    def _dry_run(self, decisions: Decisions) -> int:
        if self.on_slurm:
            for text in slurm.texts(self.graph, decisions, self.store, self.cluster):
                self.console.print(f"\n{text}", markup=False)
        self.console.print("dry run: nothing was submitted.")
        self._last_line(0, 0, decisions)
        return 0

    def _launch_local(self) -> int:
        with Follower(self.console, self.store) as follower:
            before = self.decide()
            run = local.LocalRun(self.graph, self.store, self.cluster, self.is_live, follower.show)
            after = run.run()
        self._end(after)
        self._last_line(run.count, 0, before)
        return self._exit_code(after)

    def _launch_slurm(self) -> int:
        with local.store_lock(self.store):
            before = self.decide()
            sent = slurm.submit(self.graph, before, self.store, self.cluster)
            self.jobs.release_held(before.elements(Action.attach))
        after = before
        if self.configs[0].watch:
            after = self._watch()
            self._end(after)
        else:
            self.console.print(f"follow it: python -m affect_hpc.status {self.configs[0].sweep} --follow")
        self._last_line(sent.jobs, sent.arrays, before)
        return self._exit_code(after)

    def _watch(self) -> Decisions:
        with Follower(self.console, self.store) as follower:
            while True:
                decisions = self.decide()
                follower.show(decisions)
                if not decisions.elements(Action.attach):
                    return decisions
                time.sleep(WATCH_EVERY_S)

    def _end(self, decisions: Decisions) -> None:
        unfinished = [element for element, decision in decisions.of.items() if decision.action is not Action.reuse]
        for element in unfinished:
            decision = decisions.of[element]
            if decision.action is Action.blocked and not decision.reason.startswith("needs "):
                self.console.print(f"FAILED {element}: {decision.reason}", markup=False, style="red")
        sweep = self.configs[0].sweep
        if unfinished:
            self.console.print(
                f"{len(unfinished)} job(s) not done. Mend, then launch again, or: python -m affect_hpc.rerun {sweep}"
            )
        for node in self.graph.nodes:
            if node.kind in REPORTS.values() and node.run_dir(self.store).is_done():
                self.console.print(f"report: {self.store / 'views' / sweep / 'report' / 'index.html'}", markup=False)

    def _exit_code(self, decisions: Decisions) -> int:
        if self.on_slurm and not self.configs[0].watch:
            return 1 if decisions.elements(Action.blocked) else 0
        return 0 if len(decisions.elements(Action.reuse)) == len(decisions.of) else 1

    def _last_line(self, jobs: int, arrays: int, before: Decisions) -> None:
        reused, attached = len(before.elements(Action.reuse)), len(before.elements(Action.attach))
        print(f"submitted={jobs} arrays={arrays} reused={reused} attached={attached}", flush=True)

    def forget(self, only: set[str] | None = None) -> list[str]:
        """Forget failures and damaged outputs, and what was made from these; returns the names of the runs touched.

        Args:
            only: names of runs to look at; None = all of the sweep.
        """
        self._ask()
        graph, damaged = self.graph, set()
        touched: list[str] = []
        # What a failed job has read may be damaged where no size tells.
        failed = [node for node in graph.nodes if any(part.failure() for part in node.run_dir(self.store).parts())]
        suspects = {edge.node.name for node in failed for edge in node.edges()}
        for node in graph.nodes:
            run = node.run_dir(self.store)
            if run.spec() is None or (only is not None and node.name not in only):
                continue
            for place in run.parts():
                if self._runs(place):
                    continue
                if place.is_done() and place.is_intact(to_the_byte=node.name in suspects):
                    continue
                if place.is_done() or run.is_done():
                    damaged.add(node.name)
                if place.is_done() or place.job() is not None:
                    touched.append(f"{node.name} {place.path.name if place.path != run.path else ''}".strip())
                place.forget()
                (run.path / "DONE").unlink(missing_ok=True)
        for name in sorted(graph.descendants(damaged)):
            node = next(node for node in graph.nodes if node.name == name)
            run = node.run_dir(self.store)
            if run.spec() is None:
                continue
            for place in run.parts():
                if not self._runs(place):  # a second job must never join one that runs
                    place.forget()
            (run.path / "DONE").unlink(missing_ok=True)
            touched.append(name)
        return touched
