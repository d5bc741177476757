"""Checkpoints that are whole or absent; the last good one is found, a damaged one is said and passed over.

The chief alone writes: state is gathered to it, so a checkpoint does not know how many ranks or which engine made it.
"""

import logging
import os
import shutil
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from affect_hpc.core.errors import UserError
from affect_hpc.core.io import manifest_of, read_json, sync_folder, write_json
from affect_hpc.train.comm import Ranks, barrier, object_from_chief
from affect_hpc.train.statefile import State, StateFile, read_state

log = logging.getLogger(__name__)

COMPLETE = "COMPLETE.json"
ASIDE, DAMAGED = ".tmp", ".damaged"


class Saver:
    """Checkpoints of one training below ``folder``: ``samples_<n>/`` each, with COMPLETE.json as the last file written.

    Args:
        keep: checkpoints kept; the last good one is never removed.
        background: write in a process of its own while training goes on. It is forked, so that it sees the state as it
            stood, and shares its memory until the training changes it.
    """

    def __init__(self, folder: Path, ranks: Ranks, keep: int, background: bool = False) -> None:
        self.folder, self.ranks, self.keep, self.background = folder, ranks, max(1, keep), background
        self._writer: _Writer | None = None
        if ranks.is_chief:
            for left_over in folder.glob(f"samples_*{ASIDE}"):
                # Whatever wrote it was killed, or it is a writer that outlived its training and is no longer needed.
                shutil.rmtree(left_over, ignore_errors=True)

    def save(self, samples_seen: int, states: Mapping[str, State]) -> None:
        """Save by all ranks together.

        Args:
            states: file name -> its content; the chief's is written.

        Raises:
            UserError: it could not be written; what was saved before is as it was.
        """
        self.wait()
        if self.ranks.is_chief:
            # Laid out here: a forked process must not touch a GPU.
            files = {f"{name}.safetensors": StateFile.of(state) for name, state in states.items()}
            if self.background:
                self._writer = _Writer(lambda: self._write(samples_seen, files))
            else:
                self._tell(_attempt(lambda: self._write(samples_seen, files)))
        if not self.background:
            barrier()

    def wait(self) -> None:
        """Wait for a save in the background; UserError where it failed."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._tell(writer.result())

    def latest(self) -> tuple[Path, int] | None:
        """Folder and samples seen of the newest checkpoint whose files are what they were; None where there is none.

        Called by all ranks: the chief looks, all take the same one.
        """
        self.wait()
        found = self._find() if self.ranks.is_chief else None
        name, seen = object_from_chief((found[0].name, found[1]) if found else ("", 0))
        return (self.folder / name, seen) if name else None

    def read(self, folder: Path) -> dict[str, dict[str, Any]]:
        """The states of a checkpoint, by file name."""
        return {path.stem: read_state(path) for path in sorted(folder.glob("*.safetensors"))}

    def _write(self, samples_seen: int, files: Mapping[str, StateFile]) -> None:
        final = self.folder / f"samples_{samples_seen:012d}"
        if is_good(final):
            # The same samples give the same state: it was saved by an attempt before this one.
            return
        aside = final.with_name(f"{final.name}.{socket.gethostname()}.{os.getpid()}{ASIDE}")
        try:
            aside.mkdir(parents=True)
            written = {name: file.write(aside / name) for name, file in files.items()}
            write_json(aside / COMPLETE, {"samples_seen": samples_seen, "files": written})
            sync_folder(aside)
            _out_of_the_way(final)
            aside.rename(final)
            sync_folder(self.folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        # What was just written is the last good one, whatever stands before it.
        for old in [path for path in self._all() if path < final][: -self.keep + 1 or None]:
            _remove(old)
        for old in sorted(self.folder.glob(f"samples_*{DAMAGED}"))[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def _find(self) -> tuple[Path, int] | None:
        for folder in reversed(self._all()):
            if is_good(folder):
                return folder, int(read_json(folder / COMPLETE)["samples_seen"])
            log.warning("%s is damaged: going back to the checkpoint before it", folder)
            _out_of_the_way(folder)
        return None

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("samples_*") if not path.suffix)

    def _tell(self, problem: str) -> None:
        if problem:
            raise UserError(
                f"a checkpoint could not be written to {self.folder}: {problem}. What was saved before is as it was:"
                " mend the folder's file system and launch again."
            )


def is_good(folder: Path) -> bool:
    """Whether a checkpoint is whole and its files are what they were."""
    try:
        expected = read_json(folder / COMPLETE)["files"]
        found = {name: entry for name, entry in manifest_of(folder).items() if name != COMPLETE}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(found == expected)


def _out_of_the_way(folder: Path) -> None:
    """Give a damaged checkpoint another name: somebody may want to look at it."""
    if folder.exists():
        target = folder.with_name(folder.name + DAMAGED)
        shutil.rmtree(target, ignore_errors=True)
        try:
            folder.rename(target)
        except OSError as error:
            log.warning("%s stays where it is (%s)", folder, error.strerror)


def _remove(folder: Path) -> None:
    """Remove a checkpoint that is no longer needed: first its name, so that it never stands there in part."""
    aside = folder.with_name(folder.name + ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    shutil.rmtree(aside)


def _attempt(action: Any) -> str:
    """Do it; returns what the file system said against it, empty if nothing."""
    try:
        action()
    except OSError as error:
        return f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror or error)
    return ""


class _Writer:
    """A forked process that writes, and says through a pipe how it ended."""

    def __init__(self, action: Any) -> None:
        self._answer, question = os.pipe()
        self._process = os.fork()
        if self._process:
            os.close(question)
            return
        code = 1
        try:
            # Signals of the job are the training's affair; this process ends by itself in seconds.
            for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            os.write(question, _attempt(action).encode())
            code = 0
        finally:
            os._exit(code)

    def result(self) -> str:
        """Wait for its end; what went wrong, empty if nothing."""
        with os.fdopen(self._answer, "rb") as pipe:
            said = pipe.read().decode()
        _, status = os.waitpid(self._process, 0)
        return said or (f"the writing process ended with status {status}" if status else "")
