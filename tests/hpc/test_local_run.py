"""Running a graph on this machine, with jobs that are only entries of a dictionary."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from toy_graph import chain, elements, fail, finish, give_job, node

from affect_hpc.config.cluster import ClusterConfig, ExecutorName, Resources
from affect_hpc.hpc import executors, local, worker
from affect_hpc.hpc.graph import Edge, Element, Graph
from affect_hpc.hpc.local import LocalRun, batches
from affect_hpc.hpc.submit import Action, Decisions


@dataclass
class FakeProcesses:
    """Jobs that end at the next poll of the launcher."""

    store: Path
    graph: Graph
    fails: set[str] = field(default_factory=set)
    """Elements (as text) that fail."""
    silent: set[str] = field(default_factory=set)
    """Elements whose process is killed."""
    alive: dict[int, list[Path]] = field(default_factory=dict)
    began: list[list[str]] = field(default_factory=list)
    most: int = 0

    def start_local(self, folders: list[Path], resources: Resources, cluster: ClusterConfig) -> int:
        number = len(self.began) + 1
        known = {element.folder(self.store).path: element for element in self.graph.elements()}
        for folder in folders:
            assert all(parent.folder(self.store).is_done() for parent in known[folder].parents()), "a parent is missing"
        self.began.append([str(known[folder]) for folder in folders])
        self.alive[number] = folders
        self.most = max(self.most, len(self.alive))
        return number

    def is_alive(self, pid: int, word: str) -> bool:
        return pid in self.alive

    def end_one(self, seconds: float) -> None:
        """In place of the launcher's sleep: the oldest process ends."""
        if not self.alive:
            return
        folders = self.alive.pop(min(self.alive))
        known = {element.folder(self.store).path: element for element in self.graph.elements()}
        for folder in folders:
            element = known[folder]
            if str(element) in self.silent:
                element.folder(self.store).begin_attempt()
            elif str(element) in self.fails:
                fail(element, self.store)
            else:
                finish(element, self.store)


@dataclass
class World:
    """One launch on this machine."""

    graph: Graph
    store: Path
    processes: FakeProcesses
    cluster: ClusterConfig
    shown: list[Decisions] = field(default_factory=list)

    def run(self, is_live: Callable[[dict[str, Any]], bool] = local.is_live) -> tuple[LocalRun, Decisions]:
        one = LocalRun(self.graph, self.store, self.cluster, is_live, self.shown.append)
        return one, one.run()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    def made(graph: Graph, slots: int = 2, executor: ExecutorName = ExecutorName.local) -> World:
        processes = FakeProcesses(tmp_path, graph)
        monkeypatch.setattr(executors, "start_local", processes.start_local)
        monkeypatch.setattr(local, "process_is_alive", processes.is_alive)
        monkeypatch.setattr(local.time, "sleep", processes.end_one)
        resources = {name: Resources() for name in ("cpu", "train", "infer")}
        return World(graph, tmp_path, processes, ClusterConfig("local", executor, resources, slots=slots))

    return made


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_everything_runs_once_in_order_within_the_slots(world: Callable[..., World], slots: int) -> None:
    graph, _ = chain(["a", "b", "c"], parts=3)
    one = world(graph, slots)
    run, last = one.run()
    ran = [name for batch in one.processes.began for name in batch]
    assert sorted(ran) == sorted(map(str, graph.elements()))
    assert {decision.action for decision in last.of.values()} == {Action.reuse}
    assert 1 <= one.processes.most <= slots
    assert run.count == len(ran)
    assert one.run()[0].count == 0, "the second launch has nothing to do"


def test_a_failure_stops_only_its_branch_and_is_not_retried_at_once(world: Callable[..., World]) -> None:
    graph, nodes = chain(["a", "b"], parts=1)
    one = world(graph)
    one.processes.fails = {str(Element(nodes["edit_a"], 0))}
    _, last = one.run()
    actions = {name: last.of[Element(nodes[name], 0)].action for name in nodes if Element(nodes[name], 0) in last.of}
    assert {name for name, action in actions.items() if action is Action.blocked} == {
        *("edit_a", "judge_a", "reduce_a", "report")
    }
    assert actions["reduce_b"] is Action.reuse
    ran = [name for batch in one.processes.began for name in batch]
    assert ran.count(str(Element(nodes["edit_a"], 0))) == 1
    one.processes.fails = set()
    run, last = one.run()
    assert run.count == 4 and {decision.action for decision in last.of.values()} == {Action.reuse}


