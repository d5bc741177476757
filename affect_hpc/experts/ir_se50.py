"""Identity network IR-SE50: 50 residual layers with squeeze and excitation, 512-d embedding (thesis section 4.5.2).

Source: ArcFace (Deng et al. 2019), trained and published by TreB1eN (InsightFace_Pytorch), file model_ir_se50.pth;
supplied by the user. The identity loss of the thesis uses it. Names of parameters as in that file. Input of the
network: RGB face, 112 px, [-1, 1]; the whole crop is averaged to that size.
"""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from affect_hpc.experts.published import fill, read_published

SIDE = 112
STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))
"""Channels and blocks of the four stages; each halves the image."""
SQUEEZE = 16
LAST_SIDE = 7
EMBED_DIM = 512


class SqueezeExcite(nn.Module):
    """Scales each channel by what all of them hold on average (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // SQUEEZE, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // SQUEEZE, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        scale: Tensor = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x * scale


class Bottleneck(nn.Module):
    """Residual block; the short cut is learnt where the channels change, else every stride-th pixel."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if channels_in != channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            SqueezeExcite(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)"""
        out: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return out


class IrSe50Identity(nn.Module):
    """Identity judge on whole crops."""

    name = "ir_se50"

    def __init__(self) -> None:
        super().__init__()
        before = STAGES[0][0]
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, before, 3, padding=1, bias=False), nn.BatchNorm2d(before), nn.PReLU(before)
        )
        blocks = []
        for width, count in STAGES:
            blocks += [Bottleneck(before, width, 2), *(Bottleneck(width, width, 1) for _ in range(count - 1))]
            before = width
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Dropout(),  # idle in a frozen network, but it takes a number in the names
            nn.Flatten(),
            nn.Linear(before * LAST_SIDE**2, EMBED_DIM),
            nn.BatchNorm1d(EMBED_DIM),
        )

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, 512) of length 1. Differentiable."""
        frames = functional.adaptive_avg_pool2d(images.to(self.get_parameter("output_layer.3.weight")), SIDE)
        return functional.normalize(self.output_layer(self.body(self.input_layer(frames))), dim=1)


def load(files: dict[str, Path]) -> IrSe50Identity:
    """The judge with the weights of the file that config/supplied.py names."""
    (path,) = files.values()
    judge = IrSe50Identity()
    fill(judge, read_published(path), path, "model_ir_se50.pth of InsightFace_Pytorch, an IR-SE50")
    return judge.eval().requires_grad_(False)
