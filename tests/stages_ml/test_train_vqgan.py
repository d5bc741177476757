"""The first stage's two engines: same steps as plain differentiation, in every ZeRO stage, with accumulation."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ml_world import Chain, smoke_stages
from torch import Tensor

from affect_hpc.config.stages import GanLoss, TrainVqganConfig
from affect_hpc.config.train import EngineName
from affect_hpc.core.errors import UserError
from affect_hpc.core.stop import STOP
from affect_hpc.data.batches import TrainingData
from affect_hpc.data.images import ImageSet
from affect_hpc.models import first_stage
from affect_hpc.stages import train_vqgan
from affect_hpc.stages.train_vqgan import VqganTask
from affect_hpc.train import comm

LR = 1e-3


@pytest.fixture
def images(chain: Chain) -> ImageSet:
    return ImageSet.open([chain.out("prepare_shards") / "train"])


@pytest.fixture(scope="module")
def config() -> TrainVqganConfig:
    cfg = smoke_stages().train_vqgan
    cfg.discriminator.base_channels = 8
    return replace(
        cfg,
        train=replace(cfg.train, global_batch_size=8, beta1=0.5, beta2=0.9, weight_decay=0.0),
        disc_start=0,
        warmup_steps=0,
        mse_weight=0.5,
        gradient_weight=0.5,
        chroma_weight=1.0,
        pooled_weight=1.0,
        center_weight=1.0,
    )


def made(config: TrainVqganConfig, images: ImageSet) -> VqganTask:
    data = TrainingData(images, images.shards.labels, config.train, 0, 1, Path())
    return VqganTask(config, data, images, comm.Ranks())


def batch(task: VqganTask, first: int = 0) -> Mapping[str, Tensor]:
    return task.data.fetch(range(first, first + 8))


def reference_step(task: VqganTask, real: Tensor) -> tuple[dict[str, Tensor], float]:
    """Gradients of the generator's full loss and the adaptive weight, by differentiating through everything."""
    cfg, net, judge = task.cfg, task.net, task.discriminator.module
    latents, codebook, _ = net.model.quantize(first_stage.encode(net.model, real))
    fake = net.model.decoder(net.model.post_quant_conv(latents))
    rec = task.reconstruction_loss(fake, real)
    adv = -judge(fake).mean() if cfg.gan_loss is GanLoss.hinge else torch.nn.functional.softplus(-judge(fake)).mean()
    last = net.model.decoder.conv_out.weight
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (rec, adv)]
    weight = (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach() * cfg.disc_weight
    parameters = dict(net.named_parameters())
    total = rec + weight * adv + cfg.codebook_weight * codebook
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    named = {name: g for name, g in zip(parameters, gradients, strict=True) if g is not None}
    return named, float(weight)


@pytest.mark.parametrize("loss", GanLoss)
def test_the_generator_gets_the_gradients_of_its_full_loss(
    config: TrainVqganConfig, images: ImageSet, loss: GanLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = made(replace(config, gan_loss=loss), images)
    expected, weight = reference_step(task, images.batch(range(8)).to(task.device))
    monkeypatch.setattr(task.generator, "step", lambda lr: None)
    figures = task.step(batch(task), 0, LR)
    assert float(figures["adv_weight"]) == pytest.approx(weight, rel=1e-4)
    for name, gradient in expected.items():
        ours = dict(task.net.named_parameters())[name].grad
        assert ours is not None, name
        torch.testing.assert_close(ours, gradient, rtol=2e-3, atol=2e-6 + 1e-4 * float(gradient.abs().max()))


def test_the_discriminator_never_feels_the_generators_step(config: TrainVqganConfig, images: ImageSet) -> None:
    task = made(config, images)
    seen: list[Tensor] = []
    backward = task.discriminator.backward

    def watched(loss: Tensor) -> None:
        assert all(parameter.grad is None for parameter in task.discriminator.module.parameters())
        seen.append(loss)
        backward(loss)

    task.discriminator.backward = watched  # type: ignore[method-assign]
    task.step(batch(task), 0, LR)
    assert len(seen) == 1


def trained(config: TrainVqganConfig, images: ImageSet, steps: int) -> dict[str, Tensor]:
    comm.set_up(comm.Ranks(), Path())
    task = made(config, images)
    for step in range(steps):
        task.step(batch(task, 8 * step), step, LR)
    nets = {"generator": task.net, "discriminator": task.discriminator.module}
    return {f"{name}.{key}": value.clone() for name, net in nets.items() for key, value in net.named_parameters()}


@pytest.mark.parametrize(("stage", "micro"), [(0, 8), (1, 4), (2, 4)])
def test_deepspeed_makes_the_steps_of_torch_alone(
    config: TrainVqganConfig, images: ImageSet, stage: int, micro: int
) -> None:
    """Accumulation is the case where differentiating through the engine goes wrong without a word."""
    # Warm-up and codebook filling are on: weights set from outside must reach the master copies.
    config = replace(config, warmup_steps=1, train=replace(config.train, micro_batch_size=micro))
    plain = trained(config, images, 3)
    train = replace(config.train, engine=EngineName.deepspeed, zero_stage=stage)
    zero = trained(replace(config, train=train), images, 3)
    for name, value in plain.items():
        # Adam divides by the size of the gradient: where that is rounding noise, a step may differ by its whole length.
        difference = (value - zero[name]).detach().abs()
        # The codebook has no gradient while it warms up: torch then leaves it out, DeepSpeed counts a step of zeros.
        assert float(difference.mean()) < (0.2 if "quantize" in name else 0.03) * LR, name
        assert float(difference.max()) <= 6.1 * LR, name


def test_filling_the_codebook_puts_codes_where_latents_are(config: TrainVqganConfig, images: ImageSet) -> None:
    task = made(replace(config, warmup_steps=1), images)
    before = task.net.model.quantize.embedding.weight.clone()
    task.fill_codebook(8)
    codes = task.net.model.quantize.embedding.weight.detach()
    assert not torch.equal(before, codes)
    with torch.no_grad():
        latents = (
            first_stage.encode(task.net.model, images.batch(range(32)).to(task.device))
            .permute(0, 2, 3, 1)
            .reshape(-1, 3)
        )
    distances = torch.cdist(codes, latents, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1).values
    assert float(distances.max()) < 1e-4


def test_a_stopped_training_ends_as_one_that_was_not(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    config = chain.stages.train_vqgan
    chain.run("train_vqgan", "vqgan-whole", shards="prepare_shards")
    step = VqganTask.step

    def stopping(self: VqganTask, share: Mapping[str, Tensor], number: int, lr: float) -> object:
        if number == 3:
            STOP.received = 10  # type: ignore[assignment]
        return step(self, share, number, lr)

    monkeypatch.setattr(VqganTask, "step", stopping)
    assert chain.run("train_vqgan", "vqgan-halves", shards="prepare_shards").stopped
    monkeypatch.setattr(VqganTask, "step", step)
    STOP.received = None
    chain.out("vqgan-halves").rmdir()
    keep = chain.root / "vqgan-halves" / "keep"
    keep.rename(chain.root / "kept")
    (chain.root / "vqgan-halves").rmdir()
    folder = chain.root / "vqgan-again"
    folder.mkdir()
    (chain.root / "kept").rename(folder / "keep")
    outcome = chain.run("train_vqgan", "vqgan-again", shards="prepare_shards", config=config)
    assert not outcome.stopped
    for file in ("first_stage/diffusion_pytorch_model.safetensors", "discriminator.safetensors", "vqgan.json"):
        assert (chain.out("vqgan-again") / file).read_bytes() == (chain.out("vqgan-whole") / file).read_bytes(), file


def test_stage_three_is_refused(config: TrainVqganConfig) -> None:
    with pytest.raises(UserError, match="zero_stage=3"):
        train_vqgan.run(replace(config, train=replace(config.train, zero_stage=3)), None, None)  # type: ignore[arg-type]
