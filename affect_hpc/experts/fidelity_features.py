"""Image features as torch-fidelity computes them: Inception-v3 for FID and KID, VGG16 for precision and recall.

Sources: PyPI package torch-fidelity 0.4 (licence Apache-2.0); weights: Inception-v3 of 2015-12-05 (Szegedy et al.
2016), converted by the package's author, and torchvision's VGG16 (Simonyan and Zisserman 2015). The extractors take
8-bit images of any size and resize them as TensorFlow 1 did, which published numbers of FID depend on.
"""

import importlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from affect_hpc.core.errors import UserError
from affect_hpc.experts.pixels import levels_8bit
from affect_hpc.experts.published import read_published


class FidelityFeatures(nn.Module):
    """One layer of an extractor of torch-fidelity.

    Args:
        name: of the network.
        dim: length of its features.
        extractor: takes (B, 3, H, W) uint8, gives a tuple of one tensor (B, dim).
    """

    def __init__(self, name: str, dim: int, extractor: nn.Module) -> None:
        super().__init__()
        self.name, self.dim = name, dim
        self.extractor = extractor

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, dim) float32; images are rounded to 8 bits first."""
        (out,) = self.extractor(levels_8bit(images).to(next(self.extractor.parameters()).device))
        features: Tensor = out
        return features.float()


def load_inception(files: dict[str, Path]) -> FidelityFeatures:
    """The 2048 averages of the last layer of Inception-v3; weights of the file that config/packaged.py names."""
    return _load("inception", 2048, "FeatureExtractorInceptionV3", "2048", files)


def load_vgg16(files: dict[str, Path]) -> FidelityFeatures:
    """The 4096 outputs of the second hidden layer of VGG16, after its ReLU; likewise."""
    return _load("vgg16", 4096, "FeatureExtractorVGG16", "fc2_relu", files)


def _load(name: str, dim: int, extractor: str, layer: str, files: dict[str, Path]) -> FidelityFeatures:
    (path,) = files.values()
    make: Any = getattr(importlib.import_module("torch_fidelity"), extractor)  # the package has no types
    # The extractor unpickles whatever it is given, so it gets tensors that were read safely.
    content = io.BytesIO()
    torch.save(read_published(path), content)
    content.seek(0)
    try:
        network = make(name, [layer], feature_extractor_weights_path=content)
    except RuntimeError as error:
        finding = (str(error).splitlines()[1:2] or [str(error)])[0].strip().partition(",")[0]
        raise UserError(f"{path} does not fit the {name} of torch-fidelity: {finding}; get the file again.") from None
    return FidelityFeatures(name, dim, network).eval().requires_grad_(False)
