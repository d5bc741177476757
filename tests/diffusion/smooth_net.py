"""A small nonlinear predictor with weights, for passes that have no closed form."""

import torch
from torch import Tensor

from affect_hpc.config.edit import Spacing, timesteps
from affect_hpc.config.model import DiffusionConfig
from affect_hpc.diffusion.ddim import Path
from affect_hpc.diffusion.guidance import Predict, guided
from affect_hpc.diffusion.schedule import alpha_bars

SHAPE = (3, 2, 2)
NULL = 8


def network(seed: int = 0) -> Predict:
    """Noise of latents (B, 3, 2, 2) of any float type, from one hidden layer that sees label and time."""
    source = torch.Generator().manual_seed(seed)
    inwards, outwards = (torch.randn(shape, generator=source) / shape[1] ** 0.5 for shape in ((32, 12), (12, 32)))
    embedding = torch.randn(NULL + 1, 32, generator=source) / 2

    def predict(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        hidden = torch.tanh(z.flatten(1) @ inwards.T.to(z) + embedding.to(z)[label] + t.to(z)[:, None] / 500)
        return (hidden @ outwards.T.to(z)).reshape(z.shape)

    return predict


def guided_network(gamma: float = 3.0) -> Predict:
    return guided(network(), gamma, NULL)


def edit_path(steps: int = 40) -> Path:
    """As an edit to level 500 takes it."""
    return Path(timesteps(Spacing.linspace, steps, 500, 1000), alpha_bars(DiffusionConfig()))


def faces(count: int = 8) -> tuple[Tensor, Tensor]:
    """Latents (count, 3, 2, 2) float32 and their labels 0 .. 7."""
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(5)), torch.arange(count) % NULL
