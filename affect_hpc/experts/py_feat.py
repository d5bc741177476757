"""Emotion judge of Py-Feat 0.3: a plain convolutional network on grey faces, 7 classes.

Source: PyPI source package py-feat 0.3, licence MIT; Keras weights (HDF5). Trained by its authors on public
expression sets (FER style, 48 px); less reliable than face_api and meant as a second opinion. Input of the network:
grey face, 48 px, 0..1.
"""

from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.experts.pixels import grey, resized
from affect_hpc.experts.weights import conv_weight

SIDE = 48
BATCH_NORM_EPS = 1e-3
NET_CLASSES: tuple[str, ...] = ("angry", "disgusted", "scared", "happy", "sad", "surprised", "neutral")
"""The network's own order: anger, disgust, fear, happiness, sadness, surprise, neutral."""


class PyFeatEmotion(nn.Module):
    """Emotion judge on whole crops."""

    name = "py_feat"
    classes: tuple[str, ...] = tuple(emotion for emotion in EMOTIONS if emotion in NET_CLASSES)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width, kernel in ((64, 5), (128, 3), (256, 3)):
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.ELU()]
                layers += [nn.BatchNorm2d(width, BATCH_NORM_EPS)]
                channels = width
            layers += [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Sequential(
            nn.Linear(channels * (SIDE // 8) ** 2, 128), nn.ELU(), nn.BatchNorm1d(128, BATCH_NORM_EPS)
        )
        self.head = nn.Linear(128, len(NET_CLASSES))
        self.register_buffer("order", torch.tensor([NET_CLASSES.index(emotion) for emotion in self.classes]))

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, 7) in the order of ``classes``. Differentiable."""
        x = (resized(grey(images.to(self.head.weight)), SIDE) + 1) / 2
        # Keras flattens in (H, W, C) order.
        x = self.features(x).permute(0, 2, 3, 1).flatten(1)
        out: Tensor = self.head(self.hidden(x))
        return out[:, self.get_buffer("order")]

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, 7), rows sum to 1."""
        return self.logits(images).softmax(1)


def _read(path: Path) -> dict[str, Tensor]:
    """Layer/parameter -> tensor, of a Keras weight file."""
    tensors: dict[str, Tensor] = {}
    with h5py.File(path, "r") as file:
        for layer, group in file["model_weights"].items():
            for parameter, values in group.get(layer, {}).items():
                tensors[f"{layer}/{parameter.partition(':')[0]}"] = torch.from_numpy(np.asarray(values))
    return tensors


def load(files: dict[str, Path]) -> PyFeatEmotion:
    """The judge with the weights of the files that config/packaged.py names."""
    tensors = _read(files["fer_aug_model.h5"])
    judge = PyFeatEmotion()
    convs = [layer for layer in judge.features if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in [*judge.features, *judge.hidden] if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    with torch.no_grad():
        for i, conv in enumerate(convs, 1):
            conv.weight.copy_(conv_weight(tensors[f"conv2d_{i}/kernel"]))
            conv.get_parameter("bias").copy_(tensors[f"conv2d_{i}/bias"])
        for i, norm in enumerate(norms, 1):
            norm.weight.copy_(tensors[f"batchnorm_{i}/gamma"])
            norm.bias.copy_(tensors[f"batchnorm_{i}/beta"])
            norm.get_buffer("running_mean").copy_(tensors[f"batchnorm_{i}/moving_mean"])
            norm.get_buffer("running_var").copy_(tensors[f"batchnorm_{i}/moving_variance"])
        for name, linear in (("dense_1", judge.hidden[0]), ("out_layer", judge.head)):
            linear.get_parameter("weight").copy_(tensors[f"{name}/kernel"].T)
            linear.get_parameter("bias").copy_(tensors[f"{name}/bias"])
    return judge.eval().requires_grad_(False)
