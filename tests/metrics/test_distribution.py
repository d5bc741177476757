"""FID, KID, precision and recall: closed forms, the reference implementation, and any division."""

import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from affect_hpc.core.errors import UserError
from affect_hpc.metrics import distribution
from affect_hpc.metrics.distribution import Moments, fid, frechet_distance, judge, kid, precision_recall
from affect_hpc.metrics.features import FeatureSet

JUDGE = {"name": "net", "digest": "ab" * 32}
Array = np.ndarray


def feature_set(features: Array, labels: Array | None = None) -> FeatureSet:
    keys = [f"k{i:06d}" for i in range(len(features))]
    return FeatureSet.of(JUDGE, keys, [0] * len(keys) if labels is None else labels, features.astype(np.float32))


def mixed(seed: int, count: int, dim: int, shift: float = 0.0) -> Array:
    """Correlated, positive, of very different sizes: as features of a network are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((dim, dim)) * np.geomspace(1, 0.01, dim)
    return np.maximum(rng.standard_normal((count, dim)) @ mixing + shift, 0).astype(np.float32)


def double(samples: FeatureSet) -> torch.Tensor:
    return torch.from_numpy(samples.features.astype(np.float64))


# FID


def test_fid_of_gaussians_is_the_closed_form() -> None:
    a, b = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.25])
    wanted = 5.0 + sum((math.sqrt(x) - math.sqrt(y)) ** 2 for x, y in zip(a, b, strict=True))
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    offset = turn @ np.array([1.0, 2.0, 0.0])
    got = frechet_distance(np.zeros(3), turn @ np.diag(a) @ turn.T, offset, turn @ np.diag(b) @ turn.T)
    assert got == pytest.approx(wanted, rel=1e-13)


def test_fid_where_covariances_do_not_commute() -> None:
    # tr sqrt(C1 C2) of 2 x 2 matrices is sqrt(tr(C1 C2) + 2 sqrt(det(C1 C2))).
    a, b = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[1.0, -0.5], [-0.5, 4.0]])
    product = a @ b
    root = math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
    got = frechet_distance(np.zeros(2), a, np.zeros(2), b)
    assert got == pytest.approx(np.trace(a) + np.trace(b) - 2 * root, rel=1e-13)


def test_fid_of_fewer_samples_than_features_has_no_noise() -> None:
    x, y = mixed(0, 30, 200).astype(np.float64), mixed(1, 40, 200, 0.1).astype(np.float64)
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    # The trace of the root is the sum of singular values of A B^T: no covariance, no noise.
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum() / math.sqrt(29 * 39)
    offset = x.mean(axis=0) - y.mean(axis=0)
    wanted = offset @ offset + (a**2).sum() / 29 + (b**2).sum() / 39 - 2 * root
    assert fid(feature_set(x), feature_set(y)) == pytest.approx(wanted, rel=1e-11)
    assert fid(feature_set(x), feature_set(x)) == pytest.approx(0, abs=1e-12 * (a**2).sum())


@pytest.mark.parametrize("dim", [8, 96])
def test_fid_agrees_with_torch_fidelity(dim: int) -> None:
    x, y = feature_set(mixed(0, 700, dim)), feature_set(mixed(1, 500, dim, 0.2))
    wanted = fid_statistics_to_metric(*(fid_features_to_statistics(double(s)) for s in (x, y)), verbose=False)
    assert fid(x, y) == pytest.approx(wanted["frechet_inception_distance"], rel=1e-6)
    assert fid(y, x) == pytest.approx(fid(x, y), rel=1e-9)


def test_moments_of_many_blocks_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = feature_set(mixed(0, 301, 20) + 1000)
    monkeypatch.setattr(distribution, "MOMENT_ROWS", 64)
    moments, exact = Moments.of(samples), samples.features.astype(np.float64)
    assert moments.mean == pytest.approx(exact.mean(axis=0), rel=1e-14)
    covariance = np.cov(exact, rowvar=False)
    assert np.abs(moments.covariance - covariance).max() < 1e-13 * np.abs(covariance).max()


# KID


def test_kid_agrees_with_torch_fidelity_to_its_draws() -> None:
    x, y = feature_set(mixed(0, 300, 32)), feature_set(mixed(1, 250, 32, 0.1))
    for seed in (2020, 7):
        wanted = kid_features_to_metric(
            double(x), double(y), kid_subsets=12, kid_subset_size=100, rng_seed=seed, verbose=False
        )
        got = kid(x, y, seed, 12, 100)
        assert got.mean == pytest.approx(wanted["kernel_inception_distance_mean"], rel=1e-6)
        assert got.std == pytest.approx(wanted["kernel_inception_distance_std"], rel=1e-6)
    assert kid(x, y, 2020, 12, 100) == kid(x, y, subsets=12, size=100) != kid(x, y, 7, 12, 100)


def test_kid_of_equal_distributions_is_zero_on_average() -> None:
    draws = np.random.default_rng(0)
    found = []
    for _ in range(400):
        x, y = draws.standard_normal((2, 20, 3))
        found.append(kid(feature_set(x), feature_set(y), subsets=1, size=20).mean)
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 4 * np.std(found) / 20
    # The biased estimate, with the diagonal, would lie far outside of that.
    diagonal = 2 * np.mean([(float(x @ x) / 3 + 1) ** 3 for x in draws.standard_normal((2000, 3))]) / 20
    assert diagonal > 10 * np.std(found) / 20


def test_kid_of_known_distributions_is_the_closed_form() -> None:
    # One feature, constantly a or b: kernels are (ab + 1)^3.
    x, y = feature_set(np.full((50, 1), 2.0)), feature_set(np.full((60, 1), 0.5))
    assert kid(x, y, subsets=3, size=50) == (pytest.approx(5.0**3 + 1.25**3 - 2 * 2.0**3, rel=1e-14), 0.0)


def test_kid_of_too_few_samples_is_refused() -> None:
    x, y = feature_set(mixed(0, 30, 4)), feature_set(mixed(1, 20, 4))
    with pytest.raises(UserError, match=r"subsets of 1000 samples, but of 30 generated and 20 real.*at most 20"):
        kid(x, y)
    with pytest.raises(UserError, match="subsets of 1 samples is undefined"):
        kid(x, y, size=1)


# Precision and recall


def on_line(*places: float) -> FeatureSet:
    return feature_set(np.array(places)[:, None])


def test_half_outside_and_the_border_belongs_to_the_ball() -> None:
    real = on_line(0, 1, 2, 3)  # k = 1: balls of radius 1, they cover [-1, 4]
    assert precision_recall(on_line(-1, 4, -1.01, 4.01), real, 1).precision == 0.5
    assert precision_recall(on_line(-2, 5, -2.01, 5.01), real, 2).precision == 0.5  # the outer radii are 2 now
    # Balls of the generated: (10, 10.5) reach 9.5 .. 11, nothing real in there.
    assert precision_recall(on_line(0.5, 10, 10.5), real, 1).recall == 1.0  # 0.5 reaches 10 and so all
    assert precision_recall(on_line(0.2, 0.4, 10, 10.5), real, 1).recall == 0.25
    assert precision_recall(on_line(0.2, 0.4, 10, 10.5), real, 1).precision == 0.5


def test_a_collapsed_generator_is_precise_and_recalls_nothing() -> None:
    real = feature_set(np.random.default_rng(0).standard_normal((200, 5)))
    inside = real.features[:1].repeat(700, axis=0)
    got = precision_recall(feature_set(inside), real, 3)
    assert got == (1.0, pytest.approx(1 / 200))
    assert precision_recall(real, real, 3) == (1.0, 1.0)
    same = feature_set(inside)
    assert precision_recall(same, same, 3) == (1.0, 1.0)


@pytest.mark.parametrize("strip", [1, 37, 512])
def test_precision_and_recall_agree_with_torch_fidelity(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "STRIP_ROWS", strip)
    x, y = feature_set(mixed(0, 260, 24)), feature_set(mixed(1, 300, 24, 0.15))
    for k in (1, 3, 8):
        wanted = prc_features_to_metric(
            double(x), double(y), prc_neighborhood=k, prc_batch_size=1000, save_cpu_ram=True, verbose=False
        )
        got = precision_recall(x, y, k)
        assert 0.1 < got.precision < 0.99
        assert got == (pytest.approx(wanted["precision"], rel=1e-6), pytest.approx(wanted["recall"], rel=1e-6))


def brute(x: Array, y: Array, k: int) -> tuple[float, float]:
    """Precision and recall in whole numbers."""
    whole = [[[int(v) for v in row] for row in s] for s in (x, y)]

    def gap(a: list[int], b: list[int]) -> int:
        return sum((u - v) ** 2 for u, v in zip(a, b, strict=True))

    def share(of: list[list[int]], by: list[list[int]]) -> float:
        reach = [sorted(gap(a, b) for j, b in enumerate(by) if j != i)[k - 1] for i, a in enumerate(by)]
        return sum(any(gap(a, b) <= r for b, r in zip(by, reach, strict=True)) for a in of) / len(of)

    return share(whole[0], whole[1]), share(whole[1], whole[0])


@pytest.mark.parametrize("seed", range(4))
def test_ties_and_duplicates_are_decided_exactly(seed: int) -> None:
    draws = np.random.default_rng(seed)
    x, y = (draws.integers(0, 4, (count, 5)) for count in (60, 45))
    x[draws.random(60) < 0.5, 0] += 3
    wanted = brute(x, y, 2)
    assert 0.1 < min(wanted) < 0.95

    def far(rows: Array) -> FeatureSet:
        # 2^23 in 600 dimensions: a float64 of their squares is a multiple of 8, the gaps here are 1, 2, 3 ...
        return feature_set(np.pad(rows, ((0, 0), (0, 595))) + 2**23)

    assert precision_recall(far(x), far(y), 2) == pytest.approx(wanted)


THREADS = """
import sys
import numpy as np
from pathlib import Path
from affect_hpc.metrics.distribution import precision_recall
from affect_hpc.metrics.features import FeatureSet
x, y = (FeatureSet.load([Path(sys.argv[1])], name) for name in "xy")
print(*precision_recall(x, y, 1))
"""


def test_threads_do_not_change_the_shares(tmp_path: Path) -> None:
    # Pairs of real samples at -1 and 1 along an axis, far from each other and from the origin, so that their balls
    # reach to -3 and 3. Products of this size cannot tell 3 from that, and round differently with two threads.
    places = np.random.default_rng(3).integers(2**22, 2**23, (300, 1000))
    step = np.eye(1000, dtype=np.int64)[:300]
    feature_set(np.concatenate([places - step, places + step])).save(tmp_path, "y")
    feature_set(places + step * np.array([3, 4])[np.arange(300) % 2, None]).save(tmp_path, "x")
    said = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", THREADS, str(tmp_path)]
        said.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert said == {"0.5 1.0\n"}


def test_too_few_samples_for_neighbours_are_refused() -> None:
    x, y = feature_set(mixed(0, 30, 4)), feature_set(mixed(1, 3, 4))
    with pytest.raises(UserError, match=r"30 generated and 3 real samples not all have a neighbour number 3.*1 to 2"):
        precision_recall(x, y)
    with pytest.raises(UserError, match="number 0"):
        precision_recall(x, y, 0)


# All together


@pytest.mark.parametrize("seed", range(3))
def test_any_division_gives_the_same_bits(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    x, y = feature_set(mixed(0, 150, 12)), feature_set(mixed(1, 130, 12, 0.2))
    parts: list[list[int]] = [[] for _ in range(rng.randrange(2, 6))]
    for i in rng.sample(range(150), 150):
        rng.choice(parts).append(i)
    for number, rows in enumerate(parts):
        one = FeatureSet.of(JUDGE, [x.keys[i] for i in rows], x.labels[rows], x.features[rows])
        one.save(tmp_path / str(number), "seen")
    merged = FeatureSet.load([tmp_path / str(i) for i in rng.sample(range(len(parts)), len(parts))], "seen")
    assert fid(merged, y) == fid(x, y)
    assert kid(merged, y, subsets=3, size=40) == kid(x, y, subsets=3, size=40)
    assert precision_recall(merged, y) == precision_recall(x, y)


def test_rows_of_classes_and_overall() -> None:
    x = feature_set(mixed(0, 90, 6), np.arange(90) % 2)
    y = feature_set(mixed(1, 120, 6, 0.3), (np.arange(120) % 4 == 0).astype(int))
    rows = judge(x, y, {0: "neutral", 1: "happy"}, real_per_class=25, subsets=4, size=20)
    assert [(row["name"], row["n"], row["n_real"]) for row in rows] == [
        ("neutral", 45, 90),
        ("happy", 45, 30),
        ("overall", 90, 50),
    ]
    happy = x.of_label(1), y.of_label(1)
    assert rows[1]["fid"] == fid(*happy)
    assert (rows[1]["kid"], rows[1]["kid_std"]) == kid(*happy, subsets=4, size=20)
    assert rows[2]["fid"] == fid(x, y.first(25)) != fid(x, y)
    with pytest.raises(UserError, match="label 1 has no name: the labels named are 0"):
        judge(x, y, {0: "neutral"})
    with pytest.raises(UserError, match="no sample has label 2"):
        judge(x, y, {0: "neutral", 1: "happy", 2: "sad"}, subsets=1, size=20)


def test_two_judges_are_no_comparison() -> None:
    x = feature_set(mixed(0, 10, 4))
    other = FeatureSet.of({**JUDGE, "digest": "cd"}, x.keys, x.labels, x.features)
    for compare in (fid, kid, precision_recall):
        with pytest.raises(UserError, match="compute both with one network"):
            compare(x, other)
    with pytest.raises(UserError, match="1 samples have no covariance"):
        fid(x, feature_set(mixed(0, 1, 4)))
    with pytest.raises(ValueError, match="do not fit"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
