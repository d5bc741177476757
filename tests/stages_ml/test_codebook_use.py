"""What becomes of codes: how their use is told, how those that nothing uses come back, and that none of it is lost."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ml_world import Chain, smoke_stages
from torch import Tensor

from affect_hpc.config.stages import TrainVqganConfig
from affect_hpc.config.train import EngineName
from affect_hpc.core.errors import UserError
from affect_hpc.core.stop import STOP
from affect_hpc.data.batches import TrainingData
from affect_hpc.data.images import ImageSet
from affect_hpc.losses.codebook import code_counts, codebook_use
from affect_hpc.models import first_stage
from affect_hpc.stages.train_vqgan import VqganTask
from affect_hpc.train import comm

LR = 1e-3


@pytest.fixture(scope="module")
def images(chain: Chain) -> ImageSet:
    comm.set_up(comm.Ranks(), Path())
    return ImageSet.open([chain.out("prepare_shards") / "train"])


@pytest.fixture(scope="module")
def config() -> TrainVqganConfig:
    cfg = smoke_stages().train_vqgan
    return replace(cfg, train=replace(cfg.train, weight_decay=0.0), disc_start=-1, codebook_every=3)


def made(config: TrainVqganConfig, images: ImageSet) -> VqganTask:
    data = TrainingData(images, images.shards.labels, config.train, 0, 1, Path())
    return VqganTask(config, data, images, comm.Ranks())


def take(task: VqganTask, step: int, lr: float = LR) -> Mapping[str, Tensor]:
    return task.step(task.data.fetch(range(8 * (step % 4), 8 * (step % 4) + 8)), step, lr)


def watched(task: VqganTask) -> list[Tensor]:
    """The codes of each forward pass from now on."""
    seen: list[Tensor] = []
    task.net.model.quantize.register_forward_hook(lambda module, inputs, output: seen.append(output[2][2]))
    return seen


def table(task: VqganTask) -> Tensor:
    weight: Tensor = task.net.model.quantize.embedding.weight
    return weight.detach().clone()


@torch.no_grad()
def distances(task: VqganTask, step: int, codes: Tensor) -> Tensor:
    """From each code to the nearest encoder output of a step's batch."""
    batch = task.data.fetch(range(8 * (step % 4), 8 * (step % 4) + 8))["image"].to(task.device)
    faces = batch.permute(0, 3, 1, 2) / 127.5 - 1
    latents = first_stage.encode(task.net.model, faces).permute(0, 2, 3, 1).reshape(-1, 3)
    return torch.cdist(codes, latents, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1).values


@pytest.mark.parametrize("micro", [8, 4])
def test_use_is_counted_since_it_was_last_told(config: TrainVqganConfig, images: ImageSet, micro: int) -> None:
    task = made(replace(config, train=replace(config.train, micro_batch_size=micro)), images)
    seen = watched(task)
    for step in range(7):
        take(task, step)
        told = task.measures(step + 1)
        assert bool(told) is (step in (2, 5))
        if told:
            codes = torch.cat([some.flatten() for some in seen])
            assert len(codes) == 3 * 8 * 16 * 16
            assert told == codebook_use(code_counts(codes, 64))
            seen.clear()


def test_nothing_is_used_before_there_is_quantisation(config: TrainVqganConfig, images: ImageSet) -> None:
    task = made(replace(config, warmup_steps=3), images)
    for step in range(3):
        take(task, step)
    assert task.measures(3) == {"codes_used": 0, "perplexity": 0}
    take(task, 3)
    assert float(task.recent.sum()) == 8 * 16 * 16


def test_dead_codes_come_back_where_latents_are_and_others_stay(config: TrainVqganConfig, images: ImageSet) -> None:
    left, revived = made(config, images), made(replace(config, revive_every=2), images)
    before = table(left)
    for step in range(2):
        take(left, step)
        take(revived, step)
    dead = left.recent == 0
    assert 0 < int(dead.sum()) < 64
    assert torch.equal(table(left)[dead], before[dead]), "without a gradient a code does not move"
    assert torch.equal(table(revived)[~dead], table(left)[~dead]), "what is used is left alone"
    assert float(distances(revived, 1, table(revived)[dead]).max()) < 1e-5
    assert float(distances(left, 1, table(left)[dead]).median()) > 1e-2
    assert len(table(revived)[dead].unique(dim=0)) > 0.9 * int(dead.sum()), "each gets a place of its own"
    assert int(revived.recent.sum()) == 0, "counting begins anew"


