"""First stage: VQGAN on aligned crops (thesis section 4.3.2)."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.utils import make_grid

from affect_hpc.config.stages import TrainVqganConfig
from affect_hpc.config.train import Precision
from affect_hpc.core.errors import UserError
from affect_hpc.core.io import write_json
from affect_hpc.core.rundir import Inputs, Outcome, Workplace
from affect_hpc.data.batches import TrainingData
from affect_hpc.data.images import ImageSet, unit_range
from affect_hpc.experts.registry import load_perceptual
from affect_hpc.losses.autoencoding import (
    adaptive_weight,
    center_weights,
    chroma_error,
    colour_difference,
    discriminator_loss,
    generator_loss,
    gradient_error,
    pooled_error,
)
from affect_hpc.models import first_stage
from affect_hpc.models.discriminator import PatchDiscriminator
from affect_hpc.train import comm
from affect_hpc.train.engine import Engine, make_engine, micro_batch, micro_batches
from affect_hpc.train.loop import fit, seed_everything

log = logging.getLogger(__name__)

VAL_BATCH = 50
PICTURE_EVERY = 500


class Autoencoder(nn.Module):
    """The first stage as one forward pass that also gives what the adaptive weight needs."""

    def __init__(self, config: TrainVqganConfig) -> None:
        super().__init__()
        self.model = first_stage.build(config.first_stage)
        self._hidden: Tensor | None = None
        self.model.decoder.conv_out.register_forward_pre_hook(self._keep_hidden)

    def _keep_hidden(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._hidden = inputs[0].detach()

    def forward(self, images: Tensor, quantise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images -> reconstruction, input of the last convolution (detached), codebook loss.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            quantise: scalar; 0 while the encoder warms up.
        """
        latents = first_stage.encode(self.model, images)
        codebook = latents.new_zeros((), dtype=torch.float32)
        if quantise:
            with torch.autocast(latents.device.type, enabled=False):
                # The nearest of thousands of codes in three dimensions is not to be told in bfloat16.
                latents, codebook, _ = self.model.quantize(latents.float())
        fake = self.model.decoder(self.model.post_quant_conv(latents))
        assert self._hidden is not None, "the hook has run"
        return fake, self._hidden, codebook


class VqganTask:
    """Two engines: generator (with codebook) and discriminator."""

    def __init__(self, cfg: TrainVqganConfig, data: TrainingData, images: ImageSet, ranks: comm.Ranks) -> None:
        self.cfg, self.data, self.count, self.ranks = cfg, data, len(images), ranks
        self.device = comm.device_of(ranks)
        seed_everything(cfg.train.seed)
        generator = Autoencoder(cfg).to(self.device)
        discriminator = PatchDiscriminator(cfg.discriminator).to(self.device)
        self.generator = make_engine(generator, cfg.train, ranks)
        self.discriminator = make_engine(discriminator, cfg.train, ranks)
        self.perceptual = None if cfg.perceptual == "none" else load_perceptual(cfg.perceptual, "").distance
        self.weights = center_weights(images.image(0).shape[0], cfg.center_weight, self.device)
        self.micro = micro_batch(cfg.train, ranks)

    @property
    def net(self) -> Autoencoder:
        """The generator without its engine."""
        module = self.generator.module
        assert isinstance(module, Autoencoder)
        return module

    def engines(self) -> Mapping[str, Engine]:
        """The networks with their optimisers."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides the engines."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing beyond the engines."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Arithmetic of the forward passes."""
        on = self.cfg.train.precision is Precision.bf16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)

    def reconstruction_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        """All losses between an image and its reconstruction, weighted."""
        cfg = self.cfg
        loss = cfg.pixel_weight * (self.weights * (fake - real).abs()).mean()
        if cfg.mse_weight:
            loss = loss + cfg.mse_weight * (self.weights * (fake - real) ** 2).mean()
        if cfg.gradient_weight:
            loss = loss + cfg.gradient_weight * gradient_error(fake, real)
        if cfg.pooled_weight:
            loss = loss + cfg.pooled_weight * pooled_error(fake, real)
        if cfg.chroma_weight:
            loss = loss + cfg.chroma_weight * chroma_error(fake, real)
        if self.perceptual is not None:
            loss = loss + cfg.perceptual_weight * self.perceptual(fake, real).mean()
        return loss

    def step(self, batch: Mapping[str, Tensor], step: int, lr: float) -> Mapping[str, Tensor]:
        """One optimiser step."""
        if step == self.cfg.warmup_steps > 0:
            self.fill_codebook(len(batch["image"]))
        figures: dict[str, list[Tensor]] = {}
        for micro in micro_batches(batch, self.micro):
            real = unit_range(micro["image"].to(self.device))
            for name, value in self._micro_step(real, step, lr).items():
                figures.setdefault(name, []).append(value.detach().float())
        return {name: torch.stack(values).mean() for name, values in figures.items()}

    def _micro_step(self, real: Tensor, step: int, lr: float) -> dict[str, Tensor]:
        cfg = self.cfg
        adversarial = cfg.disc_start >= 0 and step >= cfg.disc_start
        with self.autocast():
            fake, hidden, codebook = self.generator.forward(real, torch.tensor(step >= cfg.warmup_steps))
        leaf = fake.detach().float().requires_grad_()
        rec_loss = self.reconstruction_loss(leaf, real)
        (g_rec,) = torch.autograd.grad(rec_loss, leaf)
        gradient, figures = g_rec, {"rec_loss": rec_loss, "codebook_loss": codebook}
        if adversarial:
            # Through the module, not the engine: these gradients are not the discriminator's.
            with self.autocast():
                adv_loss = generator_loss(cfg.gan_loss, self.discriminator.module(leaf))
            (g_adv,) = torch.autograd.grad(adv_loss, leaf)
            last = self.net.model.decoder.conv_out.weight
            weight = cfg.disc_weight * adaptive_weight(hidden.float(), last.detach(), g_rec, g_adv)
            gradient = g_rec + weight * g_adv
            figures |= {"adv_loss": adv_loss, "adv_weight": weight}
        self.generator.backward((fake.float() * gradient).sum() + cfg.codebook_weight * codebook.float())
        self.generator.step(lr)
        if adversarial:
            with self.autocast():
                logits = self.discriminator.forward(torch.cat([real, leaf.detach()]))
            real_logits, fake_logits = logits.float().chunk(2)
            disc_loss = discriminator_loss(cfg.gan_loss, real_logits, fake_logits)
            self.discriminator.backward(disc_loss)
            self.discriminator.step(lr)
            figures["disc_loss"] = disc_loss
        return figures

    @torch.no_grad()
    def fill_codebook(self, batch_size: int) -> None:
        """Replace the codes by encoder outputs of random training faces: all of them are then near to what is used."""
        table = self.net.model.quantize.embedding.weight
        generator = torch.Generator().manual_seed(self.cfg.train.seed + 17)
        pool: list[Tensor] = []
        while sum(len(rows) for rows in pool) < 2 * len(table):
            chosen = torch.randint(self.count, (batch_size,), generator=generator)
            faces = unit_range(self.data.fetch(chosen.tolist())["image"].to(self.device))
            latents = first_stage.encode(self.net.model, faces).float()
            pool.append(latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1]))
        rows = torch.cat(pool)
        order = torch.randperm(len(rows), generator=generator)[: len(table)]
        # Rank 0's choice for all: rounding may differ between machines.
        table.copy_(comm.from_chief(rows[order.to(rows.device)]))
        self.generator.weights_changed()

    @torch.no_grad()
    def pictures(self, step: int) -> Mapping[str, Tensor]:
        """Image grids of this step."""
        if step % PICTURE_EVERY:
            return {}
        real = unit_range(self.data.fetch(range(min(8, self.count)))["image"].to(self.device))
        fake = first_stage.reconstruct(self.net.model, real)
        return {"reconstruction": make_grid((torch.cat([real, fake]).clamp(-1, 1) + 1) / 2, nrow=len(real))}


