"""Merging is exact: any order, any partition, the same bits."""

import json
import math
import random
from fractions import Fraction

import pytest

from affect_hpc.metrics.base import ExactSum, Mean, Shares


def nasty_values(rng: random.Random, count: int) -> list[float]:
    """Values of very different size that cancel: naive sums of them depend on the order."""
    values = []
    while len(values) < count:
        kind = rng.randrange(4)
        if kind == 0:
            values.append(rng.uniform(-1, 1))
        elif kind == 1:
            values.append(math.ldexp(rng.uniform(-1, 1), rng.randrange(-1070, 1000)))
        elif kind == 2 and values:
            values.append(-rng.choice(values))
        else:
            values.append(rng.choice([0.0, -0.0, 5e-324, 2.0**-1022, 1e16, 1.0, 0.1]))
    return values


def random_partition(rng: random.Random, values: list[float]) -> list[list[float]]:
    """The values, shuffled and cut into random parts, some of them empty."""
    shuffled = rng.sample(values, len(values))
    cuts = sorted(rng.randrange(len(values) + 1) for _ in range(rng.randrange(8)))
    return [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(values)], strict=True)]


@pytest.mark.parametrize("seed", range(60))
def test_merge_of_any_partition_is_the_whole(seed: int) -> None:
    rng = random.Random(seed)
    values = nasty_values(rng, rng.randrange(1, 60))
    whole = Mean.of(values)
    parts = [Mean.of(part) for part in random_partition(rng, values)]
    rng.shuffle(parts)
    while len(parts) > 1:  # merge two random parts at a time: any tree of merges
        parts.append(parts.pop(rng.randrange(len(parts))).merge(parts.pop(rng.randrange(len(parts)))))
    assert parts[0] == whole
    assert whole.total.compute() == math.fsum(values)
    assert whole.compute() == float(sum(map(Fraction, values)) / len(values))


def test_order_matters_for_naive_sums_but_not_here() -> None:
    values = [1e16, 1.0, -1e16]
    assert sum(values) != sum([1e16, -1e16, 1.0])
    assert ExactSum.of(values).compute() == 1.0 == ExactSum.of(reversed(values)).compute()


@pytest.mark.parametrize("seed", range(10))
def test_json_round_trip_is_exact(seed: int) -> None:
    rng = random.Random(seed)
    state = Mean.of(nasty_values(rng, 30))
    assert Mean.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_undefined_values_do_not_count() -> None:
    assert Mean.of([1.0, None, 2.0]).compute() == 1.5
    assert Mean.of([None]).compute() is None


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_not_a_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        ExactSum().add(value)


def test_shares_add_and_merge() -> None:
    a = Shares.over(["x", "y", "z"]).add("x").add("y")
    b = Shares.over(["x", "y", "z"]).add("x").add("x")
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).compute() == {"x": 0.75, "y": 0.25, "z": 0.0}
    assert Shares.from_json(json.loads(json.dumps(a.to_json()))) == a
    assert Shares.over(["x"]).compute() is None


def test_shares_refuse_other_classes() -> None:
    with pytest.raises(ValueError, match="unknown"):
        Shares.over(["x"]).add("w")
    with pytest.raises(ValueError, match="cannot merge"):
        Shares.over(["x"]).merge(Shares.over(["y"]))
