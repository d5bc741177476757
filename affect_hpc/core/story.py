"""What a training went through: where each attempt began, and what was done twice because it was lost."""

import json
import time
from pathlib import Path

from affect_hpc.core.io import append_line, read_json_if_there

FILE = "attempts.jsonl"


def begin(label: str, keep: Path, element: Path, samples_seen: int, node: str) -> None:
    """Note that an attempt at the training ``label`` begins after ``samples_seen`` samples.

    What the attempt before had done beyond that, as far as it could still say, is lost.

    Args:
        label: as the training's progress bears it; one run may hold several trainings, one after the other.
        keep: folder of its checkpoints.
        element: folder of the element that it is the work of.
    """
    before = read_json_if_there(element / "progress.json")
    ours = before is not None and before["label"] == label and (keep / FILE).exists()
    reached = before["done"] if before and ours else samples_seen
    entry = {"time": time.time(), "node": node, "from": samples_seen, "lost": max(0, reached - samples_seen)}
    append_line(keep / FILE, json.dumps(entry))


def told(keep: Path) -> str:
    """The story of an element in a few words, of each of its trainings; empty where none was interrupted."""
    return "; ".join(filter(None, map(_told, sorted([*keep.glob(FILE), *keep.glob(f"*/{FILE}")]))))


def _told(file: Path) -> str:
    attempts = [json.loads(line) for line in file.read_text().splitlines()]
    if len(attempts) < 2:
        return ""
    lost = sum(attempt["lost"] for attempt in attempts)
    return f"resumed {len(attempts) - 1} times, last after {attempts[-1]['from']} samples; {lost} samples done twice"
