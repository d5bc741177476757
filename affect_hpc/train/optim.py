"""Learning rate as a function of samples seen, and the optimiser."""

import math

import torch
from torch import nn

from affect_hpc.config.train import LrSchedule, TrainConfig

ONECYCLE_RISE = 0.25
"""Share of a one-cycle training in which the rate rises."""


def lr_factor(schedule: LrSchedule, progress: float) -> float:
    """Factor on the base learning rate after the share ``progress`` (0..1) of the training."""
    if schedule is LrSchedule.constant:
        return 1.0
    if schedule is LrSchedule.cosine:
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    if progress < ONECYCLE_RISE:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * progress / ONECYCLE_RISE))
    return 0.5 * (1 + math.cos(math.pi * min((progress - ONECYCLE_RISE) / (1 - ONECYCLE_RISE), 1.0)))


def adamw(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of ``module``."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(parameters, lr=config.lr, betas=betas, weight_decay=config.weight_decay)
