"""The first stage's GAN on two engines against the textbook: one graph, torch's own optimisers, 50 steps.

The two round differently, and only what is smooth forgives that: pixels are compared by squares here, codes lie apart,
the discriminator has SiLU. Where gradients jump (absolute errors, LeakyReLU, a latent between two codes) one flip of a
sign would part the two after some steps. The gradients of all losses are tested for single steps (test_train_vqgan.py).
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ml_world import Chain, smoke_stages
from torch import Tensor, nn

from affect_hpc.config.stages import GanLoss, TrainVqganConfig
from affect_hpc.config.train import EngineName
from affect_hpc.data.batches import TrainingData
from affect_hpc.data.codec import UInt8Image
from affect_hpc.data.images import ImageSet, unit_range
from affect_hpc.models import first_stage
from affect_hpc.stages.train_vqgan import VqganTask
from affect_hpc.train import comm

STEPS, LR, BATCH = 50, 3.6e-5, 4


@pytest.fixture(scope="module")
def images(chain: Chain) -> ImageSet:
    comm.set_up(comm.Ranks(), Path())
    return ImageSet.open([chain.out("prepare_shards") / "train"])


class Thumbnails(ImageSet):
    """Every fourth pixel, to be quick."""

    def __init__(self, images: ImageSet) -> None:
        super().__init__(images.shards)

    def image(self, index: int) -> UInt8Image:
        return super().image(index)[::4, ::4]


def config_of(loss: GanLoss, **train: object) -> TrainVqganConfig:
    """Adversarial from the first step; the reconstruction loss is plain enough to be written again below."""
    cfg = smoke_stages().train_vqgan
    cfg.first_stage.codebook_size, cfg.discriminator.base_channels, cfg.discriminator.num_layers = 8, 4, 2
    train_config = replace(cfg.train, global_batch_size=BATCH, beta1=0.5, beta2=0.9, weight_decay=0.01)
    return replace(
        cfg,
        train=replace(train_config, **train),
        disc_start=0,
        warmup_steps=0,
        pixel_weight=0.0,
        mse_weight=1.0,
        gan_loss=loss,
    )


def made(config: TrainVqganConfig, images: ImageSet) -> VqganTask:
    small = Thumbnails(images)
    data = TrainingData(small, images.shards.labels, config.train, 0, 1, Path())
    task = VqganTask(config, data, small, comm.Ranks())
    with torch.no_grad():
        table = task.net.model.quantize.embedding.weight
        table.copy_(torch.randn(table.shape, generator=torch.Generator().manual_seed(0)))
    task.generator.weights_changed()
    layers = task.discriminator.module.layers
    for place, layer in enumerate(layers):
        if isinstance(layer, nn.LeakyReLU):
            layers[place] = nn.SiLU()
    return task


def batch(task: VqganTask, step: int) -> Mapping[str, Tensor]:
    return task.data.fetch(np.arange(BATCH * step, BATCH * (step + 1)) % task.count)


def figures_of(task: VqganTask, steps: int = STEPS) -> list[dict[str, float]]:
    return [
        {name: float(value) for name, value in task.step(batch(task, step), step, LR).items()} for step in range(steps)
    ]


def textbook(task: VqganTask) -> list[dict[str, float]]:
    """The same training (Esser et al. 2021, Eq. 4-7) by nothing but autograd through the whole graph."""
    cfg = task.cfg
    net, judge = copy.deepcopy(task.net.model), copy.deepcopy(task.discriminator.module)
    optimisers = [
        torch.optim.AdamW(one.parameters(), lr=LR, betas=(cfg.train.beta1, cfg.train.beta2), weight_decay=0.01)
        for one in (net, judge)
    ]
    last = net.decoder.conv_out.weight
    found = []
    for step in range(STEPS):
        real = unit_range(batch(task, step)["image"].to(task.device))
        quantised, codebook, _ = net.quantize(first_stage.encode(net, real))
        fake = net.decoder(net.post_quant_conv(quantised))
        rec = F.mse_loss(fake, real)
        judged = judge(fake)
        adv = -judged.mean() if cfg.gan_loss is GanLoss.hinge else -F.logsigmoid(judged).mean()
        norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (rec, adv)]
        weight = cfg.disc_weight * (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach()
        optimisers[0].zero_grad()
        (rec + weight * adv + codebook).backward()
        optimisers[0].step()
        # Real and generated images share one BatchNorm.
        real_logits, fake_logits = judge(torch.cat([real, fake.detach()])).chunk(2)
        disc = discriminator_error(cfg.gan_loss, real_logits, fake_logits)
        optimisers[1].zero_grad()
        disc.backward()
        optimisers[1].step()
        values = {"rec_loss": rec, "codebook_loss": codebook, "adv_loss": adv, "adv_weight": weight, "disc_loss": disc}
        found.append({name: float(value) for name, value in values.items()})
    return found


def discriminator_error(loss: GanLoss, real: Tensor, fake: Tensor) -> Tensor:
    if loss is GanLoss.hinge:
        return ((1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean()) / 2
    everyone = torch.cat([real, fake])
    truth = torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
    return nn.functional.binary_cross_entropy_with_logits(everyone, truth)


@pytest.fixture(scope="module")
def expected(images: ImageSet) -> dict[GanLoss, list[dict[str, float]]]:
    return {loss: textbook(made(config_of(loss, engine=EngineName.plain), images)) for loss in GanLoss}


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("loss", GanLoss)
def test_two_engines_train_as_the_textbook_does(
    images: ImageSet, expected: dict[GanLoss, list[dict[str, float]]], loss: GanLoss, stage: int
) -> None:
    task = made(config_of(loss, engine=EngineName.deepspeed, zero_stage=stage), images)
    for step, (ours, theirs) in enumerate(zip(figures_of(task), expected[loss], strict=True)):
        for name, value in theirs.items():
            tolerance = 1e-3 if name == "adv_weight" else 1e-4
            assert ours[name] == pytest.approx(value, rel=tolerance, abs=1e-5), (step, name)


def test_the_textbook_gets_somewhere(expected: dict[GanLoss, list[dict[str, float]]]) -> None:
    for figures in expected.values():
        assert figures[-1]["rec_loss"] < 0.85 * figures[0]["rec_loss"]
