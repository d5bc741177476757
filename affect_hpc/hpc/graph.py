"""The graph of runs. Equal work has equal signatures, and equal signatures are one node."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from affect_hpc.core.hashing import signature
from affect_hpc.core.rundir import PartDir, RunDir
from affect_hpc.hpc.catalog import CATALOG


@dataclass(frozen=True)
class External:
    """A finished input that no run of the store made; its content is its identity."""

    path: Path
    digest: str


@dataclass(frozen=True, eq=False)
class Edge:
    """A dependency on a run: on the corresponding part only (``each``), or on all of it."""

    node: "Node"
    each: bool = False


@dataclass(frozen=True, eq=False)
class Node:
    """One run: a kind of the catalog, its config, its parents by role, and how many parts share its work."""

    kind: str
    config: Any
    parents: Mapping[str, tuple[Edge | External, ...]] = field(default_factory=dict)
    parts: int = 1

    @property
    def stage(self) -> str:
        """Name of the stage."""
        return CATALOG[self.kind].stage

    @cached_property
    def signature(self) -> str:
        """Name of the run folder below the stage's."""
        spec = CATALOG[self.kind]
        parents = {
            role: [
                edge.digest if isinstance(edge, External) else f"{edge.node.stage}/{edge.node.signature}"
                for edge in edges
            ]
            for role, edges in self.parents.items()
        }
        return signature(spec.stage, spec.version, self.config, parents)

    @property
    def name(self) -> str:
        """``<stage>/<signature>``, unique in the store."""
        return f"{self.stage}/{self.signature}"

    def edges(self) -> Iterator[Edge]:
        """The dependencies on other runs."""
        for edges in self.parents.values():
            yield from (edge for edge in edges if isinstance(edge, Edge))

    def run_dir(self, store: Path) -> RunDir:
        """The folder of this run in ``store``."""
        return RunDir(store / "runs" / self.stage / self.signature)


@dataclass(frozen=True)
class Element:
    """One part of one node: what one job does."""

    node: Node
    part: int

    def folder(self, store: Path) -> PartDir:
        """Where this element lives in ``store``."""
        return self.node.run_dir(store).parts_of(self.node.parts)[self.part]

    def parents(self) -> Iterator["Element"]:
        """The elements whose output this one reads."""
        for edge in self.node.edges():
            if edge.each and edge.node.parts == self.node.parts:
                yield Element(edge.node, self.part)
            else:
                yield from (Element(edge.node, part) for part in range(edge.node.parts))

    def __str__(self) -> str:
        return self.node.name + (f"[{self.part}]" if self.node.parts > 1 else "")


class Graph:
    """Nodes in topological order, each once.

    Args:
        targets: the nodes that are wanted; their ancestors come along.
    """

    def __init__(self, targets: Iterable[Node]) -> None:
        self._by_name: dict[str, Node] = {}
        self.targets = list(targets)
        for target in self.targets:
            self._add(target)

    def _add(self, node: Node) -> None:
        if node.name in self._by_name:
            return
        for edge in node.edges():
            self._add(edge.node)
        self._by_name[node.name] = node

    @property
    def nodes(self) -> list[Node]:
        """Parents before children."""
        return list(self._by_name.values())

    def elements(self) -> list[Element]:
        """All parts of all nodes; parents before children."""
        return [Element(node, part) for node in self.nodes for part in range(node.parts)]

    def needed(self, done: set[str]) -> set[str]:
        """Names of the nodes that are done, wanted, or an input of one that is still to be done."""
        wanted = {target.name for target in self.targets} | done
        for node in reversed(self.nodes):
            if node.name in wanted and node.name not in done:
                wanted |= {edge.node.name for edge in node.edges()}
        return wanted

    def descendants(self, names: set[str]) -> set[str]:
        """Names of the nodes that depend, at any distance, on one of ``names``; these themselves left out."""
        found: set[str] = set()
        for node in self.nodes:
            if any(edge.node.name in names | found for edge in node.edges()):
                found.add(node.name)
        return found - names
