"""Emotion and identity judges trained on the train split of a corpus whose labels and identities are certain."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from affect_hpc.core.emotions import EMOTIONS
from affect_hpc.core.hashing import digest
from affect_hpc.core.io import read_json, sha256_file

DESCRIPTION = "referee.json"


class Trunk(nn.Module):
    """Strided 3 x 3 convolutions with batch norm, mean over the image, one linear layer.

    Args:
        channels: width after each convolution; each but the first halves the side.
        outputs: length of the result.
    """

    def __init__(self, channels: list[int], outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for i, width in enumerate(channels):
            stride = 1 if i == 0 else 2
            layers += [nn.Conv2d(before, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(before, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, outputs)."""
        result: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return result


class RefereeEmotion(nn.Module):
    """Emotion judge of a train_referee output."""

    classes = EMOTIONS

    def __init__(self, network: Trunk, name: str, file_digest: str) -> None:
        super().__init__()
        self.network, self.name, self.digest = network, name, file_digest

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 8), rows sum to 1."""
        return F.softmax(self.network(images).float(), dim=1)


class RefereeIdentity(nn.Module):
    """Identity judge of a train_referee output."""

    def __init__(self, network: Trunk, name: str, file_digest: str) -> None:
        super().__init__()
        self.network, self.name, self.digest = network, name, file_digest

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, D) of length 1."""
        return F.normalize(self.network(images).float(), dim=1)


def load_emotion(folder: Path) -> RefereeEmotion:
    """The emotion judge in the output folder of train_referee."""
    return RefereeEmotion(*_load(folder, "emotion", len(EMOTIONS)))


def load_identity(folder: Path) -> RefereeIdentity:
    """The identity judge in the output folder of train_referee."""
    return RefereeIdentity(*_load(folder, "identity", int(read_json(folder / DESCRIPTION)["embed_dim"])))


def _load(folder: Path, kind: str, outputs: int) -> tuple[Trunk, str, str]:
    description = read_json(folder / DESCRIPTION)
    network = Trunk(description["channels"], outputs)
    path = folder / f"{kind}.safetensors"
    network.load_state_dict(load_file(path))
    name = f"referee_{digest(description)[:6]}"
    return network.eval().requires_grad_(False), name, sha256_file(path)


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor, batch: int = 100) -> float:
    """Share of images (N, 3, H, W) whose largest output is their label."""
    right = 0
    for i in range(0, len(images), batch):
        right += int((network(images[i : i + batch]).argmax(1) == labels[i : i + batch]).sum())
    return right / len(images)
