"""What is to be done with each element: the state machine between a plan and its jobs. No scheduler is called here."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from affect_hpc.core.hashing import digest
from affect_hpc.core.io import read_json_if_there, write_json, write_text
from affect_hpc.core.rundir import RunDir
from affect_hpc.hpc.catalog import CATALOG
from affect_hpc.hpc.graph import Edge, Element, Graph, Node


class Action(Enum):
    """What a launch does with an element."""

    reuse = "done"
    attach = "running"
    run = "to run"
    blocked = "blocked"


@dataclass(frozen=True)
class Decision:
    """Action for one element, with the reason where it is blocked."""

    action: Action
    reason: str = ""


@dataclass(frozen=True)
class Decisions:
    """The action for every element of a graph that is done or needed, parents before children."""

    of: dict[Element, Decision] = field(default_factory=dict)

    def elements(self, action: Action) -> list[Element]:
        """All elements with this action."""
        return [element for element, decision in self.of.items() if decision.action is action]


WITHOUT_A_WORD = "the job ended without a word: it was killed, or memory ran out"

IsLive = Callable[[dict[str, Any]], bool]
"""Whether a recorded job is pending or running."""


def decide(
    graph: Graph,
    store: Path,
    is_live: IsLive,
    retry: bool,
    max_attempts: int,
    given_up: Collection[Element] = (),
) -> Decisions:
    """Walk the graph in topological order. What is neither done nor needed by anything that is to run is left out.

    ======================================  ==========================================================
    DONE                                    reuse; contributes no dependency
    job recorded and live                   attach: depend on it, never submit it again
    FAILED, or begun and gone without DONE  run again if ``retry`` and attempts are left, else blocked
    a parent is blocked                     blocked
    nothing                                 run
    ======================================  ==========================================================

    Args:
        is_live: asks the scheduler about a recorded job.
        retry: whether failed elements run again.
        max_attempts: failures after which an element is left alone.
        given_up: elements that already failed in this launch.
    """
    decisions = Decisions()
    done = {node.name for node in graph.nodes if node.run_dir(store).settle()}
    needed = graph.needed(done)
    for node in graph.nodes:
        if node.name not in needed:
            continue
        for part in range(node.parts):
            element = Element(node, part)
            again = retry and element not in given_up
            decisions.of[element] = _decide(element, store, decisions, is_live, again, max_attempts)
    return decisions


def _decide(
    element: Element, store: Path, so_far: Decisions, is_live: IsLive, retry: bool, max_attempts: int
) -> Decision:
    folder = element.folder(store)
    if folder.is_done():
        return Decision(Action.reuse)
    job = folder.job()
    if job is not None and is_live(job):
        return Decision(Action.attach)
    if folder.is_done():  # it ended well between the two looks
        return Decision(Action.reuse)
    for parent in element.parents():
        if so_far.of[parent].action is Action.blocked:
            return Decision(Action.blocked, f"needs {parent}")
    failure, attempts = folder.failure(), folder.attempts()
    if (failure is not None or attempts) and (not retry or attempts >= max_attempts):
        return Decision(Action.blocked, failure["message"] if failure else WITHOUT_A_WORD)
    return Decision(Action.run)


def write_run(node: Node, store: Path) -> RunDir:
    """Make the folder of a run and write what its jobs need to know: spec, config, inputs."""
    run = node.run_dir(store)
    # Always the newest: what does not change the result (a path, a micro batch) may have changed.
    write_text(run.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(node.config)))
    if run.spec() is None:
        inputs = {
            role: [
                {"run": edge.node.name, "each": edge.each and edge.node.parts == node.parts}
                if isinstance(edge, Edge)
                else {"path": str(edge.path), "digest": edge.digest}
                for edge in edges
            ]
            for role, edges in node.parents.items()
        }
        write_json(run.path / "inputs.json", inputs)
        spec = {"kind": node.kind, "stage": node.stage, "version": CATALOG[node.kind].version, "parts": node.parts}
        # Last, because a run folder counts as made when its spec is there.
        write_json(run.path / "spec.json", spec)
    return run


@dataclass(frozen=True)
class Array:
    """Elements that go to SLURM in one sbatch call, each under its own index.

    ``corr`` names the array whose element of the same index each element waits for; ``after`` the arrays that must end
    well as a whole; ``corr_jobs`` (array ids) and ``after_jobs`` say the same of jobs of earlier launches.
    """

    name: str
    kind: str
    elements: dict[int, Element]
    corr: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    after_jobs: tuple[str, ...] = ()
    corr_jobs: tuple[str, ...] = ()

    @property
    def is_root(self) -> bool:
        """Whether it waits for nothing, and so has to be held until the whole graph is submitted."""
        return not (self.corr or self.after or self.after_jobs or self.corr_jobs)


def chain_indices(graph: Graph) -> dict[Element, tuple[str, int]]:
    """For each element the kind that heads its element-wise chain, and its index along that chain.

    An element that depends element-wise on another has its index, so that SLURM's ``aftercorr`` pairs them. Indices
    are counted over the whole graph, not over what is missing: they are stable.
    """
    places: dict[Element, tuple[str, int]] = {}
    counts: dict[str, int] = {}
    for element in graph.elements():
        heads = [
            places[Element(edge.node, element.part)]
            for edge in element.node.edges()
            if edge.each and edge.node.parts == element.node.parts
        ]
        if heads:
            places[element] = heads[0]
        else:
            index = counts.get(element.node.kind, 0)
            counts[element.node.kind] = index + 1
            places[element] = (element.node.kind, index)
    return places


def arrays(graph: Graph, decisions: Decisions, live_job: Callable[[Element], str], max_array_size: int) -> list[Array]:
    """Group the elements to run into as few arrays as their dependencies allow, parents before children.

    Args:
        live_job: job id (``123_4``) of an attached element.
        max_array_size: SLURM's MaxArraySize; indices stay below it.
    """
    places = chain_indices(graph)
    home: dict[Element, str] = {}
    grouped: dict[tuple[Any, ...], dict[int, Element]] = {}
    names: dict[tuple[Any, ...], str] = {}
    for element in decisions.elements(Action.run):
        head, index = places[element]
        chunk = index // max_array_size
        corr: set[str] = set()
        after: set[str] = set()
        jobs: set[str] = set()
        corr_jobs: set[str] = set()
        for edge in element.node.edges():
            each = edge.each and edge.node.parts == element.node.parts
            for part in (element.part,) if each else range(edge.node.parts):
                parent = Element(edge.node, part)
                action = decisions.of[parent].action
                if action is Action.attach:
                    number, _, live_index = live_job(parent).partition("_")
                    # Naming each element's own job would make as many arrays as there are elements.
                    if each and live_index == str(index % max_array_size):
                        corr_jobs.add(number)
                    else:
                        jobs.add(live_job(parent))
                elif action is Action.run:
                    (corr if each and places[parent] == places[element] else after).add(home[parent])
        kind = element.node.kind
        waits = (corr, after, jobs, corr_jobs)
        key = (kind, head, chunk, *(tuple(sorted(names_or_ids)) for names_or_ids in waits))
        if key not in grouped:
            grouped[key] = {}
            names[key] = f"affect-{kind}-{digest([str(part) for part in key])[:6]}"
        taken = grouped[key].setdefault(index % max_array_size, element)
        assert taken is element, f"{element} and {taken} follow one parent element-wise: wait for all of it in one"
        home[element] = names[key]
    return [
        Array(names[key], key[0], elements, corr=key[3], after=key[4], after_jobs=key[5], corr_jobs=key[6])
        for key, elements in grouped.items()
    ]


def job_of(job: dict[str, Any], store: Path) -> dict[str, Any]:
    """A recorded job with the id that the scheduler gave it: None while that is not known."""
    if "array" not in job:
        return job
    given = read_json_if_there(store / "runs" / "_arrays" / f"{job['array']}.id.json")
    return {**job, "id": f"{given['job_id']}_{job['index']}" if given else None}
