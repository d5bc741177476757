"""The frozen judges by name. All are in eval mode, need no gradient of their own and see whole crops.

With one CPU thread every judge gives the same bits for the same batch.
"""

import importlib
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from affect_hpc.config.available import (
    EMOTION_JUDGES,
    IDENTITY_JUDGES,
    PERCEPTUAL_DISTANCES,
    PERCEPTUAL_LOSSES,
)
from affect_hpc.config.checks import one_of
from affect_hpc.config.packaged import verified
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


MODULES = {
    "face_api": "face_api",
    "py_feat": "py_feat",
    "mobileface": "mobileface",
    "dlib": "dlib_identity",
    "efficientnet_lite0": "efficientnet",
}


def _packaged(name: str, folder: str) -> Any:
    # Imported when asked for: each network brings its own library.
    module = importlib.import_module(f"affect_hpc.experts.{MODULES[name]}")
    return module.load(verified(name, folder))


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
    judge: EmotionJudge = _packaged(name, folder)
    return judge


def load_identity(name: str, folder: str, referee: Path | None) -> IdentityJudge:
    """The identity judge ``name``, one of IDENTITY_JUDGES; otherwise as ``load_emotion``."""
    one_of("experts.identity", name, IDENTITY_JUDGES)
    if name == "referee":
        from affect_hpc.experts.referee import load_identity as load_referee  # noqa: PLC0415

        return load_referee(_given(referee))
    judge: IdentityJudge = _packaged(name, folder)
    return judge


def load_perceptual(name: str, folder: str) -> PerceptualDistance:
    """The perceptual distance ``name``: of PERCEPTUAL_DISTANCES or PERCEPTUAL_LOSSES; otherwise as ``load_emotion``."""
    one_of("experts.perceptual", name, dict.fromkeys(PERCEPTUAL_DISTANCES + PERCEPTUAL_LOSSES))
    if name in ("lpips", "lpips_vgg"):
        verified(name)
        from affect_hpc.experts.lpips_distance import load  # noqa: PLC0415

        return load(name)
    distance: PerceptualDistance = _packaged(name, folder)
    return distance


def _given(referee: Path | None) -> Path:
    if referee is None:
        raise UserError(
            "the judge 'referee' needs the output of stage train_referee, and this run has none as its parent."
        )
    return referee
