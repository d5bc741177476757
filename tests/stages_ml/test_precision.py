"""All trainings compute in the precision of their config, and what they compute stays near float32."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ml_world import Chain

from affect_hpc.config.train import Precision, TrainConfig
from affect_hpc.data.batches import TrainingData
from affect_hpc.data.images import ImageSet, LatentSet, unit_range
from affect_hpc.experts.referee import Trunk
from affect_hpc.models import first_stage
from affect_hpc.models.ldm import LatentNorm
from affect_hpc.stages.train_ldm import LatentSource, LdmTask
from affect_hpc.stages.train_referee import EmotionTask
from affect_hpc.stages.train_vqgan import VqganTask
from affect_hpc.train import comm

ALONE = comm.Ranks()
Losses = dict[str, float]


def in_precision(train: TrainConfig, precision: Precision) -> TrainConfig:
    return replace(train, precision=precision, global_batch_size=2)


def ldm(chain: Chain, images: ImageSet, precision: Precision) -> Losses:
    cfg = replace(chain.stages.train_ldm, train=in_precision(chain.stages.train_ldm.train, precision))
    source = LatentSource(
        LatentSet([chain.out("encode_latents")]), first_stage.load(chain.out("train_vqgan")), torch.device("cpu")
    )
    task = LdmTask(cfg, source, LatentNorm(torch.zeros(3), torch.ones(3)), images, ALONE)
    batch = TrainingData(source.samples, source.samples.labels, cfg.train, 0, 1, Path()).fetch(range(2))
    return {**task.val_loss(), **{name: float(value) for name, value in task.step(batch, 0, 1e-3).items()}}


def referee(chain: Chain, images: ImageSet, precision: Precision) -> Losses:
    train = in_precision(chain.stages.train_referee.emotion, precision)
    torch.manual_seed(0)
    task = EmotionTask(Trunk(chain.stages.train_referee.channels, 8), train, ALONE)
    batch = TrainingData(images, images.shards.labels, train, 0, 1, Path()).fetch(range(2))
    assert task.outputs(unit_range(batch["image"])).dtype == torch.float32
    torch.manual_seed(1)
    return {name: float(value) for name, value in task.step(batch, 0, 1e-3).items()}


def vqgan(chain: Chain, images: ImageSet, precision: Precision) -> Losses:
    cfg = replace(chain.stages.train_vqgan, train=in_precision(chain.stages.train_vqgan.train, precision), disc_start=0)
    data = TrainingData(images, images.shards.labels, cfg.train, 0, 1, Path())
    task = VqganTask(cfg, data, images, ALONE)
    return {name: float(value) for name, value in task.step(data.fetch(range(2)), 0, 1e-3).items()}


@pytest.mark.parametrize(
    ("training", "precision", "tolerance"),
    [
        (ldm, Precision.bf16, 0.02),
        (ldm, Precision.fp16, 0.004),
        (referee, Precision.bf16, 0.02),
        (referee, Precision.fp16, 0.004),
        (vqgan, Precision.bf16, 0.05),  # float16 takes a CPU minutes
    ],
)
def test_losses_are_near_those_of_float32_and_not_the_same(
    chain: Chain, training: Callable[..., Losses], precision: Precision, tolerance: float
) -> None:
    images = ImageSet.open([chain.out("prepare_shards") / "val"])
    wide, narrow = (training(chain, images, one) for one in (Precision.fp32, precision))
    # A ratio of two gradients has the error of both, and gradients more of it than losses.
    ratio = narrow.pop("adv_weight", 0.0), wide.pop("adv_weight", 0.0)
    assert ratio[0] == pytest.approx(ratio[1], rel=3 * tolerance)
    assert narrow == pytest.approx(wide, rel=tolerance)
    assert all(narrow[name] != wide[name] for name in wide)
