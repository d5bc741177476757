"""Emotion judges of HSEmotion: EfficientNet-B2 trained on AffectNet, 7 classes or 8 (thesis sections 4.4 and 4.6).

Source: Savchenko, HSEmotion (github HSE-asavchenko/face-emotion-recognition, files enet_b2_7.pt and enet_b2_8.pt),
licence Apache-2.0; the user supplies them. Input of the network: RGB face, 260 px, ImageNet's mean and deviation.
"""

from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.experts.pixels import IMAGENET_MEAN, IMAGENET_STD, resized, standardised
from affect_hpc.experts.published import fill, read_published

ARCHITECTURE = "tf_efficientnet_b2"
"""timm's name; the "ns" of the project's own description says how the weights were trained first."""
SIDE = 260
EIGHT: tuple[str, ...] = ("angry", "contempt", "disgusted", "scared", "happy", "neutral", "sad", "surprised")
"""The network's own order: anger, contempt, disgust, fear, happiness, neutral, sadness, surprise."""
SEVEN: tuple[str, ...] = tuple(emotion for emotion in EIGHT if emotion != "contempt")


class HsEmotion(nn.Module):
    """Emotion judge on whole crops.

    Args:
        name: enet_b2_7 or enet_b2_8.
        net_classes: SEVEN or EIGHT.
    """

    def __init__(self, name: str, net_classes: tuple[str, ...]) -> None:
        super().__init__()
        self.name = name
        self.classes = tuple(emotion for emotion in EMOTIONS if emotion in net_classes)
        self.network: nn.Module = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=len(net_classes))
        self.register_buffer("order", torch.tensor([net_classes.index(emotion) for emotion in self.classes]))

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, len(classes)) in the order of ``classes``. Differentiable."""
        order = self.get_buffer("order")
        x = standardised(resized(images.float().to(order.device), SIDE), IMAGENET_MEAN, IMAGENET_STD)
        out: Tensor = self.network(x)
        return out[:, order]

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, len(classes)), rows sum to 1."""
        return self.logits(images).softmax(1)


def load_seven(files: dict[str, Path]) -> HsEmotion:
    """The judge enet_b2_7, which does not know contempt, with the weights of the file that config/supplied.py names."""
    return _load("enet_b2_7", SEVEN, files)


def load_eight(files: dict[str, Path]) -> HsEmotion:
    """The judge enet_b2_8, likewise."""
    return _load("enet_b2_8", EIGHT, files)


def _load(name: str, net_classes: tuple[str, ...], files: dict[str, Path]) -> HsEmotion:
    (path,) = files.values()
    judge = HsEmotion(name, net_classes)
    # Some of the project's files hold the classifier as a sequence of one layer.
    state = {key.replace("classifier.0.", "classifier."): tensor for key, tensor in read_published(path).items()}
    layout = f"HSEmotion's {name}.pt, a {ARCHITECTURE} of timm with {len(net_classes)} classes"
    fill(judge.network, state, path, layout)
    return judge.eval().requires_grad_(False)
