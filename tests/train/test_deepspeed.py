"""DeepSpeed makes the same steps as torch alone, in every ZeRO stage, on one rank and two, and resumes exactly."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_training import CONFIG, ToyTask, deepspeed_config, train

from affect_hpc.config.train import Precision, TrainConfig
from affect_hpc.core.stop import STOP
from affect_hpc.train import comm
from affect_hpc.train.engine import make_engine
from affect_hpc.train.statefile import read_state

HERE = Path(__file__).parent
RANK_PROGRAM = """
import json, sys
from pathlib import Path
from affect_hpc.core.stop import STOP
from affect_hpc.train import comm
from toy_training import ToyTask, deepspeed_config, train
folder, stage, stop_at = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
ranks = comm.Ranks.of_environment()
comm.set_up(ranks, folder)
config = deepspeed_config(stage)
task = ToyTask(config, ranks)
task.dropout = False
# Only one rank is told to stop: all must agree, and take it for the same wish.
task.stop_at = stop_at if ranks.rank == 1 else -1
done = train(folder, task, config, ranks)
weights = task.weights()
if ranks.is_chief:
    (folder / "result.json").write_text(json.dumps({
        "done": done, "signal": STOP.received, "steps": len(task.losses),
        "weights": {n: v.tolist() for n, v in weights.items()},
        "average": {n: v.tolist() for n, v in task.ema.average.state_dict().items()},
    }))
