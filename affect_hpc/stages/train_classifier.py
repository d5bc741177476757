"""A classifier of noisy latents, for guidance (thesis section 3.3.1; Dhariwal and Nichol 2021, section 4)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from affect_hpc.config.drawing import TrainClassifierConfig
from affect_hpc.config.sizes import THERE_AND_BACK, classifier_size
from affect_hpc.core.blocks import blocks
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.batches import TrainingData
from affect_hpc.data.images import ImageSet, LatentSet
from affect_hpc.diffusion.objective import q_sample
from affect_hpc.diffusion.schedule import alpha_bars
from affect_hpc.losses.denoising import VALIDATION_BATCH, VALIDATION_SEED, draws
from affect_hpc.models import first_stage
from affect_hpc.models.classifier import NoisyLatentClassifier
from affect_hpc.models.ldm import Ldm
from affect_hpc.stages.train_ldm import LatentSource
from affect_hpc.train import comm
from affect_hpc.train.ema import Ema
from affect_hpc.train.engine import Engine, make_engine, micro_batch, micro_batches
from affect_hpc.train.loop import fit, seed_everything
from affect_hpc.train.precision import autocast

BANDS = 4
"""Of noise levels, by which the accuracy is told: a classifier is to know little where there is little to see."""


class ClassifierTask:
    """Which emotion a latent had before it was noised."""

    def __init__(self, cfg: TrainClassifierConfig, source: LatentSource, ldm: Ldm, ranks: comm.Ranks) -> None:
        self.cfg, self.source, self.ldm, self.ranks = cfg, source, ldm, ranks
        self.device, self.precision = source.device, cfg.train.precision
        self.alpha_bar = alpha_bars(ldm.diffusion)
        seed_everything(cfg.train.seed)
        self.network = NoisyLatentClassifier(
            source.shape[0], cfg.channels, cfg.head_channels, ldm.condition.num_classes
        ).to(self.device)
        self.engine = make_engine(self.network, cfg.train, ranks)
        self.micro = micro_batch(cfg.train, ranks)

    def engines(self) -> Mapping[str, Engine]:
        """The network with its optimiser."""
        return {"classifier": self.engine}

    def flops_per_sample(self) -> float:
        """There and back through the network."""
        channels, side = self.source.shape[:2]
        size = classifier_size(self.cfg.channels, channels, self.ldm.condition.num_classes, side)
        return 2.0 * THERE_AND_BACK * size.macs

    def averages(self) -> Mapping[str, Ema]:
        """None."""
        return {}

    def state(self) -> dict[str, Any]:
        """Nothing besides: what is random is a function of the step."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing besides."""

    def measures(self, step: int) -> Mapping[str, float]:
        """No slow figures."""
        return {}

    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """None."""
        return {}

    def step(self, batch: Mapping[str, Tensor], step: int, lr: float) -> Mapping[str, Tensor]:
        """One optimiser step."""
        count, levels = len(batch["label"]), self.ldm.diffusion.num_timesteps
        first = step * self.cfg.train.global_batch_size + self.ranks.rank * count
        # Drawn by the sample's own number: no division into ranks and micro batches changes it.
        drawn = draws(self.cfg.train.seed, range(first, first + count), levels, self.source.shape)
        losses, hits = [], []
        for micro in micro_batches({**batch, "t": drawn.t, "noise": drawn.noise}, self.micro):
            t, noise, label = (micro[name].to(self.device) for name in ("t", "noise", "label"))
            z_0 = self.ldm.norm.normalise(self.source.latents(micro).float())
            with autocast(self.precision, self.device):
                logits = self.engine.forward(q_sample(z_0, t, noise, self.alpha_bar), t).float()
            loss = F.cross_entropy(logits, label)
            self.engine.backward(loss)
            self.engine.step(lr)
            losses.append(loss.detach())
            hits.append((logits.detach().argmax(1) == label).float().mean())
        return {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(hits).mean()}

    @torch.no_grad()
    def val_accuracy(self, faces: ImageSet) -> dict[str, float]:
        """Share of right classes on all faces of the val split, by band of noise levels, and chance beside it."""
        if not len(faces):
            return {}
        latents, labels = zip(*self.source.pass_over(faces, np.arange(len(faces))), strict=True)
        z_0, label = self.ldm.norm.normalise(torch.cat(latents).float()), torch.cat(labels)
        levels = self.ldm.diffusion.num_timesteps
        drawn = draws(VALIDATION_SEED, range(len(z_0)), levels, tuple(z_0.shape[1:]))
        self.network.eval()
        figures = {"val_chance": float(label.bincount().max() / len(label))}
        for band in range(BANDS):
            low, high = (levels * edge // BANDS for edge in (band, band + 1))
            # The same faces and noise at each level: the bands differ in their noise alone.
            t = (low + drawn.t * (high - low) // levels).to(self.device)
            z_t = q_sample(z_0, t, drawn.noise.to(self.device), self.alpha_bar)
            right = 0
            for block in blocks(len(z_t), VALIDATION_BATCH):
                some = slice(block.start, block.stop)
                right += int((self.network(z_t[some], t[some]).argmax(1) == label[some]).sum())
            figures[f"val_accuracy_t{low}_{high - 1}"] = right / len(z_t)
        return figures


def run(cfg: TrainClassifierConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Train on latents of the train split, noised as the diffusion model's are.

    Reads: latents, faces (val split), first_stage, ldm (its normalisation and noise levels). Writes: the classifier.
    """
    cfg.check("stages.train_classifier")
    ranks = comm.Ranks.of_environment()
    comm.set_up(ranks, place.keep)
    device = comm.device_of(ranks)
    samples = LatentSet(inputs.many("latents"))
    source = LatentSource(samples, first_stage.load(inputs.one("first_stage")).to(device), device)
    task = ClassifierTask(cfg, source, Ldm.load(inputs.one("ldm"), torch.device("cpu")), ranks)
    data = TrainingData(samples, samples.labels, cfg.train, ranks.rank, ranks.world, place.keep)
    if not fit("train_classifier", task, data, cfg.train, ranks, place.keep):
        return Outcome(stopped=True)
    figures: dict[str, float] = {}
    with task.engine.gathered():
        if ranks.is_chief:
            figures = task.val_accuracy(ImageSet.open([folder / "val" for folder in inputs.many("faces")]))
            task.network.save(place.out)
    comm.barrier()
    return Outcome({"samples": len(samples), **figures})
