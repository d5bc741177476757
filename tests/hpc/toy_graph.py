"""Small graphs and the marks of their elements, for tests of the state machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affect_hpc.core.io import write_text
from affect_hpc.core.rundir import Outcome
from affect_hpc.hpc.graph import Edge, Element, External, Graph, Node
from affect_hpc.hpc.submit import write_run


@dataclass
class ToyConfig:
    """A config of one value."""

    tag: str = ""


def node(kind: str, tag: str, parents: Mapping[str, Sequence[Edge | External]] | None = None, parts: int = 1) -> Node:
    """A node of a real kind with a toy config."""
    return Node(kind, ToyConfig(tag), {role: tuple(edges) for role, edges in (parents or {}).items()}, parts)


def chain(tags: Sequence[str] = ("a",), parts: int = 3) -> tuple[Graph, dict[str, Node]]:
    """train_ldm -> per tag: invert => manipulate => evaluate (part by part) -> reduce; all reduces -> report."""
    nodes = {"ldm": node("train_ldm", "")}
    for tag in tags:
        ldm = Edge(nodes["ldm"])
        nodes[f"invert_{tag}"] = node("invert_latents", tag, {"ldm": [ldm]}, parts)
        latents = Edge(nodes[f"invert_{tag}"], each=True)
        nodes[f"edit_{tag}"] = node("manipulate", tag, {"latents": [latents], "ldm": [ldm]}, parts)
        nodes[f"judge_{tag}"] = node("evaluate", tag, {"images": [Edge(nodes[f"edit_{tag}"], each=True)]}, parts)
        nodes[f"reduce_{tag}"] = node("reduce", tag, {"states": [Edge(nodes[f"judge_{tag}"])]})
    tables = [Edge(nodes[f"reduce_{tag}"]) for tag in tags]
    nodes["report"] = node("report", "", {"tables": tables})
    return Graph([nodes["report"]]), nodes


def elements(one: Node) -> list[Element]:
    """All parts of a node."""
    return [Element(one, part) for part in range(one.parts)]


def finish(element: Element, store: Path) -> None:
    """As a worker that did the work."""
    write_run(element.node, store)
    place = element.folder(store)
    write_text(place.aside() / "result.txt", str(element))
    place.finish(place.aside(), Outcome(), 1.0)


def fail(element: Element, store: Path, attempts: int = 1, message: str = "the disk is on fire") -> None:
    """As a worker that failed, the ``attempts``-th time."""
    write_run(element.node, store)
    place = element.folder(store)
    for _ in range(attempts):
        place.begin_attempt()
    place.fail(message, "error")


def give_job(element: Element, store: Path, job: Mapping[str, Any]) -> None:
    """As a launcher that started a job for the element."""
    write_run(element.node, store)
    element.folder(store).record_job({"executor": "toy", "submitted": 0.0, **job})


def lives(job: Mapping[str, Any]) -> bool:
    """What the toys' scheduler says: a job lives that says so of itself."""
    return bool(job.get("lives"))
