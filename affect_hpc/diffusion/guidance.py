"""Guidance: by the same network without a label, or by a classifier of noisy latents (thesis Eq. 3.70)."""

from collections.abc import Callable

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(z (B, C, h, w), t (B,), label (B,)) -> predicted noise (B, C, h, w)."""
LogProb = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(z_t (B, C, h, w), t (B,), label (B,)) -> log p(label | z_t), (B,)."""

ALL_LEVELS = (0, 100_000)


def guided(predict: Predict, gamma: float, null_label: int, levels: tuple[int, int] = ALL_LEVELS) -> Predict:
    """Classifier-free guidance: eps = eps_null + gamma (eps_label - eps_null) (Ho and Salimans 2022, Eq. 6).

    gamma 1 is the plain conditional prediction and gamma 0 the plain unconditional one, each in one pass; with any
    other, both predictions are one batch of 2B samples.

    Args:
        predict: the network.
        gamma: guidance scale, >= 0.
        null_label: label that means none.
        levels: lowest and highest level t at which gamma acts (Kynkaanniemi et al. 2024); at others the scale is 1.
            Each sample goes by its own level; a batch that lies wholly outside costs one pass.

    Raises:
        ValueError: levels that fall.
    """
    low, high = levels
    if low > high:
        raise ValueError(f"levels={levels} of guidance fall: give the lowest one first.")
    if gamma == 1:
        return predict

    def predict_guided(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        null = torch.full_like(label, null_label)
        if gamma == 0:
            return predict(z, t, null)
        labels = torch.cat([label, null])
        eps_label, eps_null = predict(torch.cat([z, z]), torch.cat([t, t]), labels).chunk(2)
        return eps_null + gamma * (eps_label - eps_null)

    if low <= ALL_LEVELS[0] and high >= ALL_LEVELS[1]:
        return predict_guided

    def predict_guided_inside(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        inside = (t >= low) & (t <= high)
        count = int(inside.sum())
        if count == 0:
            return predict(z, t, label)
        if count == len(t):
            return predict_guided(z, t, label)
        return torch.where(inside[:, None, None, None], predict_guided(z, t, label), predict(z, t, label))

    return predict_guided_inside


def classifier_guided(predict: Predict, log_prob: LogProb, scale: float, alpha_bar: Tensor) -> Predict:
    """eps - scale sqrt(1 - alpha_bar_t) grad_z log p(label | z_t) (Dhariwal and Nichol 2021, Algorithm 2).

    The gradient is taken whatever the caller has switched off, ``torch.inference_mode`` included; only the classifier's
    own tensors must not have been made inside of that mode. Each evaluation costs a pass of ``predict``, and one of the
    classifier there and back.

    Args:
        predict: the network, under the label or without one.
        log_prob: the classifier; a sample's value may depend on that sample alone.
        scale: guidance scale, >= 0; 0 is ``predict`` itself.
        alpha_bar: (T,) float64.
    """
    if scale == 0:
        return predict

    def predict_guided(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        eps = predict(z, t, label)
        # Tensors of inference mode cannot be differentiated, nor kept for the way back; copies made outside of it can.
        with torch.inference_mode(False), torch.enable_grad():
            z_free = z.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(log_prob(z_free, t.clone(), label.clone()).sum(), z_free)
        spread = (1 - alpha_bar.to(t.device)[t]).sqrt()[:, None, None, None]
        return eps - scale * spread.to(eps) * slope.to(eps)

    return predict_guided


def clipped(predict: Predict, limit: float, alpha_bar: Tensor) -> Predict:
    """The noise that goes with a clean latent within bounds: what ``predict`` implies, cut at +-limit (Ho et al. 2020).

    Args:
        limit: > 0, in units of what is diffused; 0 is ``predict`` itself.
        alpha_bar: (T,) float64.
    """
    if limit == 0:
        return predict

    def predict_clipped(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        a = alpha_bar.to(t.device)[t].to(z)[:, None, None, None]
        z_0 = (z - (1 - a).sqrt() * predict(z, t, label)) / a.sqrt()
        return (z - a.sqrt() * z_0.clamp(-limit, limit)) / (1 - a).sqrt()

    return predict_clipped
