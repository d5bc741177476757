"""First stage: VQGAN on aligned crops (thesis section 4.3.2)."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.utils import make_grid

from affect_hpc.config.sizes import THERE_AND_BACK, decoder_size, encoder_size
from affect_hpc.config.stages import TrainVqganConfig
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
from affect_hpc.losses.codebook import code_counts, codebook_use
from affect_hpc.models import first_stage
from affect_hpc.models.discriminator import PatchDiscriminator
from affect_hpc.train import comm
from affect_hpc.train.ema import Ema
from affect_hpc.train.engine import Engine, make_engine, micro_batch, micro_batches
from affect_hpc.train.loop import fit, seed_everything
from affect_hpc.train.precision import autocast

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

    def forward(self, images: Tensor, quantise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images -> reconstruction, input of the last convolution (detached), codebook loss, codes.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            quantise: scalar; 0 while the encoder warms up: there are no codes then.
        """
        latents = first_stage.encode(self.model, images)
        codebook, codes = latents.new_zeros((), dtype=torch.float32), latents.new_zeros(0, dtype=torch.int64)
        if quantise:
            with torch.autocast(latents.device.type, enabled=False):
                # The nearest of thousands of codes in three dimensions is not to be told in half precision.
                latents, codebook, (_, _, codes) = self.model.quantize(latents.float())
        fake = self.model.decoder(self.model.post_quant_conv(latents))
        assert self._hidden is not None, "the hook has run"
        return fake, self._hidden, codebook, codes


