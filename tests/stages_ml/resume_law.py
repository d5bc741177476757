"""Two ranks train a stage, stopped at every step and killed at random moments: what they end with does not change.

``python resume_law.py CHAIN WORK KIND --kills N`` is run by test_resume_law.py in a process of its own, which imports
everything once and forks the ranks of each attempt.
"""

import argparse
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ml_world import CLASSIFIER_INPUTS, LDM_INPUTS, Chain, smoke_stages

from affect_hpc.config.train import EngineName
from affect_hpc.core.io import read_json, sha256_file
from affect_hpc.core.rundir import Inputs, Workplace
from affect_hpc.core.stop import STOP
from affect_hpc.stages import train_classifier, train_ldm, train_vqgan
from affect_hpc.train import deepspeed_engine

SAVE_EVERY, WORLD = 3, 2
DONE, STOPPED, BROKEN = 0, 7, 1
GRACE_S = 1.0
KINDS: dict[str, tuple[Any, Any, dict[str, str]]] = {
    "train_ldm": (train_ldm, train_ldm.LdmTask, LDM_INPUTS),
    "train_classifier": (train_classifier, train_classifier.ClassifierTask, CLASSIFIER_INPUTS),
    "train_vqgan": (train_vqgan, train_vqgan.VqganTask, {"shards": "prepare_shards"}),
}


def config_of(kind: str, steps: int) -> Any:
    """So many steps, the adversarial loss from the second on, dead codes revived."""
    config = getattr(smoke_stages(), kind)
    total = steps * config.train.global_batch_size
    engine = {"engine": EngineName.deepspeed, "zero_stage": 1}
    train = replace(config.train, samples_total=total, save_every=SAVE_EVERY, log_every=5, **engine)
    changes = {"revive_every": 4} if kind == "train_vqgan" else {}
    return replace(config, train=train, **changes)


def rank_process(number: int, law: "Law", stop_at: int) -> None:
    """What a forked rank does; never returns."""
    code = BROKEN
    try:
        os.environ.update(RANK=str(number), WORLD_SIZE=str(WORLD), LOCAL_RANK=str(number))
        os.environ["TORCHELASTIC_RUN_ID"] = str(law.attempts)
        log = os.open(law.work / f"log_{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        STOP.install()
        module, task, roles = KINDS[law.kind]
        original = task.step

        def step(self: Any, batch: Any, now: int, lr: float) -> Any:
            figures = original(self, batch, now, lr)
            # A signal to one of the ranks, in turn.
            if now == stop_at and number == now % WORLD:
                os.kill(os.getpid(), signal.SIGTERM)
            return figures

        task.step = step
        inputs = Inputs({role: (Chain(law.chain, smoke_stages()).out(name),) for role, name in roles.items()})
        outcome = module.run(config_of(law.kind, law.steps), inputs, Workplace(law.work / "out", law.work / "keep"))
        code = STOPPED if outcome.stopped else DONE
    finally:
        os._exit(code)


class Law:
    """Attempts at one training in a folder of its own."""

    def __init__(self, kind: str, chain: Path, steps: int, work: Path) -> None:
        self.kind, self.chain, self.steps, self.work, self.attempts = kind, chain, steps, work, 0

    def attempt(self, stop_at: int = -1, trouble: Callable[[list[int]], None] = lambda ranks: None) -> int:
        """Start all ranks; the worst of their ends."""
        shutil.rmtree(self.work / "out", ignore_errors=True)
        (self.work / "out").mkdir(parents=True)
        self.attempts += 1
        ranks = []
        for number in range(WORLD):
            process = os.fork()
            if not process:
                rank_process(number, self, stop_at)
            ranks.append(process)
        trouble(ranks)
        ends = set()
        for left in range(WORLD, 0, -1):
            process, status = os.wait()
            ranks.remove(process)
            ends.add(os.waitstatus_to_exitcode(status))
            if left > 1 and ends - {DONE, STOPPED}:
                # As srun does: a rank that dies takes the others along.
                time.sleep(GRACE_S)
                for other in ranks:
                    os.kill(other, signal.SIGKILL)
        return DONE if ends == {DONE} else STOPPED if ends == {STOPPED} else BROKEN

    def result(self) -> dict[str, str]:
        """Digests of all weights, averages, moments, counters and generators."""
        newest = max((self.work / "keep" / "checkpoints").glob("samples_*[0-9]"))
        saved = {name: entry["sha256"] for name, entry in read_json(newest / "COMPLETE.json")["files"].items()}
        out = {
            path.relative_to(self.work).as_posix(): sha256_file(path)
            for path in self.work.rglob("out/**/*.safetensors")
        }
        return saved | out


def main() -> None:
    """Check the law; AssertionError where it does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chain", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--kills", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    deepspeed_engine.imported()  # once, before the ranks are forked
    steps = arguments.steps

    def law(name: str) -> Law:
        return Law(arguments.kind, arguments.chain, steps, arguments.work / name)

    clean = law("clean")
    began = time.monotonic()
    assert clean.attempt() == DONE
    takes_s = time.monotonic() - began
    expected = clean.result()

    stopped = law("stopped")
    for step in range(steps - 1):
        assert stopped.attempt(stop_at=step) == STOPPED, f"stopped after step {step}"
    assert stopped.attempt(stop_at=steps - 1) == DONE, "a stop with the last step is a finish"
    assert stopped.result() == expected, "stopped at every step"

    moments = random.Random(3)
    kills = finished = 0
    while kills < arguments.kills:
        killed = law(f"killed_{finished}")
        while True:

            def kill(ranks: list[int]) -> None:
                time.sleep(moments.uniform(0.2, 1.0) * takes_s)
                os.kill(moments.choice(ranks), signal.SIGKILL)

            still = kills < arguments.kills
            kills += still
            if killed.attempt(trouble=kill if still else lambda ranks: None) == DONE:
                break
        assert killed.result() == expected, "killed at random moments"
        finished += 1
    print(f"{arguments.kind}: {steps} stops, {kills} kills over {finished} trainings: {len(expected)} digests equal")


if __name__ == "__main__":
    main()
