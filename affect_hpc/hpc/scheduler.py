"""Asking SLURM: states of jobs, cancelling, releasing. Every client call has a time limit."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from affect_hpc.core.errors import UserError

CALL_TIMEOUT_S = 60
LIVE = frozenset(
    "PENDING RUNNING CONFIGURING COMPLETING REQUEUED REQUEUE_HOLD REQUEUE_FED SUSPENDED RESIZING "
    "STAGE_OUT SIGNALING SPECIAL_EXIT STOPPED".split()
)


@dataclass(frozen=True)
class JobState:
    """What the scheduler says of one job."""

    state: str
    """PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, ...; LOST where SLURM does not know the job."""
    node: str = ""
    reason: str = ""

    @property
    def is_live(self) -> bool:
        """Whether the job still is to run, or runs."""
        return self.state in LIVE


LOST = JobState("LOST")


def call(command: Sequence[str], env: Mapping[str, str]) -> str:
    """Run a SLURM client and return what it prints; UserError where it cannot be run or refuses."""
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            timeout=CALL_TIMEOUT_S,
            env={**os.environ, **env},
            check=False,
        )
    except FileNotFoundError:
        raise UserError(
            f"{command[0]} was not found: cluster=slurm needs SLURM's clients on this machine; cluster=local does not."
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]} gave no answer within {CALL_TIMEOUT_S} s: is the cluster up (sinfo)?") from None
    if done.returncode:
        raise UserError(f"{command[0]} refused: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def states(ids: Iterable[str], env: Mapping[str, str]) -> dict[str, JobState]:
    """State of each job or array element (``123`` or ``123_4``); LOST where neither squeue nor sacct has it.

    One call of each client, whatever the number of jobs.
    """
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    found: dict[str, JobState] = {}
    base = sorted({job.split("_")[0] for job in wanted})
    # sacct first: its rows lag behind, so what squeue says of the same job counts.
    fields = "JobID,State,NodeList,Reason"
    for line in call(["sacct", "-X", "-n", "-P", "-j", ",".join(base), "-o", fields], env).splitlines():
        job, state, node, reason = line.split("|")[:4]
        for each in expand(job):
            found[each] = JobState(state.split()[0], node if node != "None assigned" else "", reason)
    for line in (
        call(["squeue", "-h", "-r", "-o", "%i|%T|%N|%r", "--states=all", "-j", ",".join(base)], env).splitlines()
        if (_queue_knows(base, env))
        else ()
    ):
        job, state, node, reason = line.split("|")[:4]
        found[job] = JobState(state, node, reason)
    return {job: found.get(job, LOST) for job in wanted}


def _queue_knows(base: list[str], env: Mapping[str, str]) -> bool:
    # squeue ends with an error when it knows none of the jobs it is asked for by id.
    rows = call(["squeue", "-h", "-o", "%F", "--states=all"], env).split()
    return bool(set(rows) & set(base))


def expand(job: str) -> list[str]:
    """``7_[1-3,5%2]`` -> ``7_1 7_2 7_3 7_5``; other ids as they are."""
    match = re.fullmatch(r"(\d+)_\[([\d,\-]+)(?:%\d+)?\]", job)
    if not match:
        return [job]
    ids = []
    for run in match[2].split(","):
        first, _, last = run.partition("-")
        ids += [f"{match[1]}_{i}" for i in range(int(first), int(last or first) + 1)]
    return ids


def find_by_name(name: str, env: Mapping[str, str]) -> str | None:
    """Id of the array submitted under ``name``, if the queue has it."""
    rows = call(["squeue", "-h", "-o", "%F", "--states=all", f"--name={name}"], env).split()
    return rows[0] if rows else None


def cancel(ids: Iterable[str], env: Mapping[str, str]) -> None:
    """End jobs or array elements."""
    ordered = sorted(set(ids))
    if ordered:
        call(["scancel", *ordered], env)


def release(ids: Iterable[str], env: Mapping[str, str]) -> None:
    """Let held jobs go."""
    ordered = sorted(set(ids))
    if ordered:
        call(["scontrol", "release", ",".join(ordered)], env)
