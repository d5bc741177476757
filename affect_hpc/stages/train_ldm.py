"""Class-conditional latent diffusion with label dropout (thesis section 4.3.3)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import make_grid

from affect_hpc.config.edit import Spacing, timesteps
from affect_hpc.config.model import LatentScale
from affect_hpc.config.sizes import THERE_AND_BACK, unet_size
from affect_hpc.config.stages import CompileBackend, DropoutUnit, LatentsFrom, TrainLdmConfig
from affect_hpc.config.train import Precision
from affect_hpc.core.blocks import blocks
from affect_hpc.core.io import read_json_if_there, write_json
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.batches import TrainingData
from affect_hpc.data.images import FaceViews, ImageSet, LatentSet, unit_range
from affect_hpc.data.loader import Batch, Reader, Samples
from affect_hpc.data.permutation import Int64
from affect_hpc.diffusion import ddim
from affect_hpc.diffusion.objective import eps_error, q_sample
from affect_hpc.diffusion.schedule import alpha_bars
from affect_hpc.losses.denoising import VALIDATION_SEED, Validation, draws
from affect_hpc.models import first_stage
from affect_hpc.models.conditioning import drop_labels
from affect_hpc.models.denoiser import Denoiser, write_scheduler_config
from affect_hpc.models.ldm import LatentNorm, write_description
from affect_hpc.train import comm
from affect_hpc.train.ema import Ema
from affect_hpc.train.engine import Engine, make_engine, micro_batch, micro_batches
from affect_hpc.train.loop import fit, seed_everything
from affect_hpc.train.precision import autocast

SAMPLE_STEPS = 20
SAMPLES_PER_CLASS = 4
SAMPLE_SEED = 1234
ENCODE_BATCH = 32
"""Faces that are encoded at once outside of training steps."""


class LatentSource:
    """Latents of faces or of shards of latents, and the frozen first stage they belong to.

    Both give the same latents: what is encoded here is rounded to float16 as the shards are.

    Args:
        samples: what is trained on.
        model: the first stage, on the device of this rank.
    """

    def __init__(self, samples: FaceViews | LatentSet, model: Any, device: torch.device) -> None:
        self.samples, self.model, self.device = samples, model, device
        self.shape = tuple(next(self.pass_over(samples, np.zeros(1, np.int64)))[0].shape[1:])
        """(C, h, w)"""

    def latents(self, batch: Batch) -> Tensor:
        """The latents of a batch of faces or of stored latents, (B, C, h, w) float16."""
        if "latent" in batch:
            return batch["latent"].to(self.device)
        return first_stage.encode_stored(self.model, unit_range(batch["image"].to(self.device)))

    def pass_over(self, samples: Samples, indices: Int64) -> Iterator[tuple[Tensor, Tensor]]:
        """Latents and labels of these samples in order, up to ENCODE_BATCH at a time; damaged ones are replaced."""
        reader = Reader(samples)
        for block in blocks(len(indices), ENCODE_BATCH):
            batch, _ = reader.read(indices[block.start : block.stop])
            yield self.latents(batch), batch["label"].to(self.device)

    def norm(self, cfg: TrainLdmConfig, ranks: comm.Ranks, keep: Path) -> LatentNorm:
        """Their normalisation, by one pass over the train split that the ranks share; ``keep`` has it from then on."""
        file, channels = keep / "latent_norm.json", self.shape[0]
        if cfg.latent.scale is LatentScale.fixed:
            return LatentNorm.of(cfg.latent, channels, [])
        known = read_json_if_there(file)
        if known is not None:
            return LatentNorm(torch.tensor(known["mean"]), torch.tensor(known["std"]))
        share = np.arange(len(self.samples), dtype=np.int64)[ranks.rank :: ranks.world]

        def over_ranks(sums: Tensor) -> Tensor:
            return (comm.mean_over_ranks(sums.to(self.device)) * ranks.world).cpu()

        latents = (latents for latents, _ in self.pass_over(self.samples, share))
        norm = LatentNorm.of(cfg.latent, channels, latents, over_ranks)
        if ranks.is_chief:
            write_json(file, {"mean": norm.mean.tolist(), "std": norm.std.tolist()})
        return norm

    def validation(self, faces: ImageSet, count: int, norm: LatentNorm, alpha_bar: Tensor) -> Validation | None:
        """The fixed validation set: ``count`` random faces of the val split, or all there are; None for no faces."""
        chosen = np.random.default_rng(VALIDATION_SEED).permutation(len(faces))[:count]
        if not len(chosen):
            return None
        latents, labels = zip(*self.pass_over(faces, chosen), strict=True)
        return Validation(norm.normalise(torch.cat(latents).float()), torch.cat(labels), alpha_bar)


class LdmTask:
    """Noise prediction on latents.

    Validation and sample grids use the averaged U-Net, with the label embedding as it is unless ``ema_embedding``.
    """

    def __init__(
        self, cfg: TrainLdmConfig, source: LatentSource, norm: LatentNorm, faces: ImageSet, ranks: comm.Ranks
    ) -> None:
        self.cfg, self.source, self.norm, self.ranks = cfg, source, norm, ranks
        self.device = source.device
        seed_everything(cfg.train.seed)
        channels, size = source.shape[:2]
        denoiser = Denoiser.build(cfg.unet, cfg.condition, channels, size).to(self.device)
        # Activations keep the layout of the input; channels last is the faster one in half precision. The weights stay
        # as they are: DeepSpeed sends them as bytes, which needs the usual layout.
        half = cfg.train.precision is not Precision.fp32
        self.layout = torch.channels_last if half else torch.contiguous_format
        self.alpha_bar = alpha_bars(cfg.diffusion)
        self.ema = Ema(denoiser, cfg.ema_decay)
        if cfg.gradient_checkpointing:
            denoiser.checkpoint_activations()
        if cfg.compile is not CompileBackend.none:
            denoiser.compile_unet(cfg.compile.name)
        self.engine = make_engine(denoiser, cfg.train, ranks)
        self.micro = micro_batch(cfg.train, ranks)
        wanted = cfg.validation_samples if ranks.is_chief else 0
        self.validation = source.validation(faces, wanted, norm, self.alpha_bar)

    @property
    def denoiser(self) -> Denoiser:
        """The network without its engine."""
        module = self.engine.module
        assert isinstance(module, Denoiser)
        return module

    @property
    def averaged(self) -> Denoiser:
        """The network that is kept: averaged weights, whole on every rank."""
        average = self.ema.average
        assert isinstance(average, Denoiser)
        return average

    def engines(self) -> Mapping[str, Engine]:
        """The networks with their optimisers."""
        return {"denoiser": self.engine}

    def flops_per_sample(self) -> float:
        """There and back through the U-Net; encoding, where it is done in each step, is left out."""
        channels, side = self.source.shape[:2]
        return 2.0 * THERE_AND_BACK * unet_size(self.cfg.unet, self.cfg.condition, channels, side).macs

    def averages(self) -> Mapping[str, Ema]:
        """The averaged weights."""
        return {"denoiser": self.ema}

    def state(self) -> dict[str, Any]:
        """Nothing besides: what is random is a function of the step."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing besides."""

    def step(self, batch: Mapping[str, Tensor], step: int, lr: float) -> Mapping[str, Tensor]:
        """One optimiser step."""
        losses = []
        # Drawn for the whole share: micro batches do not change the training.
        for micro in micro_batches({**batch, **self.drawn(batch["label"], step)}, self.micro):
            loss = self._loss(micro)
            self.engine.backward(loss)
            self.engine.step(lr)
            losses.append(loss.detach())
        with self.engine.gathered():
            self.ema.update(self.denoiser)
            if not self.cfg.ema_embedding:
                self.averaged.embedding.load_state_dict(self.denoiser.embedding.state_dict())
        return {"loss": torch.stack(losses).mean()}

    def drawn(self, label: Tensor, step: int) -> dict[str, Tensor]:
        """Levels ``t``, ``noise`` and labels (some dropped) of this rank's share of a global batch, on the CPU."""
        cfg, count = self.cfg, len(label)
        begin = step * cfg.train.global_batch_size
        first = begin + self.ranks.rank * count
        seed, levels = cfg.train.seed, cfg.diffusion.num_timesteps
        mine = draws(seed, range(first, first + count), levels, self.source.shape)
        chance = mine.chance
        if cfg.dropout_unit is DropoutUnit.batch:
            # The first sample of the global batch decides for all.
            chance = draws(seed, [begin], levels, self.source.shape).chance
        label = drop_labels(label, cfg.condition.null_index, cfg.p_uncond, chance)
        return {"t": mine.t, "noise": mine.noise, "label": label}

    def _loss(self, micro: Mapping[str, Tensor]) -> Tensor:
        z_0 = self.norm.normalise(self.source.latents(micro).float())
        t, noise, label = (micro[name].to(self.device) for name in ("t", "noise", "label"))
        z_t = q_sample(z_0, t, noise, self.alpha_bar).contiguous(memory_format=self.layout)
        with autocast(self.cfg.train.precision, self.device):
            predicted = self.engine.forward(z_t, t, label)
        return eps_error(predicted, noise)

    def val_loss(self) -> dict[str, float]:
        """``val_loss``: the loss of the averaged network on the validation set; nothing on ranks that hold none."""
        if self.validation is None:
            return {}
        with autocast(self.cfg.train.precision, self.device):
            return {"val_loss": self.validation.loss(self.averaged)}

    def measures(self, step: int) -> Mapping[str, float]:
        """The validation loss, now and then and after the last step."""
        every, train = self.cfg.validate_every, self.cfg.train
        last = step * train.global_batch_size >= train.samples_total
        return self.val_loss() if last or (every and step % every == 0) else {}

    @torch.no_grad()
    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """Faces of every class by the averaged weights, always from the same noise."""
        cfg = self.cfg
        if cfg.sample_every == 0 or step % cfg.sample_every:
            return {}
        labels = torch.arange(cfg.condition.num_classes, device=self.device).repeat_interleave(SAMPLES_PER_CLASS)
        shape = (len(labels), *self.source.shape)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(SAMPLE_SEED))
        highest = cfg.diffusion.num_timesteps - 1
        path = ddim.Path(timesteps(Spacing.linspace, SAMPLE_STEPS, highest, highest + 1), self.alpha_bar)
        z = ddim.decode(noise.to(self.device), labels, path, self.averaged)
        faces = first_stage.decode(self.source.model, self.norm.restore(z)).float().clamp(-1, 1)
        return {"samples": (make_grid(faces, nrow=SAMPLES_PER_CLASS) + 1) / 2}


