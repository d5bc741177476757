"""Checkpoints that are whole or absent; the last good one is found, a damaged one is said and passed over."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from affect_hpc.core.io import manifest_of, read_json_if_there, sync_folder, write_json
from affect_hpc.train.comm import Ranks, barrier

log = logging.getLogger(__name__)

COMPLETE = "COMPLETE.json"


class Saver:
    """Checkpoints of one training below ``folder``: ``samples_<n>/`` each, with COMPLETE.json as the last file written.

    Args:
        keep: checkpoints kept; the last good one is never removed.
    """

    def __init__(self, folder: Path, ranks: Ranks, keep: int) -> None:
        self.folder, self.ranks, self.keep = folder, ranks, max(1, keep)

    def save(self, samples_seen: int, write: Callable[[Path], None]) -> Path:
        """Save by all ranks together: each writes into one folder aside, rank 0 completes and renames it.

        Args:
            write: writes this rank's share into the given folder.
        """
        final = self.folder / f"samples_{samples_seen:012d}"
        aside = final.with_suffix(".tmp")
        if self.ranks.is_chief:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        barrier()
        write(aside)
        barrier()
        if self.ranks.is_chief:
            write_json(aside / COMPLETE, {"samples_seen": samples_seen, "files": manifest_of(aside)})
            shutil.rmtree(final, ignore_errors=True)
            aside.rename(final)
            sync_folder(self.folder)
            for old in self._all()[: -self.keep]:
                shutil.rmtree(old)
        barrier()
        return final

    def latest(self) -> tuple[Path, int] | None:
        """Folder and samples seen of the newest checkpoint whose files are what they were; None where there is none."""
        for folder in reversed(self._all()):
            state: dict[str, Any] | None = read_json_if_there(folder / COMPLETE)
            if state is not None:
                found = {name: entry for name, entry in manifest_of(folder).items() if name != COMPLETE}
                if found == state["files"]:
                    return folder, int(state["samples_seen"])
            log.warning("%s is damaged: going back to the checkpoint before it", folder)
        return None

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("samples_*") if path.suffix != ".tmp")
