"""How sure a mean over samples is: bootstrap confidence intervals."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from affect_hpc.core.blocks import blocks
from affect_hpc.core.errors import UserError

DRAWS = 1000
NUMBERS_AT_ONCE = 2**22
"""How many indices are drawn at once: 32 MB."""


class Interval(NamedTuple):
    """The two ends of a confidence interval."""

    low: float
    high: float


def interval(
    values: Mapping[str, float | None],
    seed: int,
    share: float = 0.95,
    draws: int = DRAWS,
    counts: Mapping[str, int] | None = None,
) -> Interval | None:
    """Percentile interval of the mean (Efron and Tibshirani 1993, section 13.3).

    The samples are drawn again with replacement, as many as there are, ``draws`` times; the ends are the quantiles
    (1 - share) / 2 and (1 + share) / 2 of the means, linearly interpolated.

    Args:
        values: key of a sample -> its value; None (undefined for that sample) does not count. They are taken in the
            order of keys, so that the division into parts does not matter.
        seed: of the draws, 0 or more.
        share: of confidence, in (0, 1).
        draws: how often.
        counts: key -> how many values the sample's value is the mean of, where the mean over all of these is meant
            and samples differ in it.

    Returns:
        The interval; None where fewer than two values count, for one value does not show how it scatters.

    Raises:
        UserError: where share, seed or draws lie outside their ranges.
        ValueError: where a value is infinite or NaN.
    """
    if not 0 < share < 1:
        raise UserError(f"a confidence of {share} makes no interval: give a share between 0 and 1, such as 0.95.")
    if seed < 0 or draws < 1:
        raise UserError(f"cannot draw {draws} times from seed {seed}: draw once at least, from a seed of 0 or more.")
    keys = [key for key, value in sorted(values.items()) if value is not None]
    known = np.array([values[key] for key in keys], np.float64)
    weights = np.array([counts[key] if counts else 1 for key in keys], np.float64)
    if not np.isfinite(known).all():
        raise ValueError("values that are not finite numbers have no interval")
    if len(known) < 2:
        return None
    means = np.quantile(_means(known, weights, np.random.default_rng(seed), draws), [(1 - share) / 2, (1 + share) / 2])
    return Interval(float(means[0]), float(means[1]))


def paired_difference(
    a: Mapping[str, float | None], b: Mapping[str, float | None], seed: int, share: float = 0.95, draws: int = DRAWS
) -> Interval | None:
    """Interval of the mean of ``a - b`` over the same samples: what they have in common does not widen it.

    A sample counts where both values are known. Other arguments and errors as for ``interval``.

    Raises:
        UserError: where the two are not of the same samples.
    """
    alone = sorted(set(a) ^ set(b))
    if alone:
        raise UserError(
            f"{len(alone)} samples are on one side only, {alone[0]!r} among them: compare the same samples."
        )
    return interval({key: _minus(value, b[key]) for key, value in a.items()}, seed, share, draws)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _means(
    known: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], random: np.random.Generator, draws: int
) -> npt.NDArray[np.float64]:
    """(draws,) weighted means of values drawn with replacement."""
    count = len(known)
    found = []
    for part in blocks(draws, max(1, NUMBERS_AT_ONCE // count)):
        drawn = random.integers(count, size=(len(part), count))
        found.append((known * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1))
    return np.concatenate(found)
