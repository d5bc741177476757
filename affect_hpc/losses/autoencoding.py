"""Losses of the first stage: pixels, edges, colours, patches (Esser et al. 2021, Eq. 4-7; thesis Eq. 3.73-3.77)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from affect_hpc.config.stages import GanLoss


def center_weights(size: int, extra: float, device: torch.device) -> Tensor:
    """Weights (1, 1, size, size) of mean 1 that rise smoothly to ``1 + extra`` (before scaling) in the middle."""
    line = torch.linspace(-1, 1, size, device=device)
    bump = torch.exp(-2.5 * (line[:, None] ** 2 + line[None, :] ** 2))
    weights = 1 + extra * bump
    return (weights / weights.mean())[None, None]


def gradient_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute error of horizontal and vertical finite differences: keeps edges sharp."""
    horizontal = (a.diff(dim=3) - b.diff(dim=3)).abs().mean()
    vertical = (a.diff(dim=2) - b.diff(dim=2)).abs().mean()
    return horizontal + vertical


def pooled_error(a: Tensor, b: Tensor, window: int = 8) -> Tensor:
    """Mean absolute error after averaging over ``window`` x ``window`` pixels: colours of large areas."""
    return (F.avg_pool2d(a, window) - F.avg_pool2d(b, window)).abs().mean()


def chroma_error(a: Tensor, b: Tensor, window: int = 4) -> Tensor:
    """Mean absolute error of the colour-difference channels Cb and Cr (ITU-R BT.601), pooled over ``window`` pixels.

    Short trainings leave hair and background grey: to luminance alone, colour is worth little.
    """
    red, green, blue = F.avg_pool2d(a - b, window).unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return (0.564 * (blue - luma)).abs().mean() + (0.713 * (red - luma)).abs().mean()


def lab(images: Tensor) -> Tensor:
    """sRGB (B, 3, H, W) in [-1, 1] -> CIE L*a*b* for white D65, the same shape."""
    level = ((images.double() + 1) / 2).clamp(0, 1)
    linear = torch.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = torch.einsum("ij,bjhw->bihw", torch.tensor(to_xyz, dtype=linear.dtype, device=linear.device), linear)
    white = torch.tensor([0.95047, 1.0, 1.08883], dtype=linear.dtype, device=linear.device)[:, None, None]
    share = xyz / white
    f = torch.where(share > (6 / 29) ** 3, share.clamp_min(1e-12) ** (1 / 3), share * (29 / 6) ** 2 / 3 + 4 / 29)
    return torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], dim=1)


def colour_difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean CIE76 colour difference of each pair of images, (B,): 2.3 is just noticeable, above 10 plain at a glance."""
    return (lab(a) - lab(b)).square().sum(dim=1).sqrt().mean(dim=(1, 2))


def discriminator_loss(kind: GanLoss, real: Tensor, fake: Tensor) -> Tensor:
    """Loss of the discriminator from its logits on real and generated images (D-07)."""
    if kind is GanLoss.hinge:
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def generator_loss(kind: GanLoss, fake: Tensor) -> Tensor:
    """Adversarial loss of the generator from the discriminator's logits on its images."""
    return -fake.mean() if kind is GanLoss.hinge else F.softplus(-fake).mean()


def adaptive_weight(hidden: Tensor, weight: Tensor, g_rec: Tensor, g_adv: Tensor) -> Tensor:
    """Weight of the adversarial loss: ratio of the two losses' gradient norms at the last decoder layer (Eq. 3.77).

    The gradients are formed by hand from those at the output image, because differentiating through a distributed
    engine's forward pass is not reliable in all its modes.

    Args:
        hidden: input of the last convolution, (B, C, H, W).
        weight: its kernel, (3, C, k, k), padding k // 2.
        g_rec, g_adv: gradients of the reconstruction and adversarial losses at the image, (B, 3, H, W).

    Returns:
        Scalar in [0, 1e4], without gradient.
    """
    padding = weight.shape[-1] // 2
    gradients = [
        conv2d_weight(hidden, weight.shape, gradient, padding=padding)  # type: ignore[no-untyped-call]
        for gradient in (g_rec, g_adv)
    ]
    rec, adv = (gradient.norm() for gradient in gradients)
    ratio: Tensor = (rec / (adv + 1e-4)).clamp(0, 1e4).detach()
    return ratio
