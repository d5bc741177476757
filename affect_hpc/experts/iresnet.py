"""Identity judge CosFace: an improved residual network for faces, 512-d embedding (thesis sections 4.4 and 4.6).

Source: CosFace (Wang et al. 2018) on Glint360K, from the model zoo of insightface (arcface_torch), file backbone.pth;
weights for non-commercial research, supplied by the user. Names of parameters as in that file, whose depth is read from
them. Input of the network: RGB face, 112 px, [-1, 1]; the whole crop is resized, as in the thesis.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from affect_hpc.experts.pixels import resized
from affect_hpc.experts.published import fill, read_published

SIDE = 112
WIDTHS = (64, 128, 256, 512)
"""Channels of the four stages; each halves the image."""
LAST_SIDE = 7
EMBED_DIM = 512
DEPTHS: Mapping[int, tuple[int, ...]] = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
"""Layers of the published networks -> blocks of each stage."""


class Block(nn.Module):
    """Norm, convolution, norm, PReLU, convolution that may halve the image, norm; beside a short cut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        # The first block of a stage alone changes the shape.
        self.downsample: nn.Module | None = None
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)"""
        short: Tensor = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        out = self.bn3(self.conv2(out)) + short
        return out


class IResNet(nn.Module):
    """The network up to its embedding, not normalised.

    Args:
        blocks: of each of the four stages, see DEPTHS.
    """

    def __init__(self, blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU(WIDTHS[0])
        before = WIDTHS[0]
        for stage, (count, width) in enumerate(zip(blocks, WIDTHS, strict=True), 1):
            rest = (Block(width, width, 1) for _ in range(count - 1))
            setattr(self, f"layer{stage}", nn.Sequential(Block(before, width, 2), *rest))
            before = width
        self.bn2 = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before * LAST_SIDE**2, EMBED_DIM)
        self.features = nn.BatchNorm1d(EMBED_DIM)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 112, 112) RGB in [-1, 1] -> (B, 512)"""
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        out: Tensor = self.features(self.fc(self.bn2(x).flatten(1)))
        return out


class CosFaceIdentity(nn.Module):
    """Identity judge on whole crops."""

    name = "cosface"

    def __init__(self, blocks: Sequence[int]) -> None:
        super().__init__()
        self.network = IResNet(blocks)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, 512) of length 1. Differentiable."""
        # Bilinear without a wider filter where the image shrinks: as OpenCV, which the thesis' numbers come from.
        frames = resized(images.to(self.network.fc.weight), SIDE, antialias=False)
        return functional.normalize(self.network(frames), dim=1)


def blocks_of(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Blocks of each stage of a state dict: the published depth that they are, else as if of 50 layers."""
    found = {match.group(1, 2) for key in state if (match := re.match(r"layer([1-4])\.(\d+)\.", key))}
    counts = tuple(sum(stage == str(wanted) for stage, _ in found) for wanted in range(1, len(WIDTHS) + 1))
    return counts if counts in DEPTHS.values() else DEPTHS[50]


def load(files: dict[str, Path]) -> CosFaceIdentity:
    """The judge with the weights of the file that config/supplied.py names."""
    (path,) = files.values()
    state = read_published(path)
    judge = CosFaceIdentity(blocks_of(state))
    depths = ", ".join(map(str, DEPTHS))
    fill(judge.network, state, path, f"an iResNet of insightface (backbone.pth) with {depths} layers")
    return judge.eval().requires_grad_(False)
