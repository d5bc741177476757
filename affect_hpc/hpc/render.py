"""What people see of a graph: the plan as a tree, the jobs as a live table or as plain lines."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from affect_hpc.config.cluster import ClusterConfig
from affect_hpc.core.io import read_json_if_there
from affect_hpc.core.rundir import PartDir
from affect_hpc.hpc.advice import described, warnings
from affect_hpc.hpc.catalog import CATALOG
from affect_hpc.hpc.graph import External, Graph, Node
from affect_hpc.hpc.submit import Action, Decisions, job_of

COLORS = {Action.reuse: "green", Action.attach: "cyan", Action.run: "yellow", Action.blocked: "red"}
COUNTED = {
    Action.reuse: "{} reused",
    Action.attach: "{} running already",
    Action.run: "{} to run",
    Action.blocked: "{} blocked",
}


def plan_tree(graph: Graph, decisions: Decisions, cluster: ClusterConfig, title: str) -> Tree:
    """The plan: each kind of run once, below the first kind that needs it."""
    by_kind: dict[str, list[Node]] = {}
    for node in graph.nodes:
        by_kind.setdefault(node.kind, []).append(node)
    tree = Tree(f"[bold]{title}[/]", highlight=False)
    shown: dict[str, Tree] = {}
    for kind in reversed(by_kind):
        # A kind stands below the deepest kind that needs it: what runs first is indented most.
        users = [
            user for user in shown if any(edge.node.kind == kind for node in by_kind[user] for edge in node.edges())
        ]
        branch = shown[users[-1]] if users else tree
        shown[kind] = branch.add(_kind_line(kind, by_kind[kind], decisions, cluster))
        _add_needs(shown[kind], by_kind[kind], decisions, cluster)
        externals = {
            f"{role}: {edge.path.name} ({edge.digest[:10]})"
            for node in by_kind[kind]
            for role, edges in node.parents.items()
            for edge in edges
            if isinstance(edge, External)
        }
        for text in sorted(externals):
            if kind in ("encode_latents", "train_ldm") or (kind == "invert_latents" and text.startswith("ldm")):
                shown[kind].add(f"[dim]{text}, given[/]")
    return tree


def _kind_line(kind: str, nodes: list[Node], decisions: Decisions, cluster: ClusterConfig) -> str:
    counts = Counter(decisions.of[element].action for element in decisions.of if element.node.kind == kind)
    parts = max(node.parts for node in nodes)
    runs = f"{len(nodes)} run{'s' if len(nodes) > 1 else ''}" + (f" x {parts} parts" if parts > 1 else "")
    shown = [f"[{COLORS[action]}]{COUNTED[action].format(counts[action])}[/]" for action in Action if counts[action]]
    states = ", ".join(shown) or "[dim]not needed[/]"
    spec = CATALOG[kind]
    asked = cluster.resources_of(spec.stage, spec.resource_class)
    asks = f"{asked.cpus_per_task} cpu, {asked.mem_gb:g} GB, {asked.timeout_min} min"
    if asked.gpus_per_node:
        asks = f"{asked.gpus_per_node} gpu, {asks}"
    if asked.nodes * asked.tasks_per_node > 1:
        asks = f"{asked.nodes} nodes x {asked.tasks_per_node} ranks, {asks} each"
    names = nodes[0].signature if len(nodes) == 1 else f"{nodes[0].signature} .."
    return f"{kind} [dim]{names}[/]  {runs}: {states}  [dim]({asks})[/]"


def _add_needs(branch: Tree, nodes: list[Node], decisions: Decisions, cluster: ClusterConfig) -> None:
    """Below a kind that is to run: what it needs, and what of its settings is worth a second look."""
    to_run = {element.node for element in decisions.elements(Action.run)}
    nodes = [node for node in nodes if node in to_run]
    if not nodes:
        return
    lines = [(text, "dim") for text in described(nodes, cluster)]
    lines += [(text, "yellow") for text in dict.fromkeys(line for node in nodes for line in warnings(node, cluster))]
    for text, style in lines:
        # Other lines of the tree are cut at the edge; these are wrapped.
        branch.add(Text(text, style, overflow="fold", no_wrap=False))


def last_line(place: PartDir, store: Path) -> str:
    """The last line a job has written, else what its FAILED says."""
    failure = place.failure()
    if failure is not None:
        return str(failure["message"]).splitlines()[0]
    return next(reversed(log_lines(place, store)), "")


def log_lines(place: PartDir, store: Path) -> list[str]:
    """The log of an element's last job."""
    path = log_file(place, store)
    if path is None or not path.exists():
        return []
    text = path.read_text(errors="replace").replace("\r", "\n")
    return [line for line in text.splitlines() if line.strip()]


def log_file(place: PartDir, store: Path) -> Path | None:
    """Where the log of an element's last job is."""
    job = place.job()
    if job is None:
        return None
    if job["executor"] == "local":
        return Path(job["log"]) / f"{job['pid']}_0_log.out"
    number = job_of(job, store).get("id")
    return store / "runs" / "_arrays" / f"{number}_0_log.out" if number else None


class Follower:
    """Shows how the jobs of a launch go: a live table on a terminal, a line per event elsewhere."""

    def __init__(self, console: Console, store: Path) -> None:
        self.console, self.store = console, store
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._before: dict[Any, Action] = {}
        self._said: dict[Any, str] = {}

    def __enter__(self) -> "Follower":
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def show(self, decisions: Decisions) -> None:
        """Show the state of the moment."""
        for line in self._events(decisions):
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        if self._live is not None:
            self._live.update(self._table(decisions))
        sys.stdout.flush()

    def _events(self, decisions: Decisions) -> Iterator[str]:
        ended = sum(1 for decision in decisions.of.values() if decision.action in (Action.reuse, Action.blocked))
        for element, decision in decisions.of.items():
            before = self._before.get(element)
            self._before[element] = decision.action
            if decision.action is Action.attach:
                line = self._progress(element.folder(self.store))
                # In a log a running job speaks every tenth of its way; on a terminal the table shows it.
                mark = line.rsplit("%)", 1)[0][:-1].rsplit("(", 1)[-1][:-1] if "%)" in line else ""
                if self._live is None and mark and self._said.get(element) != mark:
                    self._said[element] = mark
                    yield f"  {element}: {line}"
            if before in (None, decision.action):
                continue
            if decision.action is Action.reuse:
                seconds = element.folder(self.store).done()["seconds"]
                yield f"[{ended}/{len(decisions.of)}] done {element} in {seconds:g} s"
            elif decision.action is Action.blocked and not decision.reason.startswith("needs "):
                yield f"[{ended}/{len(decisions.of)}] FAILED {element}: {decision.reason}"

    def _progress(self, place: PartDir) -> str:
        return str((read_json_if_there(place.progress) or {"line": "starting"})["line"])

    def _table(self, decisions: Decisions) -> Group:
        counts = Counter(decision.action for decision in decisions.of.values())
        table = Table(box=None, padding=(0, 1), show_header=False)
        for element in decisions.elements(Action.attach):
            table.add_row(f"[cyan]{element}[/]", self._progress(element.folder(self.store)))
        total = len(decisions.of)
        head = f"[bold]{counts[Action.reuse]}/{total} done[/]"
        head += f", {counts[Action.attach]} running, {counts[Action.run]} waiting"
        if counts[Action.blocked]:
            head += f", [red]{counts[Action.blocked]} blocked[/]"
        return Group(head, table)
