"""Nearest neighbours against brute force; any division of the candidates gives the same bits."""

import json
import random

import numpy as np
import pytest

from affect_hpc.core.errors import UserError
from affect_hpc.metrics import nearest
from affect_hpc.metrics.nearest import Block, Neighbours, approximate, squared_distances

Array = np.ndarray


def ties(rng: np.random.Generator, count: int) -> Array:
    """Vectors on a coarse grid, many of them equal or equally far."""
    return rng.integers(0, 3, (count, 4)).astype(np.float32)


def awkward(rng: np.random.Generator, count: int) -> Array:
    """Vectors far from the origin whose distances differ in the last digits only: products round them away."""
    base = np.full((count, 300), 8192, np.float32)
    return base + rng.integers(0, 2, base.shape).astype(np.float32) * np.float32(2**-10)


def pixels(rng: np.random.Generator, count: int) -> Array:
    return rng.integers(0, 256, (count, 48), np.uint8)


KINDS = [ties, awkward, pixels]


def brute(queries: Block, candidates: Block, k: int) -> dict[str, tuple[tuple[float, str], ...]]:
    """All distances as integers or exact binary fractions, sorted."""
    best = {}
    for query, vector in zip(queries.keys, queries.vectors, strict=True):
        gaps = (candidates.vectors.astype(np.float64) - vector.astype(np.float64)) * 2**10
        distances = [sum(int(gap) ** 2 for gap in row) / 2**20 for row in gaps]
        best[query] = tuple(sorted(zip(distances, candidates.keys, strict=True))[:k])
    return best


def world(kind: object, seed: int) -> tuple[Block, Block]:
    rng = np.random.default_rng(seed)
    names = [f"c{i:03d}" for i in rng.permutation(150)]
    return Block([f"q{i}" for i in range(4)], kind(rng, 4)), Block(names, kind(rng, 150))  # type: ignore[operator]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 10, 200])
def test_brute_force_agrees(kind: object, k: int) -> None:
    queries, candidates = world(kind, 0)
    found = Neighbours.none(k, queries.keys).add(queries, candidates)
    assert found.best == brute(queries, candidates, k)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_any_division_gives_the_same_bits(kind: object, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    queries, candidates = world(kind, seed)
    once = Neighbours.none(7, queries.keys).add(queries, candidates)
    monkeypatch.setattr(nearest, "CANDIDATES_AT_ONCE", rng.choice([1, 5, 64]))
    parts = [Neighbours.none(7, queries.keys) for _ in range(rng.randrange(1, 7))]
    order = rng.sample(range(150), 150)
    while order:
        count = rng.randrange(1, 40)
        rows, order = order[:count], order[count:]
        i = rng.randrange(len(parts))
        block = Block([candidates.keys[j] for j in rows], candidates.vectors[rows])
        turned = rng.sample(range(4), 4)
        asked = Block([queries.keys[j] for j in turned], queries.vectors[turned])
        parts[i] = parts[i].add(asked, block)
    while len(parts) > 1:  # any tree of merges
        a, b = parts.pop(rng.randrange(len(parts))), parts.pop(rng.randrange(len(parts)))
        assert a.merge(b) == b.merge(a)
        parts.append(Neighbours.from_json(json.loads(json.dumps(a.merge(b).to_json()))))
    assert json.dumps(parts[0].to_json(), sort_keys=True) == json.dumps(once.to_json(), sort_keys=True)


def test_a_distance_is_of_its_pair_alone_and_symmetric() -> None:
    rng = np.random.default_rng(0)
    for dim in (1, 3, 130, 9000):
        a, b = rng.standard_normal((2, 40, dim))
        together = squared_distances(a, b)
        assert together.tolist() == [squared_distances(a[i : i + 1], b[i : i + 1])[0] for i in range(40)]
        assert together.tolist() == squared_distances(b, a).tolist()
        strided = np.asfortranarray(a), np.asfortranarray(b)
        assert together.tolist() == squared_distances(*strided).tolist()
        assert together == pytest.approx(((a - b) ** 2).sum(axis=1), rel=1e-13)


def test_the_bound_holds_and_is_narrow() -> None:
    rng = np.random.default_rng(1)
    for scale in (1e-3, 1, 1e6):
        a, b = 100 + scale * rng.standard_normal((20, 700)), 100 + scale * rng.standard_normal((30, 700))
        distances, error = approximate(a, b)
        exact = np.stack([squared_distances(np.broadcast_to(row, b.shape), b) for row in a])
        assert (np.abs(distances - exact) <= error[:, None]).all()
        assert (error < 1e-11 * ((a**2).sum() + (b**2).sum())).all()


def test_the_product_alone_would_not_do() -> None:
    queries, candidates = world(awkward, 0)
    distances, _ = approximate(queries.vectors, candidates.vectors)
    naive = [candidates.keys[int(i)] for i in distances.argmin(axis=1)]
    exact = [best[0][1] for best in brute(queries, candidates, 1).values()]
    assert naive != exact


def test_two_candidates_of_one_key_are_refused() -> None:
    queries = Block(["q"], np.zeros((1, 1)))
    state = Neighbours.none(3, ["q"])
    with pytest.raises(UserError, match="share the key 'a'"):
        state.add(queries, Block(["a", "b", "a"], np.array([[1.0], [2.0], [1.0]])))
    one = state.add(queries, Block(["a"], np.array([[1.0]])))
    assert one.merge(one) == one
    with pytest.raises(UserError, match="share the key 'a'"):
        one.add(queries, Block(["a"], np.array([[2.0]])))


def test_wrong_input_is_told() -> None:
    with pytest.raises(UserError, match="0 neighbours"):
        Neighbours.none(0, ["q"])
    with pytest.raises(UserError, match="1 queries come twice"):
        Neighbours.none(1, ["q", "q"])
    queries, state = Block(["q"], np.zeros((1, 2))), Neighbours.none(1, ["q"])
    with pytest.raises(UserError, match="no distance to candidates"):
        state.add(queries, Block(["a"], np.zeros((1, 3))))
    with pytest.raises(ValueError, match="not finite"):
        state.add(queries, Block(["a"], np.array([[np.nan, 0]])))
    with pytest.raises(ValueError, match="not the queries"):
        state.add(Block(["p"], np.zeros((1, 2))), Block(["a"], np.zeros((1, 2))))
    with pytest.raises(ValueError, match="cannot merge"):
        state.merge(Neighbours.none(2, ["q"]))
