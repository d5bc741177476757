"""Average, learning rate, ranks: hand-computed values."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed import FileStore

from affect_hpc.config.train import EngineName, LrSchedule, Precision, TrainConfig
from affect_hpc.core.errors import UserError
from affect_hpc.train import comm
from affect_hpc.train.ema import Ema
from affect_hpc.train.engine import make_engine
from affect_hpc.train.optim import adamw, lr_factor


def test_the_average_follows_its_recursion_with_warm_up() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    ema = Ema(net, 0.5)
    expected = 0.0
    for n in range(1, 30):
        nn.init.constant_(net.weight, float(n))
        ema.update(net)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    assert float(next(ema.average.parameters())) == pytest.approx(expected, rel=1e-6)
    assert min(0.5, (1 + 7) / (10 + 7)) < 0.5 == min(0.5, (1 + 8) / (10 + 8)), "the test covers both branches"


def test_the_average_is_apart_and_frozen() -> None:
    net = nn.Linear(2, 2)
    ema = Ema(net, 0.9)
    nn.init.zeros_(net.weight)
    average = ema.average
    assert isinstance(average, nn.Linear)
    assert float(average.weight.abs().sum()) > 0
    assert not average.weight.requires_grad and not average.training


def test_learning_rate_schedules() -> None:
    assert {lr_factor(LrSchedule.constant, share) for share in (0.0, 0.5, 1.0)} == {1.0}
    cosine = [lr_factor(LrSchedule.cosine, share) for share in (0.0, 0.25, 0.5, 1.0)]
    assert cosine == pytest.approx([1.0, 0.5 + math.sqrt(2) / 4, 0.5, 0.0])
    onecycle = [lr_factor(LrSchedule.onecycle, share) for share in (0.0, 0.125, 0.25, 0.625, 1.0)]
    assert onecycle == pytest.approx([0.04, 0.52, 1.0, 0.5, 0.0])


def test_adamw_gets_the_configured_numbers_and_trainable_weights_only() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    group = adamw(net, TrainConfig(8, 64, 3.6e-5, 0.5, 0.9, 0.0)).param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"], len(group["params"])) == (3.6e-5, (0.5, 0.9), 0.0, 2)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, comm.Ranks(0, 1, 0)),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}, comm.Ranks(5, 8, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "2"}, comm.Ranks(2, 4, 2)),
        (
            {"SUBMITIT_LOCAL_GLOBALID": "1", "SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_LOCALID": "1"},
            comm.Ranks(1, 2, 1),
        ),
    ],
)
def test_ranks_come_from_whoever_started_us(
    environment: dict[str, str], expected: comm.Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for starter in ("SLURM_PROCID", "RANK", "SUBMITIT_LOCAL_GLOBALID"):
        monkeypatch.delenv(starter, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert comm.Ranks.of_environment() == expected


def test_two_attempts_of_a_job_meet_in_different_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    first = comm.attempt_name()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert comm.attempt_name() != first


def test_alone_the_helpers_vanish() -> None:
    value = torch.tensor(3.0)
    assert comm.highest_of_ranks(2) == 2
    assert comm.mean_over_ranks(value) is value and comm.from_chief(value) is value


@pytest.mark.parametrize(("batch", "micro", "world"), [(8, 3, 1), (8, 8, 2), (2, 0, 4)])
def test_a_batch_that_cannot_be_divided_is_refused(batch: int, micro: int, world: int) -> None:
    with pytest.raises(UserError, match="global_batch_size"):
        make_engine(nn.Linear(1, 1), TrainConfig(batch, 64, 0.1, micro_batch_size=micro), comm.Ranks(0, world, 0))


def test_gradients_that_float16_cannot_hold_leave_the_step_out_and_lower_the_scale() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    engine = make_engine(net, TrainConfig(1, 64, 0.1, engine=EngineName.plain, precision=Precision.fp16), comm.Ranks())
    scale = engine.state()["scaler"]["scale"]
    engine.backward(net.weight.sum() * float("inf"))
    engine.step(0.1)
    assert float(net.weight.detach()) == 1.0
    assert engine.state()["scaler"]["scale"] == scale / 2
    engine.backward(net.weight.sum())
    engine.step(0.1)
    assert float(net.weight.detach()) == pytest.approx(0.899, abs=1e-3), "AdamW moves by the rate, whatever the scale"
    assert engine.state()["scaler"]["scale"] == scale / 2


def test_a_rank_that_does_not_come_is_named(tmp_path: Path) -> None:
    store = FileStore(str(tmp_path / "meeting"), 3)
    store.set("here/2", "elsewhere")
    with pytest.raises(UserError, match=r"rank 1 of 3 did not come within 0\.1 s"):
        comm.meet(store, comm.Ranks(0, 3, 0), 0.1)


def test_ranks_that_meet_hear_each_others_word(tmp_path: Path) -> None:
    store = FileStore(str(tmp_path / "meeting"), 2)
    store.set("here/1", "GPU b of two")
    assert comm.meet(store, comm.Ranks(0, 2, 0), 0.1, "GPU a of one") == ["GPU a of one", "GPU b of two"]


def test_two_ranks_on_one_gpu_are_named() -> None:
    comm.require_own_gpus(["", ""])
    comm.require_own_gpus(["GPU a of one", "GPU b of one", "GPU a of two"])
    with pytest.raises(UserError, match=r"ranks 1 and 2 of 3 have the same GPU b of one: .*gpus_per_node"):
        comm.require_own_gpus(["GPU a of one", "GPU b of one", "GPU b of one"])
