"""Reference folders of any size and setting: networks are asked directly, all else is formulas written out here.

Scalars are Python's, levels are walked in pairs, and nothing of the package's diffusion code is used.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, PNDMScheduler
from original_layout import Model, make
from safetensors.torch import save_file
from torch import Tensor

from affect_hpc.config.model import FirstStageConfig, UnetConfig
from affect_hpc.models.classifier import NoisyLatentClassifier

Eps = Callable[[Tensor, int], Tensor]
"""(z, level) -> noise."""


@dataclass
class Reference:
    """A model of certain sizes, and what its cases are computed from.

    Args:
        sizes: of first stage and U-Net.
        more: terms of config.json beside those of the sizes.
        image: (B, 3, H, W) of the images.
        levels: how many.
        start, end: first and last beta.
        root: betas are linear in their square roots.
    """

    sizes: tuple[FirstStageConfig, UnetConfig]
    classes: int
    image: tuple[int, int, int, int]
    levels: int
    start: float
    end: float
    root: bool = True
    one_table: bool = False
    scale: float = 1.0
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model: Model = make(self.sizes, self.classes, self.one_table)
        power = 2 if self.root else 1
        self.betas = np.linspace(self.start ** (1 / power), self.end ** (1 / power), self.levels) ** power
        self.bars: list[float] = np.cumprod(1 - self.betas).tolist()
        self.model.state["betas"] = torch.tensor(self.betas, dtype=torch.float32)
        del self.model.state["sqrt_one_minus_alphas_cumprod"]
        self.model.config |= {"timesteps": self.levels, "linear_start": self.start, "linear_end": self.end, **self.more}
        self.model.config["beta_schedule"] = "linear" if self.root else "sqrt_linear"
        if self.scale != 1:
            self.model.config["scale_factor"] = self.scale
        random = torch.Generator().manual_seed(self.levels)
        count = self.image[0]
        ids = torch.randint(0, self.classes, (4, count), generator=random)
        self.inputs = {
            "image": torch.rand(self.image, generator=random) * 2 - 1,
            "t": torch.randint(0, self.levels, (count,), generator=random),
            **dict(zip(("label", "source_label", "target_label", "sample_label"), ids, strict=True)),
        }
        with torch.no_grad():
            self.latent: Tensor = self.model.first_stage.encode(self.inputs["image"]).latents
        self.inputs["z_start"] = torch.randn(self.latent.shape, generator=random)
        self.inputs["noise"] = torch.randn(12, *self.latent.shape, generator=random)
        torch.manual_seed(3)
        channels = self.latent.shape[1]
        self.classifier = NoisyLatentClassifier(channels, [8, 16], 8, self.classes).eval()

    def save(self, folder: Path, cases: dict[str, Tensor]) -> None:
        """Write the folder; a model that lies there is not written again."""
        if not (folder / "ldm.ckpt").exists():
            checkpoint, _ = self.model.save(folder)
            checkpoint.rename(folder / "ldm.ckpt")
            self.classifier.save(folder)
        save_file({name: tensor.contiguous() for name, tensor in cases.items()}, folder / "cases.safetensors")

    @torch.no_grad()
    def noise(self, z: Tensor, t: Tensor, ids: Tensor, raw: bool = False) -> Tensor:
        """Of the plain network."""
        unet = self.model.raw if raw else self.model.averaged
        tokens = self.model.embedding.table.weight[ids][:, None]
        return unet(z.float(), t, encoder_hidden_states=tokens).sample.to(z.dtype)

    def guided(
        self,
        z: Tensor,
        t: Tensor,
        ids: Tensor,
        gamma: float,
        *,
        raw: bool = False,
        between: tuple[int, int] = (0, 10**9),
        scale: float = 0,
        clip: float = 0,
    ) -> Tensor:
        """(1 - w) eps_null + w eps_label, w = gamma between two levels; then a classifier's slope; then a cut."""
        without = self.noise(z, t, torch.full_like(ids, self.classes), raw)
        inside = (t >= between[0]) & (t <= between[1])
        w = torch.where(inside, gamma, 1.0)[:, None, None, None].to(z)
        eps = (1 - w) * without + w * self.noise(z, t, ids, raw)
        a = torch.tensor(self.bars)[t][:, None, None, None].to(z)
        if scale:
            free = z.float().requires_grad_()
            loss = torch.nn.functional.cross_entropy(self.classifier(free, t), ids, reduction="sum")
            eps = eps + scale * (1 - a).sqrt() * torch.autograd.grad(loss, free)[0].to(z)
        if clip:
            clean = ((z - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-clip, clip)
            eps = (z - a.sqrt() * clean) / (1 - a).sqrt()
        return eps

    def eps(self, ids: Tensor, gamma: float, **settings: Any) -> Eps:
        """Guided noise where all samples have one level."""
        return lambda z, level: self.guided(z, torch.full((len(z),), level), ids, gamma, **settings)

    def taus(self, steps: int, t0: int, leading: bool) -> list[int]:
        """Visited levels by the thesis' two rules."""
        if leading:
            return [level for level in range(1, self.levels + 1, self.levels // steps) if level <= t0]
        return [1, *(int(j * t0 / (steps - 1)) for j in range(1, steps))]

    def basics(self) -> dict[str, Tensor]:
        """First stage, schedule and plain noise."""
        vqgan, z = self.model.first_stage, self.latent
        codes = vqgan.quantize.embedding.weight.detach()
        index = ((z.permute(0, 2, 3, 1)[..., None, :] - codes) ** 2).sum(-1).argmin(-1)
        t, label = self.inputs["t"], self.inputs["label"]
        none = torch.full_like(label, self.classes)
        with torch.no_grad():
            return {
                **{"latent": z, "code_indices": index, "latent_quantized": codes[index].permute(0, 3, 1, 2)},
                "reconstruction": vqgan.decode(z).sample,
                **{"betas": torch.tensor(self.betas).float(), "alphas_cumprod": torch.tensor(self.bars)},
                **{"eps_cond_raw": self.noise(z, t, label, True), "eps_null_raw": self.noise(z, t, none, True)},
                **{"eps_cond_ema": self.noise(z, t, label), "eps_null_ema": self.noise(z, t, none)},
            }

    def picture(self, z: Tensor) -> Tensor:
        """Of diffused latents."""
        with torch.no_grad():
            return self.model.first_stage.decode(z / self.scale).sample

    def edit(
        self,
        name: str,
        t0: int,
        gamma: float,
        steps: int,
        *,
        encode_gamma: float | None = None,
        leading: bool = False,
        clean: bool = False,
        current: bool = False,
        **settings: Any,
    ) -> dict[str, Tensor]:
        """All results of a DDIM edit, under ``name``."""
        levels = [None if clean else 0, *self.taus(steps, t0, leading)]
        source, target = self.inputs["source_label"], self.inputs["target_label"]
        there = self.eps(source, gamma if encode_gamma is None else encode_gamma, **settings)
        back = self.eps(target, gamma, **settings)
        z = self.latent * self.scale
        for low, high in pairwise(levels):
            z = self.move(z, there(z, (low or 0) if current else high), low, high)
        found = {"z_t0": z, "z_own": z, "z_edit": z}
        for low, high in reversed(list(pairwise(levels))):
            found["z_edit"] = self.move(found["z_edit"], back(found["z_edit"], high), high, low)
            found["z_own"] = self.move(found["z_own"], there(found["z_own"], high), high, low)
        found |= {"x_own": self.picture(found["z_own"]), "x_edit": self.picture(found["z_edit"])}
        found["timesteps"] = torch.tensor(levels[1:])
        return {f"{name}.{what}": tensor for what, tensor in found.items()}

    def bar(self, level: int | None) -> float:
        """None = clean."""
        return 1.0 if level is None else self.bars[level]

    def move(self, z: Tensor, eps: Tensor, before: int | None, after: int | None) -> Tensor:
        """A deterministic step: in z / sqrt(bar) it is a difference of noise-to-signal ratios."""
        a, b = self.bar(before), self.bar(after)
        return math.sqrt(b) * (z / math.sqrt(a) + (math.sqrt(1 / b - 1) - math.sqrt(1 / a - 1)) * eps)

    def draw(self, sampler: str, levels: Sequence[int | None], eps: Eps, eta: float = 0) -> Tensor:
        """From ``z_start`` down ``levels``, the last of which is the end; the k-th step takes the k-th noise."""
        z, noise = self.inputs["z_start"].double(), self.inputs["noise"].double()
        z_0_before, h_before = z, 0.0
        for k, (high, low) in enumerate(pairwise(levels)):
            a, b = self.bar(high), self.bar(low)
            e = eps(z, high)
            z_0 = z / math.sqrt(a) - math.sqrt(1 / a - 1) * e
            if sampler == "ddpm":  # a process of these levels alone (Nichol and Dhariwal 2021, Eq. 19)
                beta = 1 - a / b
                mean = (math.sqrt(b) * beta * z_0 + math.sqrt(1 - beta) * (1 - b) * z) / (1 - a)
                z = mean + math.sqrt((1 - b) / (1 - a) * beta) * noise[k]
            elif sampler == "ddim":
                sigma = eta * math.sqrt((1 - b) / (1 - a)) * math.sqrt(1 - a / b)
                z = math.sqrt(b) * z_0 + math.sqrt(1 - b - sigma**2) * e + sigma * noise[k]
            else:  # Lu et al. 2022, Algorithm 2, the last step of first order
                h = 0.5 * math.log(b / (1 - b)) - 0.5 * math.log(a / (1 - a)) if b < 1 else math.inf
                r = h_before / h
                second = k > 0 and k < len(levels) - 2
                data = (1 + 1 / (2 * r)) * z_0 - z_0_before / (2 * r) if second else z_0
                z = math.sqrt((1 - b) / (1 - a)) * z - math.sqrt(b) * math.expm1(-h) * data
                z_0_before, h_before = z_0, h
        return z.float()

    def draw_by_diffusers(self, sampler: str, steps: int, eps: Eps, clean: bool, eta: float = 0) -> Tensor:
        """By the scheduler of diffusers that goes by evenly spaced levels, plus one."""
        common = {"trained_betas": self.betas.tolist(), "steps_offset": 1, "set_alpha_to_one": clean}
        if sampler == "ddim":
            scheduler = DDIMScheduler(self.levels, clip_sample=False, **common)
        else:
            scheduler = PNDMScheduler(self.levels, skip_prk_steps=True, **common)
        scheduler.alphas_cumprod = torch.tensor(self.bars, dtype=torch.float64)
        scheduler.final_alpha_cumprod = torch.tensor(1.0 if clean else self.bars[0], dtype=torch.float64)
        scheduler.set_timesteps(steps)
        z = self.inputs["z_start"].double()
        for k, t in enumerate(scheduler.timesteps):
            given = {"eta": eta, "variance_noise": self.inputs["noise"][k].double()} if sampler == "ddim" else {}
            z = scheduler.step(eps(z, int(t)), t, z, **given).prev_sample
        return z.float()
