"""Run folders: where a run keeps what, and the markers that say how it stands.

::

    runs/<stage>/<signature>/   spec.json  config.yaml  inputs.json  job.json  DONE | FAILED
                                out/  keep/  log/  progress.json
                                parts/<0000>/   the same again, for a run that is divided into parts
"""

import os
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from affect_hpc.core.io import read_json, read_json_if_there, sync_folder, write_json
from affect_hpc.core.marks import manifest_without_marks, sha256_without_mark, size_without_mark

HANG = "hang"
"""Kind of a failure that a rank named before the job was ended: what the other ranks then meet is its consequence."""


@dataclass(frozen=True)
class Inputs:
    """The outputs of the parents, by role.

    A role that is one run without parts holds one folder; a divided parent gives the folder of each part, in order
    (one only, where this part depends on just the corresponding part).
    """

    roles: Mapping[str, tuple[Path, ...]]
    own: frozenset[str] = frozenset()
    """Roles whose folder holds this part's share only: its work is already cut out."""

    def one(self, role: str) -> Path:
        """The only folder of ``role``."""
        (folder,) = self.roles[role]
        return folder

    def many(self, role: str) -> tuple[Path, ...]:
        """All folders of ``role``; empty where the role is not given."""
        return self.roles.get(role, ())


@dataclass(frozen=True)
class Workplace:
    """What a stage may write to, and which share of the work is its own."""

    out: Path
    """Empty folder; becomes the run's ``out/`` by rename when the stage returns."""
    keep: Path
    """Checkpoints and TensorBoard events: survives attempts."""
    part: int = 0
    parts: int = 1
    signer: Path | None = None
    """Folder of the store's own key for marks of synthetic pictures; None where the stage runs outside of a store."""

    def slice(self, count: int) -> range:
        """This part's contiguous share of ``count`` units of work; shares differ by at most one unit."""
        return range(count * self.part // self.parts, count * (self.part + 1) // self.parts)


@dataclass(frozen=True)
class Outcome:
    """What a stage returns."""

    summary: Mapping[str, float | int | str] = field(default_factory=dict)
    """A few figures for DONE, status and the report."""
    stopped: bool = False
    """True when the stage was asked to stop, saved its state and wants to be started again."""


class PartDir:
    """The folder of one element of work: a whole run, or one part of a divided run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.out, self.keep, self.log = path / "out", path / "keep", path / "log"
        self.progress = path / "progress.json"

    def is_done(self) -> bool:
        """Whether DONE stands: the only truth about a finished element."""
        return (self.path / "DONE").exists()

    def done(self) -> dict[str, Any]:
        """Content of DONE: outputs manifest, summary, seconds (of the last attempt), spent (of all), node, and the
        circumstances that the worker told."""
        content: dict[str, Any] = read_json(self.path / "DONE")
        return content

    def failure(self) -> dict[str, Any] | None:
        """Content of FAILED (message, attempts), if the last attempt ended that way."""
        content: dict[str, Any] | None = read_json_if_there(self.path / "FAILED")
        return content

    def job(self) -> dict[str, Any] | None:
        """The last job submitted for this element."""
        content: dict[str, Any] | None = read_json_if_there(self.path / "job.json")
        return content

    def record_job(self, job: Mapping[str, Any]) -> None:
        """Remember the job that will do, or does, this element."""
        write_json(self.path / "job.json", job)

    def _told(self) -> dict[str, Any]:
        """How often a job began (count), when the last one did (began), and what all before it took (spent)."""
        return {"count": 0, "spent": 0.0, **(read_json_if_there(self.path / "attempts.json") or {})}

    def attempts(self) -> int:
        """How often a job has begun with this element."""
        return int(self._told()["count"])

    def spent(self) -> float:
        """Seconds of all attempts before the running one. Of one that was killed, up to its last sign of progress."""
        return float(self._told()["spent"])

    def begin_attempt(self) -> None:
        """Count one attempt. In a file of its own: launcher and job write at the same time."""
        (self.path / "FAILED").unlink(missing_ok=True)
        told, now = self._told(), time.time()
        last = max(0.0, self.progress.stat().st_mtime - told.get("began", now)) if self.progress.exists() else 0.0
        attempt = {"count": told["count"] + 1, "spent": told["spent"] + last, "began": now}
        write_json(self.path / "attempts.json", attempt)

    def take_back_attempt(self) -> None:
        """Not count the last attempt, though its seconds: it was stopped, it did not fail."""
        told = self._told()
        write_json(self.path / "attempts.json", {**told, "count": max(0, told["count"] - 1)})

    def finish(
        self, aside: Path, outcome: Outcome, seconds: float, circumstances: Mapping[str, Any] | None = None
    ) -> None:
        """Turn ``aside`` into ``out`` and mark the element done.

        Args:
            seconds: that this attempt took.
            circumstances: under which it ran, for DONE.
        """
        manifest = manifest_without_marks(aside)
        shutil.rmtree(self.out, ignore_errors=True)
        aside.replace(self.out)
        sync_folder(self.path)
        (self.path / "FAILED").unlink(missing_ok=True)
        times = {"seconds": round(seconds, 1), "spent": round(self.spent() + seconds, 1), "finished": time.time()}
        done = {"outputs": manifest, "summary": dict(outcome.summary), **times, "node": socket.gethostname()}
        write_json(self.path / "DONE", {**done, **(circumstances or {})})

    def fail(self, message: str, kind: str) -> None:
        """Mark the element failed; ``kind`` is user, error, stopped, lost or hang."""
        write_json(self.path / "FAILED", {"message": message, "kind": kind, "node": socket.gethostname()})

    def is_intact(self, to_the_byte: bool = False) -> bool:
        """Whether every output that DONE lists is there with its size, and with its content if that is asked."""
        if not self.is_done():
            return False
        for name, entry in self.done()["outputs"].items():
            file = self.out / name
            if not file.is_file() or size_without_mark(file) != entry["bytes"]:
                return False
            if to_the_byte and sha256_without_mark(file) != entry["sha256"]:
                return False
        return True

    def forget(self) -> None:
        """Remove the marks of the last attempts; the next launch runs this element again."""
        for name in ("DONE", "FAILED", "job.json", "attempts.json", "progress.json"):
            (self.path / name).unlink(missing_ok=True)

    def aside(self) -> Path:
        """Where a running attempt writes before its output is whole."""
        return self.path / ".out.partial"


class RunDir:
    """The folder of one run: ``runs/<stage>/<signature>``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """``<stage>/<signature>``"""
        return f"{self.path.parent.name}/{self.path.name}"

    def spec(self) -> dict[str, Any] | None:
        """kind, stage, version, parts, as written when the folder was made."""
        content: dict[str, Any] | None = read_json_if_there(self.path / "spec.json")
        return content

    def parts(self) -> list[PartDir]:
        """The elements of this run, in order."""
        spec = self.spec()
        return self.parts_of(spec["parts"] if spec else 1)

    def parts_of(self, count: int) -> list[PartDir]:
        """The elements of this run, were it divided into ``count``."""
        if count == 1:
            return [PartDir(self.path)]
        return [PartDir(self.path / "parts" / f"{i:04d}") for i in range(count)]

    def outputs(self) -> tuple[Path, ...]:
        """The output folder of each part."""
        return tuple(part.out for part in self.parts())

    def is_done(self) -> bool:
        """Whether DONE stands for the run as a whole."""
        return (self.path / "DONE").exists()

    def settle(self) -> bool:
        """Mark a divided run done when all its parts are; returns whether the run is done."""
        if self.is_done():
            return True
        parts = self.parts()
        if len(parts) > 1 and all(part.is_done() for part in parts):
            seconds = [part.done()["seconds"] for part in parts]
            write_json(self.path / "DONE", {"parts": len(parts), "seconds": max(seconds), "finished": time.time()})
            return True
        return False


def process_is_alive(pid: int, word: str) -> bool:
    """Whether process ``pid`` of this host lives and has ``word`` in its command line (ids are used again)."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return word in command and state != "Z"


def this_host() -> str:
    """Name of this machine."""
    return os.uname().nodename
