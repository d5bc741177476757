"""How far a set of images is from another as a whole: FID, KID, precision and recall of features.

All arithmetic is float64, on samples in the order of their keys and in blocks of fixed size: the figures do not depend
on how the features were divided. FID and KID follow the rounding of matrix products, which may change in the last
digits with the number of threads; precision and recall are the same for any.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from affect_hpc.core.blocks import blocks
from affect_hpc.core.errors import UserError
from affect_hpc.metrics.features import FeatureSet, Float32
from affect_hpc.metrics.nearest import Float64, approximate, squared_distances

MOMENT_ROWS = 2048
STRIP_ROWS = 512
"""Rows of a strip of distances: 41 MB of them to 10,000 samples."""

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (D,) and covariance (D, D) of features, float64, the latter over n - 1."""

    mean: Float64
    covariance: Float64

    @classmethod
    def of(cls, samples: FeatureSet) -> "Moments":
        """The moments of a set, in two passes: centred first, so that large means cost no digits.

        Raises:
            UserError: where there are fewer than two samples.
        """
        count, features = len(samples), samples.features
        if count < 2:
            raise UserError(
                f"{count} samples have no covariance: FID needs 2 at least, and many more to mean something."
            )
        parts = [slice(rows.start, rows.stop) for rows in blocks(count, MOMENT_ROWS)]
        mean = np.zeros(features.shape[1])
        for rows in parts:
            mean += features[rows].sum(axis=0, dtype=np.float64)
        mean /= count
        products = np.zeros((len(mean), len(mean)))
        for rows in parts:
            centred = features[rows] - mean
            products += centred.T @ centred
        return cls(mean, products / (count - 1))


def frechet_distance(mean_1: Float64, covariance_1: Float64, mean_2: Float64, covariance_2: Float64) -> float:
    """Squared Frechet distance of two Gaussians (Heusel et al. 2017, Eq. 6); 0 where they are equal.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). With C1 = L L^T the product C1 C2 has the eigenvalues of the symmetric
    L^T C2 L besides zeros: two symmetric problems, whose eigenvalues are real and exact to rounding.

    Args:
        mean_1, mean_2: (D,).
        covariance_1, covariance_2: (D, D), symmetric, no negative eigenvalues.

    Raises:
        ValueError: where the shapes disagree.
    """
    if not (mean_1.shape == mean_2.shape and covariance_1.shape == covariance_2.shape == 2 * mean_1.shape):
        raise ValueError(
            f"means of {mean_1.shape}, {mean_2.shape} do not fit {covariance_1.shape}, {covariance_2.shape}"
        )
    values, vectors = np.linalg.eigh(covariance_1)
    # Directions below rounding carry noise alone, whose root would be far above it: a covariance of fewer samples
    # than features is full of them.
    kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
    root = vectors[:, kept] * np.sqrt(values[kept])
    shared = np.linalg.eigvalsh(root.T @ covariance_2 @ root).clip(min=0.0)
    offset = mean_1 - mean_2
    traces = np.trace(covariance_1) + np.trace(covariance_2)
    return float(offset @ offset + traces - 2 * np.sqrt(shared).sum())


def fid(generated: FeatureSet, real: FeatureSet) -> float:
    """Frechet Inception Distance (Heusel et al. 2017), if the features are Inception's; smaller is better.

    Raises:
        UserError: where the judges differ or a set has fewer than two samples.
    """
    _same_judge(generated, real)
    a, b = Moments.of(generated), Moments.of(real)
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


class Kid(NamedTuple):
    """Mean and standard deviation (over all subsets, not one less) of the squared MMD of subsets."""

    mean: float
    std: float


