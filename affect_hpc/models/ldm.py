"""A trained latent diffusion model as the rest of the program uses it."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from affect_hpc.config.model import ConditionConfig, DiffusionConfig, LatentConfig, LatentScale
from affect_hpc.config.sizes import UNET_CPU_BATCH
from affect_hpc.core.io import read_json, write_json
from affect_hpc.models.denoiser import Denoiser

DESCRIPTION = "ldm.json"


@dataclass(frozen=True)
class LatentNorm:
    """Affine map between first-stage latents and what is diffused: (latent - mean) / std, per channel."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(
        cls,
        config: LatentConfig,
        channels: int,
        latents: Iterable[Tensor],
        over_ranks: Callable[[Tensor], Tensor] = lambda sums: sums,
    ) -> "LatentNorm":
        """From all latents of the train split; a fixed factor needs none of them.

        Args:
            latents: some (N, C, h, w) at a time; with several ranks this rank's share of them.
            over_ranks: sum of a tensor over all ranks that share the latents.
        """
        if config.scale is LatentScale.fixed:
            return cls(torch.zeros(channels), torch.full((channels,), 1 / config.scale_factor))
        sums = torch.zeros(3, channels, dtype=torch.float64)
        for some in latents:
            wide = some.double()
            count = torch.full_like(wide[0, :, 0, 0], wide.numel() // channels)
            sums += torch.stack([count, wide.sum(dim=(0, 2, 3)), (wide**2).sum(dim=(0, 2, 3))]).cpu()
        count, total, squares = over_ranks(sums)
        mean = total / count
        variance = (squares - count * mean**2) / (count - 1)
        return cls(mean.float(), variance.sqrt().float())

    def normalise(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) -> what is diffused."""
        return (latents - self.mean.to(latents)[:, None, None]) / self.std.to(latents)[:, None, None]

    def restore(self, z: Tensor) -> Tensor:
        """What is diffused -> latents."""
        return z * self.std.to(z)[:, None, None] + self.mean.to(z)[:, None, None]


@dataclass(frozen=True)
class Ldm:
    """Denoiser, its diffusion process and its latent normalisation."""

    denoiser: Denoiser
    diffusion: DiffusionConfig
    condition: ConditionConfig
    norm: LatentNorm

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> "Ldm":
        """The averaged weights of a train_ldm output, frozen."""
        description: dict[str, Any] = read_json(folder / DESCRIPTION)
        condition = ConditionConfig(**description["condition"])
        norm = LatentNorm(torch.tensor(description["latent_mean"]), torch.tensor(description["latent_std"]))
        denoiser = Denoiser.load(folder, condition).to(device)
        return cls(denoiser, DiffusionConfig(**description["diffusion"]), condition, norm)

    def predictor(self, low_precision: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The denoiser as a function (z, t, label) -> noise in the type of z.

        Args:
            low_precision: by a copy of the network whose weights are bfloat16 too. Autocast would keep norms and
                activations in float32 on a GPU, which takes a third more time and rounds products all the same.
        """
        network = copy.deepcopy(self.denoiser).to(torch.bfloat16) if low_precision else self.denoiser

        def predict(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
            share = UNET_CPU_BATCH if z.device.type == "cpu" else len(z)
            asked = z.to(torch.bfloat16) if low_precision else z
            shares = zip(*(torch.split(one, share) for one in (asked, t, label)), strict=True)
            return torch.cat([network(*one) for one in shares]).to(z.dtype).contiguous()

        return predict


def write_description(folder: Path, diffusion: DiffusionConfig, condition: ConditionConfig, norm: LatentNorm) -> None:
    """Write ``ldm.json``: what a loader needs besides the weights."""
    content = {
        "diffusion": vars(diffusion),
        "condition": vars(condition),
        "latent_mean": norm.mean.tolist(),
        "latent_std": norm.std.tolist(),
    }
    write_json(folder / DESCRIPTION, content)
