"""Reading what SLURM prints."""

from collections.abc import Mapping, Sequence

import pytest

from affect_hpc.core.errors import UserError
from affect_hpc.hpc import scheduler
from affect_hpc.hpc.scheduler import JobState, expand


@pytest.mark.parametrize(
    ("job", "ids"),
    [
        ("7", ["7"]),
        ("7_3", ["7_3"]),
        ("7_[1-3,5%2]", ["7_1", "7_2", "7_3", "7_5"]),
        ("7_[0]", ["7_0"]),
        ("7_[9-11]", ["7_9", "7_10", "7_11"]),
        ("7.batch", ["7.batch"]),
    ],
)
def test_expand(job: str, ids: list[str]) -> None:
    assert expand(job) == ids


class Printed:
    """SLURM clients that print what they are told to."""

    def __init__(self, **printed: str) -> None:
        self.printed, self.calls = printed, list[list[str]]()

    def call(self, command: Sequence[str], env: Mapping[str, str]) -> str:
        self.calls.append(list(command))
        if command[0] == "squeue" and "%F" in command:
            return "".join(
                f"{line.split('_')[0].split('|')[0]}\n" for line in self.printed.get("squeue", "").splitlines()
            )
        return self.printed.get(command[0], "")


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Printed:
    one = Printed()
    monkeypatch.setattr(scheduler, "call", one.call)
    return one


def test_states_of_array_elements(printed: Printed) -> None:
    printed.printed = {
        "sacct": "7_0|COMPLETED|node1|None\n7_1|CANCELLED by 1000|None assigned|None\n"
        "7_[2-3,5%4]|PENDING|None assigned|Dependency\n",
        "squeue": "7_2|RUNNING|node2|None\n7_3|PENDING||JobHeldUser\n",
    }
    found = scheduler.states(["7_0", "7_1", "7_2", "7_3", "7_4", "7_5", "8_0"], {})
    assert found == {
        "7_0": JobState("COMPLETED", "node1", "None"),
        "7_1": JobState("CANCELLED", "", "None"),
        "7_2": JobState("RUNNING", "node2", "None"),  # the queue is ahead of the accounting
        "7_3": JobState("PENDING", "", "JobHeldUser"),
        "7_4": scheduler.LOST,
        "7_5": JobState("PENDING", "", "Dependency"),
        "8_0": scheduler.LOST,
    }
    assert [key for key, state in found.items() if state.is_live] == ["7_2", "7_3", "7_5"]


def test_one_call_of_each_client_for_any_number_of_jobs(printed: Printed) -> None:
    printed.printed = {"squeue": "7_0|PENDING||None\n"}
    scheduler.states([f"{number}_{i}" for number in (7, 8, 9) for i in range(500)], {})
    assert len(printed.calls) <= 3
    asked = next(words for words in printed.calls if words[0] == "sacct")
    assert asked[asked.index("-j") + 1] == "7,8,9"


def test_nobody_is_asked_about_nothing(printed: Printed) -> None:
    assert scheduler.states([], {}) == {}
    scheduler.cancel([], {})
    scheduler.release([], {})
    assert printed.calls == []


def test_the_queue_is_not_asked_for_jobs_it_has_forgotten(printed: Printed) -> None:
    # squeue -j ends with an error where it knows none of the ids.
    printed.printed = {"sacct": "7_0|COMPLETED|n|None\n", "squeue": "99|RUNNING|n|None\n"}
    assert scheduler.states(["7_0"], {})["7_0"].state == "COMPLETED"
    assert not any("-j" in words for words in printed.calls if words[0] == "squeue")


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "REQUEUED", "SUSPENDED", "COMPLETING"])
def test_what_may_still_run_is_live(state: str) -> None:
    assert JobState(state).is_live


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "OUT_OF_MEMORY", "NODE_FAIL", "LOST"])
def test_what_has_ended_is_not(state: str) -> None:
    assert not JobState(state).is_live


def test_a_client_that_is_absent_refuses_or_hangs_is_told_of_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no-such-client was not found.*cluster=local does not"):
        scheduler.call(["no-such-client"], {})
    with pytest.raises(UserError, match=r"^ls refused: .*no-such-file"):
        scheduler.call(["ls", "/no-such-file"], {})
    monkeypatch.setattr(scheduler, "CALL_TIMEOUT_S", 0.05)
    with pytest.raises(UserError, match="sleep gave no answer within"):
        scheduler.call(["sleep", "5"], {})
    assert scheduler.call(["sh", "-c", "printf %s $SLURM_CONF"], {"SLURM_CONF": "/here"}) == "/here"