def kid(generated: FeatureSet, real: FeatureSet, seed: int = 2020, subsets: int = 100, size: int = 1000) -> Kid:
    """Kernel Inception Distance (Binkowski et al. 2018, section 4): unbiased, so it may fall below 0.

    The kernel is (x.y / D + 1)^3. Subsets are drawn as torch-fidelity 0.4 does, whose seed is 2020.

    Args:
        generated, real: features, at least ``size`` samples each.
        seed: of the draws.
        subsets: how many.
        size: samples of a subset, 2 or more.

    Raises:
        UserError: where the judges differ or a set is smaller than a subset.
    """
    _same_judge(generated, real)
    if subsets < 1 or size < 2:
        raise UserError(f"KID of {subsets} subsets of {size} samples is undefined: take 1 subset of 2 at least.")
    fewest = min(len(generated), len(real))
    if fewest < size:
        raise UserError(
            f"KID draws subsets of {size} samples, but of {len(generated)} generated and {len(real)} real ones: take"
            f" more samples, or subsets of at most {fewest}."
        )
    draws = np.random.RandomState(seed)
    found = np.empty(subsets)
    for i in range(subsets):
        x = generated.features[draws.choice(len(generated), size, replace=False)].astype(np.float64)
        y = real.features[draws.choice(len(real), size, replace=False)].astype(np.float64)
        found[i] = _squared_mmd(x, y)
    return Kid(float(found.mean()), float(found.std()))


def _squared_mmd(x: Float64, y: Float64) -> float:
    """Unbiased squared MMD of two sets of one size (Gretton et al. 2012, Eq. 3)."""
    count = len(x)
    # The kernel of a sample with itself would bias the estimate: it is left out within a set.
    within = sum(float(own.sum() - np.trace(own)) for own in (_kernel(x, x), _kernel(y, y)))
    return within / (count * (count - 1)) - 2 * float(_kernel(x, y).mean())


def _kernel(x: Float64, y: Float64) -> Float64:
    inner: Float64 = x @ y.T / x.shape[1] + 1
    # Products, for NumPy's power is twenty times slower.
    return inner * inner * inner


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]: generated samples that look real, real samples that could have been generated."""

    precision: float
    recall: float


def precision_recall(generated: FeatureSet, real: FeatureSet, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019, Eq. 1 and 2).

    A set covers a sample that lies in the ball around one of its members that reaches to that member's k-th nearest
    other member; the border belongs to the ball. Distances are those of ``squared_distances``: the shares depend on
    neither blocks nor threads. torch-fidelity takes float32 distances from a matrix product, whose errors may turn
    single samples on a border; on the same float64 features the two agree.

    Args:
        generated, real: features, more than k samples each; memory beside them grows with their number alone.
        k: 1 or more; 3 in the paper.

    Raises:
        UserError: where the judges differ or a set has no k-th neighbour.
    """
    _same_judge(generated, real)
    fewest = min(len(generated), len(real))
    if not 1 <= k < fewest:
        raise UserError(
            f"of {len(generated)} generated and {len(real)} real samples not all have a neighbour number {k}: take"
            f" more samples, or k from 1 to {fewest - 1}."
        )
    x, y = generated.features, real.features
    reach_x, reach_y = _reach(x, k), _reach(y, k)
    like_real, like_generated = np.zeros(len(x), np.bool_), np.zeros(len(y), np.bool_)
    for part in blocks(len(x), STRIP_ROWS):
        rows = slice(part.start, part.stop)
        distances, error = approximate(x[rows], y)
        like_real[rows] = _covered(distances, error[:, None], x[rows], y, reach_y)
        open_ = np.flatnonzero(~like_generated)
        columns = np.ascontiguousarray(distances[:, open_].T)
        like_generated[open_] = _covered(columns, error, y[open_], x[rows], reach_x[rows])
    return PrecisionRecall(float(like_real.mean()), float(like_generated.mean()))


def _reach(x: Float32, k: int) -> Float64:
    """(n,) squared distance of each row to its k-th nearest other one."""
    reach = np.empty(len(x))
    for part in blocks(len(x), STRIP_ROWS):
        rows = np.arange(part.start, part.stop)
        distances, error = approximate(x[rows], x)
        distances[rows - part.start, rows] = np.inf
        nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
        exact = _pairs(x, np.repeat(rows, k), nearest.ravel()).reshape(-1, k)
        bound = exact.max(axis=1)
        # Others that may be nearer than the k found: hardly any, unless distances tie. None is nearer than 0.
        np.put_along_axis(distances, nearest, np.inf, axis=1)
        doubt = (distances - error[:, None] < bound[:, None]) & (bound[:, None] > 0)
        for i in np.flatnonzero(doubt.any(axis=1)):
            others = np.flatnonzero(doubt[i])
            more = _pairs(x, np.full(len(others), rows[i]), others)
            bound[i] = np.partition(np.concatenate([exact[i], more]), k - 1)[k - 1]
        reach[rows] = bound
    return reach


