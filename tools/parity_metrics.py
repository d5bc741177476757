"""The kinds of cases of metrics: features of two sets, pairs of images, pairs of embeddings."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from parity_folder import Case
from torch import Tensor

from affect_hpc.core.errors import UserError
from affect_hpc.experts.registry import load_perceptual
from affect_hpc.metrics import paired
from affect_hpc.metrics.distribution import fid, kid, precision_recall
from affect_hpc.metrics.features import FeatureSet


@dataclass(frozen=True)
class Metric:
    """Cases that are computed alike.

    Args:
        result: last part of their names.
        optional: settings of their names.
    """

    result: str
    compute: Callable[[Case], float | list[float]]
    optional: frozenset[str] = frozenset()

    def has(self, case: Case) -> bool:
        """Whether a case is of this kind."""
        return case.what == self.result and case.settings.keys() <= self.optional

    def tensor(self, case: Case) -> Tensor:
        """What is computed, in float64: a single number, or one for each pair."""
        return torch.tensor(self.compute(case), dtype=torch.float64)


def _features(case: Case) -> tuple[FeatureSet, FeatureSet]:
    generated = case.floats("features_generated", (None, None), "shape (n, D)")
    real = case.floats("features_real", (None, generated.shape[1]), f"shape (n, {generated.shape[1]})")
    return _set(case, "features_generated", generated), _set(case, "features_real", real)


def _set(case: Case, name: str, features: Tensor) -> FeatureSet:
    if not bool(features.isfinite().all()):
        raise UserError(f"{case.folder.file}: {name} holds a number that is not finite: mend it.")
    keys = [f"{row:09d}" for row in range(len(features))]  # in the order of rows: KID draws by place
    return FeatureSet.of({"name": "reference"}, keys, [0] * len(keys), np.asarray(features.numpy(), np.float32))


def _kid(case: Case) -> float:
    seed, subsets, size = case.whole("seed", 2020), case.whole("subsets", 100), case.whole("size", 1000)
    found = kid(*_features(case), seed, subsets, size)
    return found.std if case.what == "kid_std" else found.mean


def _share(case: Case) -> float:
    found = precision_recall(*_features(case), case.whole("k", 3))
    return found.precision if case.what == "precision" else found.recall


def _images(case: Case) -> tuple[Tensor, Tensor]:
    """Two batches (B, 3, H, W) float64 in [0, 1]; uint8 ones are (B, H, W, 3)."""
    pair = []
    for what in ("image_a", "image_b"):
        name, images = case.given(what)
        if images.dtype == torch.uint8:
            if images.ndim != 4 or images.shape[3] != 3 or not images.numel():
                raise case.unfit(name, images, "bytes of shape (B, H, W, 3)")
            pair.append(paired.unit_range(list(images.numpy())))
            continue
        images = case.floats(what, (None, 3, None, None), "shape (B, 3, H, W)").double()
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"{case.folder.file}: {name} goes from {low:g} to {high:g}, but images of pairs lie in [0, 1]."
            )
        pair.append(images)
    if pair[0].shape != pair[1].shape:
        raise case.unfit("image_b", case.given("image_b")[1], f"the size of image_a ({tuple(pair[0].shape)})")
    return pair[0], pair[1]


def _ssim(case: Case) -> list[float]:
    a, b = _images(case)
    if min(a.shape[2:]) < 11:
        raise case.unfit("image_a", a, "at least 11 px a side, its window")
    return paired.ssim(a, b)


def _perceptual(case: Case) -> list[float]:
    a, b = (2 * images.float() - 1 for images in _images(case))
    with torch.inference_mode(False), torch.no_grad():
        distances: list[float] = load_perceptual(case.what, "").distance(a, b).double().tolist()
    return distances


def _cosine(case: Case) -> list[float]:
    a = case.floats("embedding_a", (None, None), "shape (B, D)")
    return paired.cosine(a, case.floats("embedding_b", tuple(a.shape), f"shape {tuple(a.shape)}"))


METRICS = (
    Metric("fid", lambda case: fid(*_features(case))),
    Metric("kid", _kid, frozenset({"seed", "subsets", "size"})),
    Metric("kid_std", _kid, frozenset({"seed", "subsets", "size"})),
    Metric("precision", _share, frozenset({"k"})),
    Metric("recall", _share, frozenset({"k"})),
    Metric("psnr", lambda case: paired.psnr(*_images(case))),
    Metric("ssim", _ssim),
    Metric("lpips", _perceptual),
    Metric("lpips_vgg", _perceptual),
    Metric("csim", _cosine),
)
