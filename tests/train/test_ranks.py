"""Two ranks of which one stands still or dies: the job ends in seconds and says which."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from affect_hpc.train.watchdog import EXIT_HANGS

HERE = Path(__file__).parent
PROGRAM = """
import os, signal, sys, time
from dataclasses import replace
from pathlib import Path
from affect_hpc.train import comm
from toy_training import CONFIG, ToyTask, deepspeed_config, train
keep, what, rank = Path(sys.argv[1]), sys.argv[2], int(os.environ["RANK"])
ranks = comm.Ranks.of_environment()
comm.set_up(ranks, keep)
config = replace(deepspeed_config(0), stall_s=1.0, samples_total=8000)

class Troubled(ToyTask):
    def step(self, batch, step, lr):
        if step == 3 and ranks.rank == 1:
            (self.hang if what == "hang" else self.die)()
        return super().step(batch, step, lr)

    def hang(self):
        time.sleep(600)

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

train(keep, Troubled(config, ranks), config, ranks)
"""


def run_ranks(folder: Path, what: str) -> list[tuple[int, str]]:
    """Exit code and standard error of both ranks."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SUBMITIT"))}
    base["CUDA_VISIBLE_DEVICES"] = ""  # NCCL takes no two ranks on one GPU
    path = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder / "keep"), what],
            env=base | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    return [(process.wait(timeout=120), process.stderr.read() if process.stderr else "") for process in ranks]


def test_a_rank_that_hangs_is_named_with_its_place(tmp_path: Path) -> None:
    ended = run_ranks(tmp_path, "hang")
    assert ended[1][0] == EXIT_HANGS
    assert ended[0][0], "the one that waited goes as well, by its own watchdog or because the other one is gone"
    failure = json.loads((tmp_path / "FAILED").read_text())
    assert failure["message"].startswith("rank 1 of 2 hangs at ")
    assert "step 4 has taken" in failure["message"]
    assert "in hang" in ended[1][1], "its stack is in the log"


@pytest.mark.parametrize("number", [signal.SIGKILL])
def test_a_rank_that_dies_takes_the_others_along(tmp_path: Path, number: int) -> None:
    ended = run_ranks(tmp_path, "die")
    assert ended[1][0] == -number
    assert ended[0][0] not in (0, -number), "the other one ends by itself, not well"
