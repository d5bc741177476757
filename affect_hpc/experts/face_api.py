"""Emotion judge of face-api: a small convolutional network, 7 classes.

Source: npm package @vladmandic/face-api 1.7.15, licence MIT; weights quantised to 8 bits. The training data is not
published; it is not AffectNet. Input of the network: RGB face, 112 px, (x - [122.782, 117.001, 104.298]) / 255.
"""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.io import read_json
from affect_hpc.experts.pixels import levels, resized, same_padded
from affect_hpc.experts.weights import conv_weight, depthwise_weight, read_tfjs

SIDE = 112
NET_CLASSES: tuple[str, ...] = ("neutral", "happy", "sad", "angry", "scared", "disgusted", "surprised")
"""The network's own order; its "fearful" is our "scared"."""


class Separable(nn.Module):
    """Depthwise 3x3 convolution, then a pointwise one with bias; TensorFlow's padding "same"."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.depthwise = nn.Conv2d(channels_in, channels_in, 3, stride, groups=channels_in, bias=False)
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, ceil(H / stride), ceil(W / stride))"""
        out: Tensor = self.pointwise(self.depthwise(same_padded(x, 3, self.stride)))
        return out


class Full(nn.Module):
    """Ordinary 3x3 convolution that halves the image; TensorFlow's padding "same"."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, ceil(H / 2), ceil(W / 2))"""
        out: Tensor = self.conv(same_padded(x, 3, 2))
        return out


class DenseBlock(nn.Module):
    """Four convolutions; each of the last three sees the ReLU of the sum of all outputs before it."""

    def __init__(self, channels_in: int, channels_out: int, first: bool) -> None:
        super().__init__()
        self.conv0 = Full(channels_in, channels_out) if first else Separable(channels_in, channels_out, 2)
        self.rest = nn.ModuleList(Separable(channels_out, channels_out, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / 2, W / 2)"""
        # The first output enters the sum after its ReLU, the others before theirs.
        total = functional.relu(self.conv0(x))
        seen = total
        for conv in self.rest:
            total = total + conv(seen)
            seen = functional.relu(total)
        return seen


class FaceApiEmotion(nn.Module):
    """Emotion judge on whole crops."""

    name = "face_api"
    classes: tuple[str, ...] = tuple(emotion for emotion in EMOTIONS if emotion in NET_CLASSES)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 256)
        self.blocks = nn.ModuleList(
            DenseBlock(before, after, first=before == widths[0]) for before, after in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], len(NET_CLASSES))
        self.register_buffer("mean", torch.tensor([122.782, 117.001, 104.298]).view(1, 3, 1, 1))
        self.register_buffer("order", torch.tensor([NET_CLASSES.index(emotion) for emotion in self.classes]))

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, 7) in the order of ``classes``. Differentiable."""
        mean, order = self.get_buffer("mean"), self.get_buffer("order")
        x = (levels(resized(images.to(mean), SIDE)) - mean) / 255
        for block in self.blocks:
            x = block(x)
        # Seven pixels a side are left: one average window.
        out: Tensor = self.head(x.mean((2, 3)))
        return out[:, order]

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, 7), rows sum to 1."""
        return self.logits(images).softmax(1)


def load(files: dict[str, Path]) -> FaceApiEmotion:
    """The judge with the weights of the files that config/packaged.py names."""
    (group,) = read_json(files["face_expression_model-weights_manifest.json"])
    tensors = read_tfjs(group["weights"], files["face_expression_model.bin"])
    state = {"head.weight": tensors["fc/weights"].T.contiguous(), "head.bias": tensors["fc/bias"]}
    for block in range(4):
        for conv in range(4):
            theirs = f"dense{block}/conv{conv}"
            ours = f"blocks.{block}." + (f"rest.{conv - 1}" if conv else "conv0")
            if f"{theirs}/filters" in tensors:
                state[f"{ours}.conv.weight"] = conv_weight(tensors[f"{theirs}/filters"])
                state[f"{ours}.conv.bias"] = tensors[f"{theirs}/bias"]
                continue
            state[f"{ours}.depthwise.weight"] = depthwise_weight(tensors[f"{theirs}/depthwise_filter"])
            state[f"{ours}.pointwise.weight"] = conv_weight(tensors[f"{theirs}/pointwise_filter"])
            state[f"{ours}.pointwise.bias"] = tensors[f"{theirs}/bias"]
    judge = FaceApiEmotion()
    constants = {name: judge.get_buffer(name) for name in ("mean", "order")}
    judge.load_state_dict(state | constants)
    return judge.eval().requires_grad_(False)
