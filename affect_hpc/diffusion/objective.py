"""What the network learns: the noise in a noisy latent (Ho et al. 2020, Eq. 14; thesis section 4.3.3)."""

from torch import Tensor


def q_sample(z_0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) noise (Ho et al. 2020, Eq. 4).

    Args:
        z_0: clean latents (B, C, h, w).
        t: level of each sample, (B,) int64, 0 .. T-1.
        noise: standard normal, as ``z_0``.
        alpha_bar: (T,) float64.
    """
    level = alpha_bar.to(z_0.device)[t][:, None, None, None]
    return level.sqrt().to(z_0.dtype) * z_0 + (1 - level).sqrt().to(z_0.dtype) * noise


def eps_error(predicted: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted noise, a scalar."""
    return (predicted.float() - noise.float()).square().mean()