def test_revival_waits_for_quantisation(config: TrainVqganConfig, images: ImageSet) -> None:
    plain, revived = (made(replace(config, warmup_steps=3, revive_every=every), images) for every in (0, 2))
    for step in range(3):
        take(plain, step)
        take(revived, step)
    assert torch.equal(table(plain), table(revived))


def test_micro_batches_revive_the_same_codes(config: TrainVqganConfig, images: ImageSet) -> None:
    # Gradients of squared errors vary with rounding errors as little as they do; those of absolute ones jump.
    config = replace(config, revive_every=2, pixel_weight=0.0, mse_weight=1.0)
    whole = made(config, images)
    halves = made(replace(config, train=replace(config.train, micro_batch_size=4)), images)
    for step in range(2):
        take(whole, step)
        take(halves, step)
    torch.testing.assert_close(table(whole), table(halves), rtol=0, atol=1e-4)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_revived_codes_reach_the_master_copies(config: TrainVqganConfig, images: ImageSet, stage: int) -> None:
    config = replace(config, revive_every=2)
    plain = made(config, images)
    zero = made(replace(config, train=replace(config.train, engine=EngineName.deepspeed, zero_stage=stage)), images)
    for step in range(3):
        take(plain, step)
        take(zero, step)
    # Adam moves a code by LR a step at most; a master copy that was not told would put it back by far more.
    assert float((table(plain) - table(zero)).abs().max()) <= 2.1 * LR
    assert float((table(plain) - table(zero)).abs().mean()) < 0.1 * LR


def test_without_adversarial_loss_accumulation_changes_nothing(config: TrainVqganConfig, images: ImageSet) -> None:
    """With it, BatchNorm and the adaptive weight see micro batches. Squared errors forgive differences in rounding."""
    smooth = replace(config, pixel_weight=0.0, mse_weight=1.0)
    found = []
    for micro in (8, 4, 2):
        task = made(replace(smooth, train=replace(config.train, micro_batch_size=micro)), images)
        found.append([{name: float(value) for name, value in take(task, step, 1e-4).items()} for step in range(4)])
    for figures in found[1:]:
        for ours, theirs in zip(figures, found[0], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_training_stopped_between_revivals_ends_as_one_that_was_not(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(chain.stages.train_vqgan, revive_every=3, codebook_every=4)
    chain.run("train_vqgan", "revived-whole", config=config, shards="prepare_shards")
    step = VqganTask.step

    def stopping(self: VqganTask, share: Mapping[str, Tensor], number: int, lr: float) -> object:
        if number == 4:
            STOP.received = 10  # type: ignore[assignment]
        return step(self, share, number, lr)

    monkeypatch.setattr(VqganTask, "step", stopping)
    assert chain.run("train_vqgan", "revived-halves", config=config, shards="prepare_shards").stopped
    monkeypatch.setattr(VqganTask, "step", step)
    STOP.received = None
    assert not chain.again("train_vqgan", "revived-halves", config=config, shards="prepare_shards").stopped
    for file in ("first_stage/diffusion_pytorch_model.safetensors", "discriminator.safetensors", "vqgan.json"):
        assert (chain.out("revived-halves") / file).read_bytes() == (chain.out("revived-whole") / file).read_bytes()
    whole, halves = (uses(chain.root / name / "keep") for name in ("revived-whole", "revived-halves"))
    assert list(whole) == [32, 64] and whole == halves


def uses(keep: Path) -> dict[int, Any]:
    lines = [json.loads(line) for line in (keep / "metrics.jsonl").read_text().splitlines()]
    return {line["samples_seen"]: (line["codes_used"], line["perplexity"]) for line in lines if "perplexity" in line}


def test_values_out_of_range_are_refused(config: TrainVqganConfig) -> None:
    with pytest.raises(UserError, match=r"stages\.train_vqgan\.revive_every=-1 steps is out of range"):
        replace(config, revive_every=-1).check("stages.train_vqgan")
    with pytest.raises(UserError, match=r"stages\.train_vqgan\.perceptual='lpips' is unknown: .* none, lpips_vgg"):
        replace(config, perceptual="lpips").check("stages.train_vqgan")