def test_a_killed_process_is_a_failure_with_a_word(world: Callable[..., World]) -> None:
    graph, nodes = chain(["a"], parts=1)
    one = world(graph)
    one.processes.silent = {str(Element(nodes["ldm"], 0))}
    _, last = one.run()
    failure = Element(nodes["ldm"], 0).folder(one.store).failure()
    assert failure is not None and failure["kind"] == "lost" and "memory ran out" in failure["message"]
    assert last.of[Element(nodes["ldm"], 0)].action is Action.blocked


def test_a_failure_in_a_shared_process_spares_its_neighbours(world: Callable[..., World]) -> None:
    graph, nodes = chain(["a"], parts=4)
    one = world(graph, slots=1)
    one.processes.fails = {str(Element(nodes["invert_a"], 1))}
    _, last = one.run()
    assert [last.of[element].action for element in elements(nodes["judge_a"])] == [
        *(Action.reuse, Action.blocked, Action.reuse, Action.reuse)
    ]


def test_jobs_of_another_launch_are_waited_for_and_take_slots(world: Callable[..., World]) -> None:
    graph, nodes = chain(["a"], parts=1)
    one = world(graph, slots=1)
    ldm = Element(nodes["ldm"], 0)
    one.processes.began.append([str(ldm)])
    one.processes.alive[1] = [ldm.folder(one.store).path]
    give_job(ldm, one.store, {"executor": "local", "host": local.this_host(), "pid": 1})
    run, _ = one.run()
    assert one.processes.most == 1 and run.count == len(graph.elements()) - 1
    assert ldm not in run.started


def test_jobs_of_another_machine_are_taken_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "process_is_alive", lambda pid, word: False)
    assert local.is_live({"executor": "local", "host": "far away", "pid": 1})
    assert not local.is_live({"executor": "local", "host": local.this_host(), "pid": 1})
    assert not local.is_live({"executor": "slurm", "array": "x", "index": 1})


def test_an_interrupt_ends_the_jobs_of_this_launch(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, _ = chain(["a"], parts=1)
    one = world(graph)
    ended: list[int] = []

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local.time, "sleep", interrupt)
    monkeypatch.setattr(local.os, "kill", lambda pid, number: ended.append(pid))
    with pytest.raises(KeyboardInterrupt):
        one.run()
    assert ended == [1]


def test_inline_runs_in_this_process(world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    graph, nodes = chain(["a"], parts=2)
    one = world(graph, 1, ExecutorName.inline)
    known = {element.folder(one.store).path: element for element in graph.elements()}

    def run_element(folder: Path) -> int:
        if known[folder] == Element(nodes["edit_a"], 0):
            fail(known[folder], one.store)
            return 1
        finish(known[folder], one.store)
        return 0

    monkeypatch.setattr(worker, "run_element", run_element)
    run, last = one.run()
    assert one.processes.began == [] and run.failed == {Element(nodes["edit_a"], 0)}
    assert last.of[Element(nodes["judge_a"], 1)].action is Action.reuse
    assert last.of[Element(nodes["reduce_a"], 0)].action is Action.blocked


def ready(*kinds: str) -> list[Element]:
    return [Element(node(kind, str(number)), 0) for number, kind in enumerate(kinds)]


@pytest.mark.parametrize(
    ("kinds", "free", "slots", "sizes"),
    [
        (["reduce"] * 5, 2, 2, [3, 2]),
        (["reduce"] * 5, 8, 8, [1, 1, 1, 1, 1]),
        (["reduce"] * 5, 1, 1, [5]),
        (["reduce"] * 5, 1, 2, [3]),
        (["reduce"] * 2, 1, 2, [1]),
        (["reduce"] * 5, 0, 2, []),
        (["reduce"] * 5, -1, 2, []),
        ([], 2, 2, []),
        (["train_ldm", "reduce", "reduce", "train_ldm"], 4, 4, [1, 1, 1, 1]),
    ],
)
def test_batches_share_the_slots_evenly(kinds: list[str], free: int, slots: int, sizes: list[int]) -> None:
    waiting = ready(*kinds)
    found = batches(waiting, free, slots)
    assert [len(batch) for batch in found] == sizes
    flat = [element for batch in found for element in batch]
    assert len(flat) == len(set(flat)) and set(flat) <= set(waiting)
    assert all(len({element.node.kind for element in batch}) == 1 for batch in found)


def test_order_of_parents_is_kept_across_divisions(world: Callable[..., World]) -> None:
    parent = node("invert_latents", "x", parts=2)
    child = node("manipulate", "x", {"latents": [Edge(parent, each=True)]}, parts=3)
    one = world(Graph([child]), 8)
    one.run()  # the fake process asserts that parents are done
    assert [len(batch) for batch in one.processes.began] == [1, 1, 1, 1, 1]