def _pairs(x: Float32, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]) -> Float64:
    """Squared distances of rows of ``x``, a few thousand pairs at once."""
    parts = [slice(part.start, part.stop) for part in blocks(len(first), STRIP_ROWS)]
    return np.concatenate([squared_distances(x[first[part]], x[second[part]]) for part in parts])


def _covered(distances: Float64, error: Float64, x: Float32, y: Float32, reach: Float64) -> Bool:
    """(n,) which rows of ``x`` lie within ``reach`` (m,) of a row of ``y``.

    ``distances`` (n, m) are approximate, by at most ``error``; pairs too near to the border are measured directly.
    """
    beyond = distances - reach
    inside: Bool = np.asarray((beyond < -error).any(axis=1))
    doubt: Bool = (np.abs(beyond) <= error) & ~inside[:, None]
    # One pair of each row in doubt at a time: mostly one will do, even if all samples are the same.
    while len(rows := np.flatnonzero(doubt.any(axis=1))):
        columns = doubt[rows].argmax(axis=1)
        doubt[rows, columns] = False
        within = squared_distances(x[rows], y[columns]) <= reach[columns]
        inside[rows[within]] = True
        doubt[rows[within]] = False
    return inside


def judge(
    generated: FeatureSet,
    real: FeatureSet,
    names: Mapping[int, str],
    real_per_class: int | None = None,
    seed: int = 2020,
    subsets: int = 100,
    size: int = 1000,
) -> list[dict[str, Any]]:
    """FID and KID of each class and of all together (thesis table 4.1).

    Args:
        generated, real: features of one network, each with samples of every class.
        names: label -> name of the row, in the order of the rows.
        real_per_class: how many real samples of each class the last row takes, so that frequent classes do not rule
            it; None takes all. The rows of classes always take all.
        seed, subsets, size: as for ``kid``.

    Returns:
        A row for each class and one named ``overall``: name, fid, kid, kid_std, n (generated) and n_real.

    Raises:
        UserError: where a class has no samples or too few, there are classes without a name, or judges differ.
    """
    rows = []
    for name, ours, theirs in _comparisons(generated, real, names, real_per_class):
        distance = kid(ours, theirs, seed, subsets, size)
        figures = {"fid": fid(ours, theirs), "kid": distance.mean, "kid_std": distance.std}
        rows.append({"name": name, **figures, "n": len(ours), "n_real": len(theirs)})
    return rows


def coverage(
    generated: FeatureSet, real: FeatureSet, names: Mapping[int, str], real_per_class: int | None = None, k: int = 3
) -> list[dict[str, Any]]:
    """Precision and recall of the rows of ``judge``; arguments and errors as there and for ``precision_recall``."""
    rows = []
    for name, ours, theirs in _comparisons(generated, real, names, real_per_class):
        rows.append({"name": name, **precision_recall(ours, theirs, k)._asdict()})
    return rows


def _comparisons(
    generated: FeatureSet, real: FeatureSet, names: Mapping[int, str], real_per_class: int | None
) -> Iterator[tuple[str, FeatureSet, FeatureSet]]:
    """Name of a row, and the two sets that it compares; a class at a time, for they are large."""
    _same_judge(generated, real)
    nameless = sorted({*np.unique(generated.labels).tolist(), *np.unique(real.labels).tolist()} - set(names))
    if nameless:
        raise UserError(
            f"label {nameless[0]} has no name: the labels named are {', '.join(map(str, names))}; name all."
        )
    for label, name in names.items():
        yield name, generated.of_label(label), real.of_label(label)
    yield "overall", generated, real if real_per_class is None else real.first(real_per_class)


def _same_judge(generated: FeatureSet, real: FeatureSet) -> None:
    if dict(generated.judge) != dict(real.judge) or generated.features.shape[1] != real.features.shape[1]:
        raise UserError(
            f"the generated samples were seen by {dict(generated.judge)} ({generated.features.shape[1]} features), the"
            f" real ones by {dict(real.judge)} ({real.features.shape[1]}): compute both with one network."
        )
