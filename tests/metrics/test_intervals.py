"""Bootstrap intervals: they cover, they narrow with the root of n, and they do not know the order of samples."""

import math
import random

import numpy as np
import pytest

from affect_hpc.core.errors import UserError
from affect_hpc.metrics import intervals
from affect_hpc.metrics.intervals import interval, paired_difference


def values(seed: int, count: int) -> dict[str, float | None]:
    return {f"k{i:05d}": float(x) for i, x in enumerate(np.random.default_rng(seed).normal(3, 2, count))}


def test_the_order_of_samples_does_not_matter_but_the_seed_does() -> None:
    sample = values(0, 50)
    shuffled = dict(random.Random(1).sample(sorted(sample.items()), 50))
    assert list(shuffled) != list(sample)
    assert interval(shuffled, 5) == interval(sample, 5) != interval(sample, 6)


def test_undefined_values_do_not_count() -> None:
    sample = values(0, 50)
    assert interval({**sample, "k00000x": None, "a": None}, 5) == interval(sample, 5)
    assert interval({"a": 1.0, "b": None}, 5) is None
    assert interval({}, 5) is None


def test_the_true_mean_is_covered_as_often_as_promised() -> None:
    hits = sum(low <= 3 <= high for low, high in (interval(values(i, 60), i, 0.9, 400) or (0, 0) for i in range(300)))
    # 270 are due, with a standard deviation of 5; of 60 samples the percentile interval is a little short.
    assert 250 <= hits <= 284


def test_the_width_is_that_of_the_normal_law_and_falls_with_the_root_of_n() -> None:
    for count in (400, 6400):
        low, high = interval(values(1, count), 0, draws=4000) or (0, 0)
        assert high - low == pytest.approx(2 * 1.96 * 2 / math.sqrt(count), rel=0.12)


def test_a_greater_share_is_wider_and_constants_have_no_width() -> None:
    narrow, wide = interval(values(0, 50), 0, 0.5), interval(values(0, 50), 0, 0.99)
    assert narrow and wide
    assert wide.low < narrow.low < narrow.high < wide.high
    assert interval({"a": 2.5, "b": 2.5, "c": 2.5}, 0) == (2.5, 2.5)


def test_ends_are_quantiles_of_means_of_draws() -> None:
    sample = {"b": 4.0, "a": 1.0, "c": 9.0}
    known = np.array([1.0, 4.0, 9.0])
    draws = np.random.default_rng(7)
    means = sorted(float(known[draws.integers(3, size=3)].mean()) for _ in range(21))
    assert interval(sample, 7, 0.8, 21) == (means[2], means[18])  # 0.1 and 0.9 of 20 steps


def test_blocks_of_draws_cover_all(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = values(0, 50)
    once = interval(sample, 5)
    monkeypatch.setattr(intervals, "NUMBERS_AT_ONCE", 70)
    assert interval(sample, 5) == once


def test_a_paired_difference_is_sure_of_what_two_means_are_not() -> None:
    a = values(0, 80)
    shift = values(1, 80)
    b = {key: (a[key] or 0) - 0.5 + 0.01 * (shift[key] or 0) for key in a}
    difference = paired_difference(a, b, 0)
    alone = interval(a, 0)
    assert difference and alone
    assert 0.45 < difference.low < difference.high < 0.5
    assert difference.high - difference.low < 0.05 * (alone.high - alone.low)
    assert paired_difference({**a, "x": None}, {**b, "x": 7.0}, 0) == difference
    with pytest.raises(UserError, match="1 samples are on one side only, 'x' among them"):
        paired_difference({**a, "x": 1.0}, b, 0)


@pytest.mark.parametrize(("share", "seed", "draws"), [(0, 0, 10), (1, 0, 10), (0.9, -1, 10), (0.9, 0, 0)])
def test_wrong_input_is_told(share: float, seed: int, draws: int) -> None:
    with pytest.raises(UserError, match=r"a confidence of|cannot draw"):
        interval({"a": 1.0, "b": 2.0}, seed, share, draws)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        interval({"a": math.nan, "b": 2.0}, 0)
