"""What a run hangs on: every run before it and every input that no run made, as their folders tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from omegaconf import OmegaConf

from affect_hpc.config import terms
from affect_hpc.core.errors import UserError
from affect_hpc.core.hashing import digest, flat
from affect_hpc.core.io import read_json, read_json_if_there
from affect_hpc.core.rundir import RunDir

WEIGHTS = (".safetensors", ".pt", ".bin")
UNKNOWN = "not told"
"""Of runs that were done before DONE told it."""


@dataclass(frozen=True)
class Given:
    """An input that no run of the store made."""

    role: str
    path: str
    """Where it lay at the last launch."""
    digest: str
    """SHA-256 of its content, which is its identity."""


@dataclass(frozen=True)
class Record:
    """What one run tells of itself.

    Args:
        run: its folder; all its parts are done.
    """

    run: RunDir

    @cached_property
    def spec(self) -> Mapping[str, Any]:
        """kind, stage, version, parts."""
        spec = self.run.spec()
        if spec is None:
            raise UserError(f"{self.run.path} is no run folder: it has no spec.json.")
        return spec

    @cached_property
    def parents(self) -> list[str]:
        """Names of the runs whose output it reads."""
        return [entry["run"] for entries in self._inputs.values() for entry in entries if "run" in entry]

    @property
    def given(self) -> list[Given]:
        """Its other inputs."""
        return [
            Given(role, entry["path"], entry["digest"])
            for role, entries in self._inputs.items()
            for entry in entries
            if "path" in entry
        ]

    @cached_property
    def _inputs(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        inputs: Mapping[str, Sequence[Mapping[str, Any]]] = read_json(self.run.path / "inputs.json")
        return inputs

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its settings, by dotted keys."""
        config: Any = OmegaConf.to_container(OmegaConf.load(self.run.path / "config.yaml"))
        return flat(config)

    @cached_property
    def _done(self) -> list[dict[str, Any]]:
        missing = [part.path for part in self.run.parts() if not part.is_done()]
        if missing:
            raise UserError(f"{missing[0]} is not DONE: launch the sweep again, and explain the cell then.")
        return [part.done() for part in self.run.parts()]

    def told(self, name: str) -> str:
        """What DONE says under ``name``; of parts that differ, all of it."""
        values = [done[name] or "outside of git" for done in self._done if name in done]
        return ", ".join(dict.fromkeys(map(str, values))) or UNKNOWN

    @property
    def versions(self) -> dict[str, str]:
        """Package -> its version."""
        found: dict[str, str] = {}
        for done in self._done:
            found |= done.get("versions", {})
        return found

    def hours(self, of_gpus: bool) -> float:
        """GPU-hours, or hours of ranks on CPUs, of all attempts and parts."""
        spent = 0.0
        for done in self._done:
            gpus, ranks = done.get("gpus", 0), done.get("ranks", 1)
            spent += (gpus if of_gpus else ranks - gpus) * done.get("spent", done["seconds"])
        return spent / 3600

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all outputs, marks of synthetic pictures left out."""
        return digest([{name: entry["sha256"] for name, entry in done["outputs"].items()} for done in self._done])

    @property
    def weights(self) -> dict[str, str]:
        """File of a network -> its SHA-256."""
        files = {name: entry["sha256"] for done in self._done for name, entry in done["outputs"].items()}
        return {name: sha256 for name, sha256 in sorted(files.items()) if name.endswith(WEIGHTS)}

    @property
    def terms(self) -> dict[str, Any]:
        """Corpus -> the terms of its owners, of all corpora that the output hangs on."""
        found: dict[str, Any] = {}
        for folder in self.run.outputs():
            found |= read_json_if_there(folder / terms.FILE) or {}
        return found


def lineage(run: RunDir) -> tuple[list[Record], list[str]]:
    """The run and all before it, parents before children, the run itself last; and the names of those that are gone."""
    store, found, gone = run.path.parent.parent.parent, dict[str, Record](), list[str]()

    def visit(record: Record) -> None:
        for name in record.parents:
            parent = RunDir(store / "runs" / name)
            if parent.spec() is None:
                gone.append(name)
            elif name not in found:
                visit(Record(parent))
        found[record.run.name] = record

    visit(Record(run))
    return list(found.values()), list(dict.fromkeys(gone))
