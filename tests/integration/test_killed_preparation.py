"""Shards of a preparation that was killed again and again are, to the byte, those of one that was left alone."""

import os
import random
import time
from pathlib import Path

import commands

from affect_hpc.core.io import sha256_file

KILLS = int(os.environ.get("AFFECT_HPC_KILLS", "2"))
ARGUMENTS = (
    *("stage=prepare_shards", "data=demo_clips", "data.voice=tones", "data.train_samples=36", "data.val_samples=12"),
    *("data.samples_per_shard=4", "cluster.parts=3", "cluster.max_attempts=1000"),
)


def shards(store: Path) -> dict[str, str]:
    """Tars and indexes by their place, with their digests."""
    files = [path for path in store.rglob("shard-*") if path.is_file() and "out" in path.parts]
    return {path.relative_to(store).as_posix(): sha256_file(path) for path in files}


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    began = time.monotonic()
    said = commands.run("launch", *ARGUMENTS, f"store={alone}")
    takes_s = time.monotonic() - began
    assert said.code == 0, said.out + said.err
    moments, met = random.Random(5), 0
    for _ in range(KILLS):
        launch = commands.start("launch", *ARGUMENTS, f"store={killed}")
        # A moment of the work, not of a clock: whatever it meets, the end must be the same.
        time.sleep(moments.uniform(0.1, 1.1) * takes_s)
        met += commands.kill_everything_of(killed)
        launch.communicate(timeout=60)
    assert met, "the launches were killed while they worked"
    said = commands.run("launch", *ARGUMENTS, f"store={killed}")
    assert said.code == 0, said.out + said.err
    assert shards(killed) == shards(alone) and len(shards(alone)) == 24
    leftovers = [path for path in killed.rglob("*") if path.name.startswith(".out") or path.suffix == ".tmp"]
    assert not leftovers, "nothing half-written is left"
