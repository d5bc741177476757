"""Class-conditional latent diffusion with label dropout (thesis section 4.3.3)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.utils import make_grid

from affect_hpc.config.edit import Spacing
from affect_hpc.config.stages import DropoutUnit, TrainLdmConfig
from affect_hpc.config.train import Precision
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.batches import TrainingData
from affect_hpc.data.images import LatentSet
from affect_hpc.diffusion import ddim
from affect_hpc.diffusion.objective import eps_error, q_sample
from affect_hpc.diffusion.schedule import alpha_bars
from affect_hpc.models import first_stage
from affect_hpc.models.conditioning import drop_labels
from affect_hpc.models.denoiser import Denoiser, write_scheduler_config
from affect_hpc.models.ldm import LatentNorm, write_description
from affect_hpc.train import comm
from affect_hpc.train.ema import Ema
from affect_hpc.train.engine import Engine, make_engine, micro_batch, micro_batches
from affect_hpc.train.loop import fit, seed_everything

SAMPLE_STEPS = 20
SAMPLES_PER_CLASS = 4
SAMPLE_SEED = 1234
NORM_CHUNK = 1024
"""Latents in memory at once while their mean and deviation are taken."""


class LdmTask:
    """Noise prediction on latents."""

    def __init__(self, cfg: TrainLdmConfig, latents: LatentSet, first_stage_folder: Path, ranks: comm.Ranks) -> None:
        self.cfg, self.shape = cfg, latents.shape
        self.device = comm.device_of(ranks)
        seed_everything(cfg.train.seed)
        channels, size = latents.shape[:2]
        denoiser = Denoiser.build(cfg.unet, cfg.condition, channels, size).to(self.device)
        # Activations keep the layout of the input; channels last is the faster one in bfloat16. The weights stay as
        # they are: DeepSpeed sends them as bytes, which needs the usual layout.
        self.layout = torch.channels_last if cfg.train.precision is Precision.bf16 else torch.contiguous_format
        self.norm = LatentNorm.of(cfg.latent, channels, latents.chunks(NORM_CHUNK))
        self.alpha_bar = alpha_bars(cfg.diffusion)
        self.ema = Ema(denoiser, cfg.ema_decay)
        self.engine = make_engine(denoiser, cfg.train, ranks)
        self.first_stage = first_stage.load(first_stage_folder).to(self.device)
        self.micro = micro_batch(cfg.train, ranks)

    @property
    def denoiser(self) -> Denoiser:
        """The network without its engine."""
        module = self.engine.module
        assert isinstance(module, Denoiser)
        return module

    def engines(self) -> Mapping[str, Engine]:
        """The networks with their optimisers."""
        return {"denoiser": self.engine}

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides the engines."""
        return {"ema": self.ema.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.ema.load(state["ema"])

    def step(self, batch: Mapping[str, Tensor], step: int, lr: float) -> Mapping[str, Tensor]:
        """One optimiser step."""
        losses = []
        for micro in micro_batches(batch, self.micro):
            loss = self._loss(micro["latent"], micro["label"])
            self.engine.backward(loss)
            self.engine.step(lr)
            losses.append(loss.detach())
        with self.engine.gathered():
            self.ema.update(self.denoiser)
        return {"loss": torch.stack(losses).mean()}

    def _loss(self, latents: Tensor, label: Tensor) -> Tensor:
        cfg = self.cfg
        z_0 = self.norm.normalise(latents.to(self.device).float())
        label = label.to(self.device)
        label = drop_labels(label, cfg.condition.null_index, cfg.p_uncond, cfg.dropout_unit is DropoutUnit.sample)
        # Drawn on the CPU: the same numbers on every device.
        t = torch.randint(cfg.diffusion.num_timesteps, (len(z_0),)).to(self.device)
        noise = torch.randn(z_0.shape).to(self.device)
        z_t = q_sample(z_0, t, noise, self.alpha_bar).contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=cfg.train.precision is Precision.bf16):
            predicted = self.engine.forward(z_t, t, label)
        return eps_error(predicted, noise)

    @torch.no_grad()
    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """Faces of every class by the averaged weights, always from the same noise."""
        cfg = self.cfg
        if cfg.sample_every == 0 or step % cfg.sample_every:
            return {}
        labels = torch.arange(cfg.condition.num_classes, device=self.device).repeat_interleave(SAMPLES_PER_CLASS)
        shape = (len(labels), *self.shape)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(SAMPLE_SEED))
        highest = cfg.diffusion.num_timesteps - 1
        path = ddim.Path(ddim.timesteps(Spacing.linspace, SAMPLE_STEPS, highest, highest + 1), self.alpha_bar)
        average: Any = self.ema.average
        z = ddim.decode(noise.to(self.device), labels, path, average)
        faces = first_stage.decode(self.first_stage, self.norm.restore(z)).float().clamp(-1, 1)
        return {"samples": (make_grid(faces, nrow=SAMPLES_PER_CLASS) + 1) / 2}


def run(cfg: TrainLdmConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Train the denoiser on latents of the train split; write averaged and raw weights."""
    ranks = comm.Ranks.of_environment()
    comm.set_up(ranks, place.keep)
    latents = LatentSet(inputs.many("latents"))
    task = LdmTask(cfg, latents, inputs.one("first_stage"), ranks)
    data = TrainingData(latents, latents.labels, cfg.train, ranks.rank, ranks.world, place.keep)
    if not fit("train_ldm", task, data, cfg.train, ranks, place.keep):
        return Outcome(stopped=True)
    averaged, raw = task.ema.average, task.denoiser
    assert isinstance(averaged, Denoiser)
    with task.engine.gathered():
        if not cfg.ema_embedding:
            averaged.embedding.load_state_dict(raw.embedding.state_dict())
        if ranks.is_chief:
            raw.save(place.out / "unet_raw", place.out / "conditioner.safetensors")
    if ranks.is_chief:
        averaged.save(place.out / "unet", place.out / "conditioner.safetensors")
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
    return Outcome({"samples": len(latents)})
