"""LPIPS v0.1 (Zhang et al. 2018), the thesis' perceptual distance.

Source: PyPI package lpips 0.1.4 (licence BSD-2-Clause) with its learnt linear heads, on torchvision's AlexNet or VGG16
trained on ImageNet (licence BSD-3-Clause). Input: RGB in [-1, 1], any size from 64 px. The backbone is always the
trained one: without its file there is no LPIPS.
"""

import contextlib
import io
import warnings

import lpips
from torch import Tensor, nn

NETWORKS = {"lpips": "alex", "lpips_vgg": "vgg"}


class LpipsDistance(nn.Module):
    """Perceptual distance."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # The package calls torchvision with arguments that are out of fashion, and talks about it.
            warnings.simplefilter("ignore")
            self.network = lpips.LPIPS(net=NETWORKS[name], version="0.1", verbose=False)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Two (B, 3, H, W) RGB in [-1, 1] -> (B,), 0 for equal images. Differentiable in both."""
        out: Tensor = self.network(a, b)
        return out.flatten()


def load(name: str) -> LpipsDistance:
    """LPIPS ``name`` (lpips or lpips_vgg); its backbone's file must have been verified in torch hub's cache."""
    distance = LpipsDistance(name)
    return distance.eval().requires_grad_(False)
