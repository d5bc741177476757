"""A SLURM in memory: it keeps its jobs in a dictionary and runs them when told to."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from affect_hpc.config.cluster import ClusterConfig
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import read_json, write_text
from affect_hpc.core.rundir import Outcome
from affect_hpc.hpc import worker
from affect_hpc.hpc.executors import ArrayRequest
from affect_hpc.hpc.scheduler import LIVE


class LauncherKilled(BaseException):
    """The launcher dies here."""


@dataclass
class FakeArray:
    """One array: state of each element, and what it waits for."""

    name: str
    dependency: str
    hold: bool
    folders: dict[int, Path]
    states: dict[int, str] = field(default_factory=dict)


@dataclass
class FakeSlurm:
    """Stands in for scheduler.call and executors.submit_array."""

    arrays: dict[int, FakeArray] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    fails: set[str] = field(default_factory=set)
    """Stages whose next elements fail."""
    dies: str = ""
    """Kill the launcher 'before' or 'after' the next sbatch."""
    refuses: bool = False
    order: list[str] = field(default_factory=list)
    """Elements in the order in which they ran."""

    def submit_array(self, request: ArrayRequest, cluster: ClusterConfig) -> str:
        folder, job_name, indices = request.folder, request.job_name, request.indices
        dependency, hold = request.dependency, request.hold
        if self.dies == "before":
            raise LauncherKilled
        if self.refuses:
            raise UserError(f"sbatch refused the array {job_name}: invalid partition")
        elements = read_json(folder / f"{job_name}.json")["elements"]
        assert sorted(map(int, elements)) == indices
        number = 100 + len(self.arrays)
        for wanted in re.findall(r"\d+(?:_\d+)?", dependency):
            assert int(wanted.split("_")[0]) in self.arrays, "SLURM runs what waits for an unknown job at once"
        self.arrays[number] = FakeArray(
            job_name, dependency, hold, {int(i): Path(path) for i, path in elements.items()}
        )
        self.arrays[number].states = dict.fromkeys(indices, "PENDING")
        if self.dies == "after":
            raise LauncherKilled
        return str(number)

    def call(self, command: Sequence[str], env: Mapping[str, str]) -> str:
        words = list(command)
        self.calls.append(words)
        if words[0] == "sacct":
            return ""  # the accounting lags behind
        if words[0] == "squeue":
            name = next((word.partition("=")[2] for word in words if word.startswith("--name=")), None)
            known = {n: array for n, array in self.arrays.items() if name in (None, array.name)}
            if "%F" in words:
                return "".join(f"{number}\n" for number in known)
            rows = []
            for number, array in known.items():
                reason = "JobHeldUser" if array.hold else "Dependency" if array.dependency else "None"
                rows += [f"{number}_{i}|{state}|node1|{reason}" for i, state in array.states.items()]
            return "\n".join(rows)
        if words[0] == "scancel":
            for job in words[1:]:
                number, index = map(int, job.split("_"))
                if self.arrays[number].states[index] in LIVE:
                    self.arrays[number].states[index] = "CANCELLED"
            return ""
        assert words[:2] == ["scontrol", "release"], words
        for job in words[2].split(","):
            self.arrays[int(job.split("_")[0])].hold = False
        return ""

    def _waits(self, array: FakeArray, index: int) -> str:
        """'no', 'yes' or 'never': whether an element still waits for its parents."""
        states: list[str] = []
        for part in filter(None, array.dependency.split(",")):
            kind, *numbers = part.split(":")
            for text in numbers:
                number, _, one = text.partition("_")
                of = self.arrays[int(number)].states
                states += [of[index]] if kind == "aftercorr" else [of[int(one)]] if one else list(of.values())
        if any(state in ("FAILED", "CANCELLED") for state in states):
            return "never"
        return "no" if all(state == "COMPLETED" for state in states) else "yes"

    def step(self, count: int = 10**9) -> int:
        """Run up to ``count`` elements that may run; returns how many did."""
        ran = 0
        for array in self.arrays.values():
            for index, state in array.states.items():
                if state != "PENDING" or array.hold:
                    continue
                waits = self._waits(array, index)
                if waits == "never":  # --kill-on-invalid-dep
                    array.states[index] = "CANCELLED"
                elif waits == "no" and ran < count:
                    ran += 1
                    array.states[index] = self._run(array.folders[index])
        return ran

    def _run(self, folder: Path) -> str:
        run, part = worker.split(folder)
        place = run.parts()[part]
        assert not place.is_done(), "work that is done is never submitted"
        worker.gather_inputs(run, part)  # raises where a parent is not done
        place.begin_attempt()
        self.order.append(str(folder))
        if run.path.parent.name in self.fails:
            place.fail("as asked", "error")
            return "FAILED"
        write_text(place.aside() / "result.txt", str(folder))
        place.finish(place.aside(), Outcome(), 1.0)
        run.settle()
        return "COMPLETED"

    def live(self) -> list[str]:
        """Names of arrays with pending elements."""
        return [array.name for array in self.arrays.values() if set(array.states.values()) & LIVE]
