"""Classifier-free guidance (Ho and Salimans 2022, Eq. 6; thesis Eq. 3.70)."""

from collections.abc import Callable

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(z (B, C, h, w), t (B,), label (B,)) -> predicted noise (B, C, h, w)."""


def guided(predict: Predict, gamma: float, null_label: int) -> Predict:
    """``predict`` with guidance: eps = eps_null + gamma (eps_label - eps_null).

    Both predictions are one batch of 2B samples. gamma 1 is the plain conditional prediction, without the second pass.

    Args:
        predict: the network.
        gamma: guidance scale, >= 1.
        null_label: label that means none.
    """
    if gamma == 1:
        return predict

    def predict_guided(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        labels = torch.cat([label, torch.full_like(label, null_label)])
        eps_label, eps_null = predict(torch.cat([z, z]), torch.cat([t, t]), labels).chunk(2)
        return eps_null + gamma * (eps_label - eps_null)

    return predict_guided