def run(cfg: TrainLdmConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Train the denoiser on latents of the train split; write averaged and raw weights."""
    cfg.check("stages.train_ldm")
    ranks = comm.Ranks.of_environment()
    comm.set_up(ranks, place.keep)
    samples: FaceViews | LatentSet
    if cfg.latents_from is LatentsFrom.images:
        samples = FaceViews(ImageSet.open([folder / "train" for folder in inputs.many("faces")]), cfg.flip)
    else:
        samples = LatentSet(inputs.many("latents"))
    device = comm.device_of(ranks)
    source = LatentSource(samples, first_stage.load(inputs.one("first_stage")).to(device), device)
    val = ImageSet.open([folder / "val" for folder in inputs.many("faces")])
    task = LdmTask(cfg, source, source.norm(cfg, ranks, place.keep), val, ranks)
    data = TrainingData(samples, samples.labels, cfg.train, ranks.rank, ranks.world, place.keep)
    if not fit("train_ldm", task, data, cfg.train, ranks, place.keep):
        return Outcome(stopped=True)
    with task.engine.gathered():
        if ranks.is_chief:
            task.denoiser.save(place.out / "unet_raw", place.out / "conditioner.safetensors")
    if ranks.is_chief:
        task.averaged.save(place.out / "unet", place.out / "conditioner.safetensors")
        write_description(place.out, cfg.diffusion, cfg.condition, task.norm)
        settings = {
            "num_train_timesteps": cfg.diffusion.num_timesteps,
            "beta_schedule": cfg.diffusion.beta_schedule,
            "beta_start": cfg.diffusion.beta_start,
            "beta_end": cfg.diffusion.beta_end,
            "prediction_type": "epsilon",
        }
        write_scheduler_config(place.out / "scheduler", settings)
    comm.barrier()
    return Outcome({"samples": len(samples), **task.val_loss()})
