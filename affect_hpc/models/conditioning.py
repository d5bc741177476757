"""Emotion label -> context token, with a row of its own for no label (thesis section 4.3.3; D-48)."""

import torch
from torch import Tensor, nn

from affect_hpc.config.model import ConditionConfig


class LabelEmbedding(nn.Module):
    """Learned table (num_classes + 1, dim); row ``null_index`` means no label."""

    def __init__(self, config: ConditionConfig) -> None:
        super().__init__()
        self.null_index = config.null_index
        self.table = nn.Embedding(config.num_classes + 1, config.dim)

    def forward(self, label: Tensor) -> Tensor:
        """(B,) int64 -> (B, 1, dim): one context token."""
        token: Tensor = self.table(label)
        return token[:, None]


def drop_labels(label: Tensor, null_index: int, p_uncond: float, chance: Tensor) -> Tensor:
    """Labels with the share ``p_uncond`` replaced by ``null_index`` (Ho and Salimans 2022, Algorithm 1).

    Args:
        label: (B,) int64.
        chance: uniform in [0, 1): (B,) where each sample draws for itself; (1,) where one draw covers the batch, as in
            the original code (D-08).
    """
    return torch.where(chance.to(label.device) < p_uncond, null_index, label)