class VqganTask:
    """Two engines: generator (with codebook) and discriminator.

    The counts of codes are sums over all ranks, so that a resumed run needs those of no other rank.
    """

    def __init__(self, cfg: TrainVqganConfig, data: TrainingData, images: ImageSet, ranks: comm.Ranks) -> None:
        self.cfg, self.data, self.count, self.ranks = cfg, data, len(images), ranks
        self.device = comm.device_of(ranks)
        seed_everything(cfg.train.seed)
        generator = Autoencoder(cfg).to(self.device)
        discriminator = PatchDiscriminator(cfg.discriminator).to(self.device)
        self.generator = make_engine(generator, cfg.train, ranks)
        self.discriminator = make_engine(discriminator, cfg.train, ranks)
        self.perceptual = None
        if cfg.perceptual != "none":
            network: Any = load_perceptual(cfg.perceptual, "")
            self.perceptual = network.to(self.device).distance
        self.weights = center_weights(images.image(0).shape[0], cfg.center_weight, self.device)
        self.micro = micro_batch(cfg.train, ranks)
        self.size = cfg.first_stage.codebook_size
        self.logged = self.recent = code_counts(torch.zeros(0, dtype=torch.int64, device=self.device), self.size)

    @property
    def net(self) -> Autoencoder:
        """The generator without its engine."""
        module = self.generator.module
        assert isinstance(module, Autoencoder)
        return module

    def engines(self) -> Mapping[str, Engine]:
        """The networks with their optimisers."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def flops_per_sample(self) -> float:
        """There and back through the autoencoder; the losses, which are not always at work, are left out."""
        config, side = self.cfg.first_stage, self.weights.shape[-1]
        return 2.0 * THERE_AND_BACK * (encoder_size(config, side) + decoder_size(config, side)).macs

    def averages(self) -> Mapping[str, Ema]:
        """None (thesis)."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides the engines."""
        return {"logged": self.logged.cpu(), "recent": self.recent.cpu()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.logged, self.recent = (state[name].to(self.device) for name in ("logged", "recent"))

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
        used: list[Tensor] = []
        for micro in micro_batches(batch, self.micro):
            real = unit_range(micro["image"].to(self.device))
            found, codes = self._micro_step(real, step, lr)
            used.append(codes)
            for name, value in found.items():
                figures.setdefault(name, []).append(value.detach().float())
        self._count(torch.cat(used))
        revive = self.cfg.revive_every
        if revive and (step + 1) % revive == 0 and step >= self.cfg.warmup_steps:
            self.revive_codes(batch, step)
        return {name: torch.stack(values).mean() for name, values in figures.items()}

    def _count(self, codes: Tensor) -> None:
        if self.cfg.revive_every or self.cfg.codebook_every:
            mean = comm.mean_over_ranks(code_counts(codes, self.size).double())
            counts = (mean * self.ranks.world).round().long()
            self.logged, self.recent = self.logged + counts, self.recent + counts

    def measures(self, step: int) -> Mapping[str, float]:
        """Use of the codebook since the figures before: ``codes_used`` and ``perplexity``, over all ranks."""
        every = self.cfg.codebook_every
        if not every or step % every:
            return {}
        figures = codebook_use(self.logged)
        self.logged = torch.zeros_like(self.logged)
        return figures

    def _micro_step(self, real: Tensor, step: int, lr: float) -> tuple[dict[str, Tensor], Tensor]:
        cfg = self.cfg
        adversarial = cfg.disc_start >= 0 and step >= cfg.disc_start
        with autocast(cfg.train.precision, self.device):
            fake, hidden, codebook, codes = self.generator.forward(real, torch.tensor(step >= cfg.warmup_steps))
        leaf = fake.detach().float().requires_grad_()
        rec_loss = self.reconstruction_loss(leaf, real)
        (g_rec,) = torch.autograd.grad(rec_loss, leaf)
        gradient, figures = g_rec, {"rec_loss": rec_loss, "codebook_loss": codebook}
        if adversarial:
            # Through the module, not the engine: these gradients are not the discriminator's.
            with autocast(cfg.train.precision, self.device):
                judged = self.discriminator.module(leaf)
                adv_loss = generator_loss(cfg.gan_loss, judged)
            # A mean over patches has gradients that float16 may lose on their way; a power of two costs no rounding.
            scale = 2.0 ** int(math.log2(judged.numel()))
            (g_adv,) = torch.autograd.grad(adv_loss * scale, leaf)
            g_adv = g_adv / scale
            last = self.net.model.decoder.conv_out.weight
            weight = cfg.disc_weight * adaptive_weight(hidden.float(), last.detach(), g_rec, g_adv)
            gradient = g_rec + weight * g_adv
            figures |= {"adv_loss": adv_loss, "adv_weight": weight}
        self.generator.backward((fake.float() * gradient).sum() + cfg.codebook_weight * codebook.float())
        self.generator.step(lr)
        if adversarial:
            with autocast(cfg.train.precision, self.device):
                logits = self.discriminator.forward(torch.cat([real, leaf.detach()]))
            real_logits, fake_logits = logits.float().chunk(2)
            disc_loss = discriminator_loss(cfg.gan_loss, real_logits, fake_logits)
            self.discriminator.backward(disc_loss)
            self.discriminator.step(lr)
            figures["disc_loss"] = disc_loss
        return figures, codes

    @torch.no_grad()
    def fill_codebook(self, batch_size: int) -> None:
        """Replace the codes by encoder outputs of random training faces: all of them are then near to what is used."""
        table = self.net.model.quantize.embedding.weight
        generator = torch.Generator().manual_seed(self.cfg.train.seed + 17)
        pool: list[Tensor] = []
        while sum(len(rows) for rows in pool) < 2 * len(table):
            chosen = torch.randint(self.count, (batch_size,), generator=generator)
            pool.append(self._vectors(self.data.fetch(chosen.tolist())))
        rows = torch.cat(pool)
        order = torch.randperm(len(rows), generator=generator)[: len(table)]
        # Rank 0's choice for all: rounding may differ between machines.
        table.copy_(comm.from_chief(rows[order.to(rows.device)]))
        self.generator.weights_changed()

    @torch.no_grad()
    def revive_codes(self, batch: Mapping[str, Tensor], step: int) -> None:
        """Replace codes that nothing used since the last time by random encoder outputs of this batch.

        A code that is never the nearest gets no gradient and stays where it is; restarted after Dhariwal et al. 2020,
        section 3.1. The moments that the optimiser keeps of such a code have decayed by then.
        """
        table = self.net.model.quantize.embedding.weight
        rows = torch.cat([self._vectors(micro) for micro in micro_batches(batch, self.micro)])
        generator = torch.Generator().manual_seed(self.cfg.train.seed * 1_000_003 + step)
        chosen = torch.randint(len(rows), (len(table),), generator=generator)
        # Rank 0's faces for all.
        fresh = comm.from_chief(rows[chosen.to(rows.device)])
        table.copy_(torch.where(self.recent[:, None] > 0, table, fresh))
        self.recent = torch.zeros_like(self.recent)
        self.generator.weights_changed()

    def _vectors(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Encoder outputs of a batch, one row of embed_dim for each place: (B h w, embed_dim) float32."""
        latents = first_stage.encode(self.net.model, unit_range(batch["image"].to(self.device))).float()
        return latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])

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
    used = torch.zeros(model.quantize.embedding.num_embeddings, dtype=torch.int64)
    for start in range(0, len(images), VAL_BATCH):
        real = images.batch(range(start, min(start + VAL_BATCH, len(images)))).to(device)
        latents = first_stage.encode(model, real)
        fake = first_stage.decode(model, latents).clamp(-1, 1)
        error += float((fake - real).abs().mean(dim=(1, 2, 3)).sum())
        psnr += float((10 * torch.log10(4 / ((fake - real) ** 2).mean(dim=(1, 2, 3)))).sum())
        colour += float(colour_difference(fake, real).sum())
        count += len(real)
        _, _, (_, _, codes) = model.quantize(latents)
        used += code_counts(codes, len(used)).cpu()
    return {
        "val_l1": error / count,
        "val_psnr": psnr / count,
        "val_colour_difference": colour / count,
        **codebook_use(used),
    }


def run(cfg: TrainVqganConfig, inputs: Inputs, place: Workplace) -> Outcome:
    """Train the first stage on the train split; judge its reconstructions on the val split."""
    cfg.check("stages.train_vqgan")
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
