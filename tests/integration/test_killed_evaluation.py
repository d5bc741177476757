"""An evaluation that is killed, divided anew, or fed a damaged picture: the same bits, or the picture's name."""

import os
import random
import re
import time
from pathlib import Path

import pytest
from commands import EVALUATION, copy_of, kill_everything_of, metrics, run, start

from affect_hpc.core.io import read_json
from affect_hpc.data.shards import ShardSet

pytestmark = pytest.mark.xdist_group("local_sweep")
KILLS = int(os.environ.get("AFFECT_HPC_KILLS", "2"))


def test_killed_and_divided_anew_it_ends_with_the_same_bits(smoke_store: Path, tmp_path: Path) -> None:
    store = copy_of(smoke_store, tmp_path / "store", *EVALUATION)
    words = ("-m", "sweep=smoke", f"store={store}", "cluster.parts=3", "cluster.max_attempts=1000")
    moments, met = random.Random(7), 0
    for _ in range(KILLS):
        launch = start("launch", *words)
        # A moment of the work, not of a clock: whatever it meets, the end must be the same.
        time.sleep(moments.uniform(6, 20))
        met += kill_everything_of(store)
        launch.communicate(timeout=60)
    assert met, "the launches were killed while they worked"
    # What the dead left is taken up by a launch of any kind.
    said = run("launch", *words, "cluster=inline")
    assert said.code == 0, said.out + said.err
    assert metrics(store) == metrics(smoke_store)


def test_a_damaged_picture_is_named_and_rerun_draws_it_again(smoke_store: Path, tmp_path: Path) -> None:
    store = copy_of(smoke_store, tmp_path / "store", "evaluate", "reduce", "report")
    (part, *_) = sorted((store / "runs/manipulate").glob("*/parts/0001/out"))
    edits = ShardSet.open([part])
    entry = edits[1]
    (tar,) = part.glob("*.tar")
    content = bytearray(tar.read_bytes())
    content[entry.members["sad.png"].offset + 40] ^= 1
    tar.write_bytes(content)
    said = run("launch", "-m", "sweep=smoke", f"store={store}", "cluster.parts=2")
    assert said.code == 1
    told = rf"FAILED evaluate/\w+\[1\]: \S+ {re.escape(entry.key)}\.sad\.png is not what was written"
    assert re.search(told, said.out)
    failed = [path.parent for path in store.rglob("FAILED")]
    assert len(failed) == 1 and failed[0].name == "0001", "the other part, and the other points, are judged"
    assert read_json(failed[0] / "FAILED")["kind"] == "user"
    said = run("rerun", "smoke", "--store", store)
    assert said.code == 0, said.out + said.err
    assert metrics(store) == metrics(smoke_store)