@torch.no_grad()
def validate(model: Any, images: ImageSet, device: torch.device) -> dict[str, float]:
    """Mean absolute error, PSNR (dB) and CIE76 colour difference of reconstructions, and the use of the codes."""
    error, psnr, colour, count = 0.0, 0.0, 0.0, 0
    used = torch.zeros(model.quantize.embedding.num_embeddings)
    for start in range(0, len(images), VAL_BATCH):
        real = images.batch(range(start, min(start + VAL_BATCH, len(images)))).to(device)
        latents = first_stage.encode(model, real)
        fake = first_stage.decode(model, latents).clamp(-1, 1)
        error += float((fake - real).abs().mean(dim=(1, 2, 3)).sum())
        psnr += float((10 * torch.log10(4 / ((fake - real) ** 2).mean(dim=(1, 2, 3)))).sum())
        colour += float(colour_difference(fake, real).sum())
        count += len(real)
        _, _, (_, _, codes) = model.quantize(latents)
        used += torch.bincount(codes.flatten().cpu(), minlength=len(used))
    share = used / used.sum()
    perplexity = float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))
    codes_used = float((used > 0).sum())
    return {
        "val_l1": error / count,
        "val_psnr": psnr / count,
        "val_colour_difference": colour / count,
        "codes_used": codes_used,
        "perplexity": perplexity,
    }


def run(cfg: TrainVqganConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Train the first stage on the train split; judge its reconstructions on the val split."""
    if cfg.train.zero_stage > 2:
        raise UserError(
            f"stages.train_vqgan.train.zero_stage={cfg.train.zero_stage} is too high: the adaptive weight of the "
            "adversarial loss needs the whole last layer on each rank, so the first stage takes 0, 1 or 2."
        )
    ranks = comm.Ranks.of_environment()
    comm.set_up(ranks, place.keep)
    images = ImageSet.open([folder / "train" for folder in inputs.many("shards")])
    data = TrainingData(images, images.shards.labels, cfg.train, ranks.rank, ranks.world, place.keep)
    task = VqganTask(cfg, data, images, ranks)
    if not fit("train_vqgan", task, data, cfg.train, ranks, place.keep):
        return Outcome(stopped=True)
    model = task.net.model.eval()
    figures = validate(model, ImageSet.open([folder / "val" for folder in inputs.many("shards")]), task.device)
    if ranks.is_chief:
        model.save_pretrained(place.out / "first_stage")
        save_file(task.discriminator.module.state_dict(), place.out / "discriminator.safetensors")
        write_json(place.out / "vqgan.json", {**figures, "perceptual": cfg.perceptual})
    comm.barrier()
    return Outcome(figures)
