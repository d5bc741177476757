"""Keyed permutations: bijections, their inverses, and no trace of the key's neighbours."""

import numpy as np
import pytest

from affect_hpc.data.permutation import Permutation


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097])
def test_it_is_a_bijection_and_its_inverse_undoes_it(count: int) -> None:
    permutation = Permutation(count, b"key")
    everything = np.arange(count)
    shuffled = permutation(everything)
    np.testing.assert_array_equal(np.sort(shuffled), everything)
    np.testing.assert_array_equal(permutation.inverse(shuffled), everything)
    np.testing.assert_array_equal(permutation(permutation.inverse(everything)), everything)


def test_any_place_of_a_huge_domain_is_found_alone() -> None:
    count = 10**15
    permutation = Permutation(count, b"key")
    places = np.random.default_rng(0).integers(0, count, 200)
    things = permutation(places)
    assert things.min() >= 0 and things.max() < count and len(set(things.tolist())) == 200
    np.testing.assert_array_equal(permutation.inverse(things), places)
    np.testing.assert_array_equal([permutation(place[None])[0] for place in places], things)


def test_it_looks_like_chance() -> None:
    """Over 4000 keys each of 8 things stands at each place equally often: 5 standard deviations of a binomial."""
    tables = np.array([Permutation(8, f"{key}".encode())(np.arange(8)) for key in range(4000)])
    counts = np.stack([np.bincount(column, minlength=8) for column in tables.T])
    assert np.abs(counts - 500).max() < 5 * (4000 * (1 / 8) * (7 / 8)) ** 0.5
    neighbours = np.abs(np.diff(Permutation(10_000, b"key")(np.arange(10_000))))
    # The mean distance of two numbers drawn from 0 .. n-1 is n / 3; here 20 standard errors would be 1.4 %.
    assert abs(neighbours.mean() / (10_000 / 3) - 1) < 0.05


def test_it_is_kept_over_versions() -> None:
    # Written down once: another order would break the resumption of trainings in progress.
    assert Permutation(10, b"affect")(np.arange(10)).tolist() == [4, 8, 0, 1, 2, 5, 6, 9, 7, 3]


def test_places_outside_are_refused() -> None:
    permutation = Permutation(5, b"key")
    for outside in (-1, 5):
        with pytest.raises(IndexError, match="0 to 4"):
            permutation(np.array([0, outside]))
    with pytest.raises(ValueError, match="a permutation of 0 things"):
        Permutation(0, b"key")