"""


@pytest.fixture(scope="module", autouse=True)
def group(tmp_path_factory: pytest.TempPathFactory) -> None:
    comm.set_up(comm.Ranks(), tmp_path_factory.mktemp("group"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ToyTask:
    task = ToyTask(CONFIG)
    task.dropout = False
    train(tmp_path_factory.mktemp("plain"), task)
    return task


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_each_stage_equals_torch_alone(stage: int, plain: ToyTask, tmp_path: Path) -> None:
    config = deepspeed_config(stage, micro_batch_size=4)
    task = ToyTask(config)
    task.dropout = False
    assert train(tmp_path, task, config)
    assert task.losses == pytest.approx(plain.losses, rel=1e-4, abs=1e-6)
    for name, value in plain.weights().items():
        torch.testing.assert_close(task.weights()[name], value, rtol=1e-4, atol=1e-5)


def stopped_and_resumed(folder: Path, before: TrainConfig, after: TrainConfig) -> tuple[ToyTask, ToyTask]:
    """Three steps by one engine, the rest by another."""
    first = ToyTask(before)
    first.dropout = False
    first.stop_at = 2
    assert not train(folder, first, before)
    STOP.received = None
    second = ToyTask(after)
    second.dropout = False
    assert train(folder, second, after)
    return first, second


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.fp16])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_resumed_run_is_the_same_to_the_bit(stage: int, precision: Precision, tmp_path: Path) -> None:
    config = deepspeed_config(stage, precision=precision)
    whole = ToyTask(config)
    whole.dropout = False
    train(tmp_path / "whole", whole, config)
    first, second = stopped_and_resumed(tmp_path / "halves", config, config)
    assert first.losses + second.losses == whole.losses
    assert all(torch.equal(value, second.weights()[name]) for name, value in whole.weights().items())
    ours, theirs = (
        read_state(tmp_path / name / "checkpoints" / "samples_000000000048" / "net.safetensors")
        for name in ("whole", "halves")
    )
    for key in ("exp_avg", "exp_avg_sq", "step"):
        for name, value in ours["moments"][key].items():
            assert torch.equal(value, theirs["moments"][key][name]), (key, name)
    assert ours.get("scaler") == theirs.get("scaler")


ENGINES = {"plain": CONFIG, **{f"zero {stage}": deepspeed_config(stage) for stage in range(4)}}


@pytest.mark.parametrize("after", ENGINES)
@pytest.mark.parametrize("before", ENGINES)
def test_any_engine_goes_on_where_any_other_stopped(before: str, after: str, plain: ToyTask, tmp_path: Path) -> None:
    first, second = stopped_and_resumed(tmp_path, ENGINES[before], ENGINES[after])
    assert first.losses + second.losses == pytest.approx(plain.losses, rel=1e-4, abs=1e-6)
    for name, value in plain.weights().items():
        torch.testing.assert_close(second.weights()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_norm_of_the_gradient_is_the_same_in_each_stage(stage: int, tmp_path: Path) -> None:
    norms = []
    for name, config in (("plain", CONFIG), ("zero", deepspeed_config(stage, micro_batch_size=4))):
        task = ToyTask(config)
        task.dropout = False
        train(tmp_path / name, task, config)
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        norms.append([line["grad_norm_net"] for line in lines])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_weights_that_were_set_survive_the_next_step(stage: int) -> None:
    task = ToyTask(deepspeed_config(stage))
    with torch.no_grad():
        for parameter in task.engine.module.parameters():
            parameter.fill_(0.5)
    task.engine.weights_changed()
    task.step({"x": torch.randn(8, 4), "index": torch.arange(8)}, 0, 1e-6)
    for parameter in task.engine.module.parameters():
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, 0.5), rtol=0, atol=1e-4)


def run_two_ranks(folder: Path, stage: int, stop_at: int, attempt: int) -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    base = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SUBMITIT"))}
    base["CUDA_VISIBLE_DEVICES"] = ""  # NCCL takes no two ranks on one GPU
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK_PROGRAM, str(folder), str(stage), str(stop_at)],
            env=base
            | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
            | {
                "TORCHELASTIC_RUN_ID": str(attempt),
                "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent.parent)]),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    content: dict[str, object] = json.loads((folder / "result.json").read_text())
    return content


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_ranks_equal_one_and_resume_to_the_bit(stage: int, plain: ToyTask, tmp_path: Path) -> None:
    whole = run_two_ranks(tmp_path / "whole", stage, -1, attempt=0)
    halves = tmp_path / "halves"
    stopped = run_two_ranks(halves, stage, 1, attempt=0)
    assert (stopped["done"], stopped["steps"], stopped["signal"]) == (False, 2, signal.SIGUSR2)
    finished = run_two_ranks(halves, stage, -1, attempt=1)
    assert (finished["done"], finished["steps"]) == (True, 4)
    assert finished["weights"] == whole["weights"] and finished["average"] == whole["average"]
    for kind, reference in (("weights", plain.weights()), ("average", plain.ema.average.state_dict())):
        values = finished[kind]
        assert isinstance(values, dict)
        for name, value in reference.items():
            torch.testing.assert_close(torch.tensor(values[name]), value.cpu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", [1, 3])
def test_one_rank_goes_on_where_two_stopped_and_the_other_way_round(stage: int, plain: ToyTask, tmp_path: Path) -> None:
    assert run_two_ranks(tmp_path / "fewer", stage, 1, attempt=0)["steps"] == 2
    task = ToyTask(deepspeed_config(stage))
    task.dropout = False
    assert train(tmp_path / "fewer", task, deepspeed_config(stage))
    assert task.losses == pytest.approx(plain.losses[2:], rel=1e-4)
    first = ToyTask(deepspeed_config(stage))
    first.dropout = False
    first.stop_at = 1
    train(tmp_path / "more", first, deepspeed_config(stage))
    STOP.received = None
    finished = run_two_ranks(tmp_path / "more", stage, -1, attempt=1)
    values = finished["weights"]
    assert isinstance(values, dict)
    for name, value in plain.weights().items():
        torch.testing.assert_close(torch.tensor(values[name]), value, rtol=1e-4, atol=1e-5)


def test_torch_alone_takes_one_process_only() -> None:
    with pytest.raises(ValueError, match="engine=plain"):
        make_engine(torch.nn.Linear(1, 1), CONFIG, comm.Ranks(0, 2, 0))
