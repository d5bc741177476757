"""What a training went through: where each attempt began, and what was done twice because it was lost."""

import json
import time
from pathlib import Path

from affect_hpc.core.io import append_line, read_json_if_there

FILE = "attempts.jsonl"


def begin(keep: Path, samples_seen: int, node: str) -> None:
    """Note that an attempt begins after ``samples_seen`` samples; ``keep`` is the folder of its checkpoints.

    What the attempt before had done beyond that, as far as it could still say, is lost.
    """
    before = read_json_if_there(keep.parent / "progress.json")
    reached = before["done"] if before and (keep / FILE).exists() else samples_seen
    entry = {"time": time.time(), "node": node, "from": samples_seen, "lost": max(0, reached - samples_seen)}
    append_line(keep / FILE, json.dumps(entry))


def told(keep: Path) -> str:
    """The story in a few words; empty for a training that was never interrupted."""
    try:
        attempts = [json.loads(line) for line in (keep / FILE).read_text().splitlines()]
    except FileNotFoundError:
        return ""
    if len(attempts) < 2:
        return ""
    lost = sum(attempt["lost"] for attempt in attempts)
    return f"resumed {len(attempts) - 1} times, last after {attempts[-1]['from']} samples; {lost} samples done twice"
