"""The frozen judges by name. All are in eval mode, need no gradient of their own and see whole crops.

With one CPU thread every judge gives the same bits for the same batch.
"""

import importlib
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from affect_hpc.config.available import (
    EMOTION_JUDGES,
    FEATURES,
    IDENTITY_JUDGES,
    PERCEPTUAL_DISTANCES,
    PERCEPTUAL_LOSSES,
)
from affect_hpc.config.checks import one_of
from affect_hpc.config.packaged import verified
from affect_hpc.config.supplied import SUPPLIED
from affect_hpc.config.supplied import verified as verified_supplied
from affect_hpc.core.errors import UserError


class EmotionJudge(Protocol):
    """Says which emotion a face shows."""

    name: str
    classes: tuple[str, ...]
    """Emotions it knows, in the order of EMOTIONS."""

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, len(classes)) float32, rows sum to 1."""
        ...


class IdentityJudge(Protocol):
    """Says how alike two people are: the cosine of their embeddings."""

    name: str

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, D) float32 of length 1."""
        ...


class PerceptualDistance(Protocol):
    """Says how different two images look."""

    name: str

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Two (B, 3, H, W) RGB in [-1, 1] -> (B,), 0 for equal images. Differentiable in both."""
        ...


class ImageFeatures(Protocol):
    """Says what an image shows as a row of numbers, so that sets of images can be compared."""

    name: str
    dim: int
    """Length of a row."""

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] -> (B, dim) float32."""
        ...


LOADERS = {
    "face_api": "face_api.load",
    "py_feat": "py_feat.load",
    "enet_b2_7": "hsemotion.load_seven",
    "enet_b2_8": "hsemotion.load_eight",
    "mobileface": "mobileface.load",
    "dlib": "dlib_identity.load",
    "cosface": "iresnet.load",
    "ir_se50": "ir_se50.load",
    "efficientnet_lite0": "efficientnet.load",
}
"""Judge or distance -> who makes it of its files."""
FEATURE_LOADERS = {
    "inception": "fidelity_features.load_inception",
    "vgg16": "fidelity_features.load_vgg16",
    "clip": "clip_features.load",
    "efficientnet_lite0": "efficientnet.load_features",
}


def _made(loader: str, name: str, folder: str) -> Any:
    files = verified_supplied(name, folder) if name in SUPPLIED else verified(name, folder)
    # Imported when asked for: each network brings its own library.
    module, _, function = loader.partition(".")
    return getattr(importlib.import_module(f"affect_hpc.experts.{module}"), function)(files)


def load_emotion(name: str, folder: str, referee: Path | None) -> EmotionJudge:
    """The emotion judge ``name``.

    Args:
        name: one of EMOTION_JUDGES.
        folder: config value experts.folder; empty for the usual place.
        referee: output folder of stage train_referee, needed by the judge referee alone.

    Raises:
        UserError: unknown name; weights absent or damaged.
    """
    one_of("experts.emotion", name, EMOTION_JUDGES)
    if name == "referee":
        from affect_hpc.experts.referee import load_emotion as load_referee  # noqa: PLC0415

        return load_referee(_given(referee))
    judge: EmotionJudge = _made(LOADERS[name], name, folder)
    return judge


def load_identity(name: str, folder: str, referee: Path | None) -> IdentityJudge:
    """The identity judge ``name``, one of IDENTITY_JUDGES; otherwise as ``load_emotion``."""
    one_of("experts.identity", name, IDENTITY_JUDGES)
    if name == "referee":
        from affect_hpc.experts.referee import load_identity as load_referee  # noqa: PLC0415

        return load_referee(_given(referee))
    judge: IdentityJudge = _made(LOADERS[name], name, folder)
    return judge


def load_perceptual(name: str, folder: str) -> PerceptualDistance:
    """The perceptual distance ``name``: of PERCEPTUAL_DISTANCES or PERCEPTUAL_LOSSES; otherwise as ``load_emotion``."""
    one_of("experts.perceptual", name, dict.fromkeys(PERCEPTUAL_DISTANCES + PERCEPTUAL_LOSSES))
    if name in ("lpips", "lpips_vgg"):
        verified(name)
        from affect_hpc.experts.lpips_distance import load  # noqa: PLC0415

        return load(name)
    distance: PerceptualDistance = _made(LOADERS[name], name, folder)
    return distance


def load_features(name: str, folder: str) -> ImageFeatures:
    """The image features ``name``, one of FEATURES; otherwise as ``load_emotion``."""
    one_of("experts.features", name, FEATURES)
    features: ImageFeatures = _made(FEATURE_LOADERS[name], name, folder)
    return features


def _given(referee: Path | None) -> Path:
    if referee is None:
        raise UserError(
            "the judge 'referee' needs the output of stage train_referee, and this run has none as its parent."
        )
    return referee
