"""The loop's promises: resume to the bit, whole checkpoints, an orderly stop, no silent NaN."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_training import CONFIG, ToyTask, train

from affect_hpc.core.stop import STOP
from affect_hpc.train.checkpoint import COMPLETE


def checkpoints(keep: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("samples_")) for path in (keep / "checkpoints").glob("*0*[0-9]"))


def assert_same(a: ToyTask, b: ToyTask) -> None:
    for name, value in a.weights().items():
        assert torch.equal(value, b.weights()[name]), name
    for name, value in a.ema.average.state_dict().items():
        assert torch.equal(value, b.ema.average.state_dict()[name]), f"average of {name}"
    assert a.ema.updates == b.ema.updates
    ours, theirs = (task.engine._optimizer.state_dict()["state"] for task in (a, b))
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert all(torch.equal(ours[key][name], theirs[key][name]) for name in ours[key]), key


@pytest.mark.parametrize("stop_at", [0, 2, 4])
def test_stopped_and_resumed_equals_never_stopped_to_the_bit(tmp_path: Path, stop_at: int) -> None:
    whole = ToyTask(CONFIG)
    assert train(tmp_path / "whole", whole)
    first = ToyTask(CONFIG)
    first.stop_at = stop_at
    assert not train(tmp_path / "halves", first)
    assert len(first.losses) == stop_at + 1
    STOP.received = None
    second = ToyTask(CONFIG)
    assert train(tmp_path / "halves", second)
    assert first.losses + second.losses == whole.losses
    assert first.seen + second.seen == whole.seen
    assert_same(whole, second)


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    task = ToyTask(CONFIG)
    train(tmp_path, task)
    again = ToyTask(CONFIG)
    assert train(tmp_path, again)
    assert again.losses == []
    assert_same(task, again)


def test_a_stop_with_the_last_step_is_a_finish(tmp_path: Path) -> None:
    task = ToyTask(CONFIG)
    task.stop_at = 5
    assert train(tmp_path, task)


def test_checkpoints_are_pruned_and_marked_complete(tmp_path: Path) -> None:
    train(tmp_path, ToyTask(replace(CONFIG, save_every=1)), replace(CONFIG, save_every=1))
    assert checkpoints(tmp_path) == [32, 40, 48]
    assert all((path / COMPLETE).exists() for path in (tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("damage", ["cut", "flip", "incomplete", "gone"])
def test_a_damaged_checkpoint_is_said_and_passed_over(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = ToyTask(CONFIG)
    train(tmp_path, whole)
    newest = tmp_path / "checkpoints" / "samples_000000000048"
    file = newest / "net.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "incomplete":
        (newest / COMPLETE).unlink()
    else:
        file.unlink()
    again = ToyTask(CONFIG)
    assert train(tmp_path, again)
    assert "samples_000000000048 is damaged" in caplog.text
    assert again.losses == whole.losses[4:]
    assert_same(whole, again)
    assert checkpoints(tmp_path) == [16, 32, 48], "the damaged one was replaced by a good one"


def test_an_unfinished_save_is_ignored(tmp_path: Path) -> None:
    first = ToyTask(CONFIG)
    first.stop_at = 1
    train(tmp_path, first)
    STOP.received = None
    (tmp_path / "checkpoints" / "samples_000000000040.tmp").mkdir()
    second = ToyTask(CONFIG)
    assert train(tmp_path, second)
    assert len(second.losses) == 4


def test_a_loss_that_is_no_number_names_steps_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    config = replace(CONFIG, log_every=2)
    task = ToyTask(config)
    task.poison_at = 4
    with pytest.raises(FloatingPointError, match=r"loss .* between steps 4 and 5.*samples_000000000032"):
        train(tmp_path, task, config)
    assert checkpoints(tmp_path) == [16, 32]


def test_spoilt_weights_are_never_saved(tmp_path: Path) -> None:
    config = replace(CONFIG, log_every=100, save_every=1)
    task = ToyTask(config)
    task.poison_at = 2
    with pytest.raises(FloatingPointError, match="between steps 2 and 2"):
        train(tmp_path, task, config)
    assert checkpoints(tmp_path) == [8, 16]


def test_figures_reach_tensorboard_and_the_text_log(tmp_path: Path) -> None:
    config = replace(CONFIG, peak_tflops=1e-3)
    task = ToyTask(config)
    train(tmp_path, task, config)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    rates = {"samples_per_s", "data_wait_share", "memory_gb", "tflops_a_rank", "flop_utilisation"}
    assert set(events.Tags()["scalars"]) == {"loss", "lr", "grad_norm_net", *rates}
    assert [event.step for event in events.Scalars("loss")] == [8, 16, 24, 32, 40, 48]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == task.losses
    assert lines[0]["lr"] == pytest.approx(0.05)
    for line in lines:
        assert line["tflops_a_rank"] == pytest.approx(line["samples_per_s"] * 2e6 / 1e12)
        assert line["flop_utilisation"] == pytest.approx(line["tflops_a_rank"] / 1e-3)


def test_the_logged_norm_is_that_of_the_gradient(tmp_path: Path) -> None:
    config = replace(CONFIG, samples_total=8, clip_grad_norm=0.0)
    task = ToyTask(config)
    task.dropout = False
    x = {}

    def remember(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        x["value"] = inputs[0]

    other = ToyTask(config)
    other.engine.module.eval()
    task.engine.module.register_forward_pre_hook(remember)
    train(tmp_path, task, config)
    loss = ((other.engine.module(x["value"]) - x["value"].sum(dim=1, keepdim=True)) ** 2).mean()
    gradients = torch.autograd.grad(loss, list(other.engine.module.parameters()))
    expected = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    (line,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert line["grad_norm_net"] == pytest.approx(expected, rel=1e-5)


def test_accumulated_micro_batches_make_the_same_step(tmp_path: Path) -> None:
    tasks = []
    for micro in (8, 2):
        config = replace(CONFIG, micro_batch_size=micro)
        task = ToyTask(config)
        task.dropout = False
        train(tmp_path / str(micro), task, config)
        tasks.append(task)
    for name, value in tasks[0].weights().items():
        torch.testing.assert_close(value, tasks[1].weights()[name], rtol=1e-5, atol=1e-6)
