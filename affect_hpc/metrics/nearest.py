"""The nearest of many candidates, exact to the bit whatever the candidates were divided into.

Two ways to a squared L2 distance meet here. One matrix product gives those of all pairs of two sets quickly, but how
it rounds depends on its size and on the number of threads. The direct sum of squared differences is a function of its
pair alone, but slow. So the product only sorts out what cannot be meant, by a bound on its error that always holds;
what is left is measured directly, and nothing but direct distances is compared, kept or written.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from affect_hpc.core.blocks import blocks
from affect_hpc.core.errors import UserError

Float64 = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.generic]
"""Rows of numbers of any type that float64 holds exactly: uint8 pixels, float32 features."""

CANDIDATES_AT_ONCE = 1024
NUMBERS_AT_ONCE = 2**22
"""How many float64 a temporary array of vectors may hold: 32 MB."""


def squared_distances(a: Vectors, b: Vectors) -> Float64:
    """Squared L2 distance of each pair a[i], b[i], float64: a function of that pair alone, and symmetric in it.

    Args:
        a, b: (n, D).

    Returns:
        (n,). NumPy sums the squares of a row in an order that hangs on D alone; for integers every sum is exact.
    """
    found = np.empty(len(a))
    for rows in _chunks(len(a), a.shape[1]):
        # C order is what fixes the order of summation.
        difference = np.subtract(a[rows], b[rows], dtype=np.float64, order="C")
        found[rows] = np.multiply(difference, difference, out=difference).sum(axis=1)
    return found


def approximate(a: Vectors, b: Vectors) -> tuple[Float64, Float64]:
    """Squared distances of all pairs by a matrix product, and how far they may be from ``squared_distances``.

    Args:
        a: (n, D); (b): (m, D).

    Returns:
        (n, m) distances |x|^2 + |y|^2 - 2 x.y, and (n,) a bound on the error of each row.
    """
    left = a.astype(np.float64)
    norms = np.einsum("ij,ij->i", left, left)
    distances, largest = np.empty((len(a), len(b))), 0.0
    for rows in _chunks(len(b), b.shape[1]):
        right = b[rows].astype(np.float64)
        others = np.einsum("ij,ij->i", right, right)
        largest = max(largest, float(others.max(initial=0.0)))
        part = distances[:, rows]
        np.matmul(left, right.T, out=part)
        part *= -2
        part += norms[:, None]
        part += others
    # A sum of D products errs by at most D u times the sum of their sizes, in any order (Higham 2002, Eq. 3.5; u is
    # half of eps). Norms, product and direct sum together stay below 6 (D + 4) u (|x|^2 + |y|^2); 8 leaves room for
    # terms of second order.
    return distances, 4 * (a.shape[1] + 4) * np.finfo(np.float64).eps * (norms + largest)


def _chunks(count: int, dim: int) -> list[slice]:
    return [slice(part.start, part.stop) for part in blocks(count, max(1, NUMBERS_AT_ONCE // max(1, dim)))]


class Block(NamedTuple):
    """Some vectors and whose they are."""

    keys: Sequence[str]
    vectors: Vectors
    """(n, D)"""


Ranking = tuple[tuple[float, str], ...]
"""Pairs of squared distance and key, ascending: of equal distances the smaller key comes first."""


@dataclass(frozen=True)
class Neighbours:
    """For each query the k nearest candidates seen so far, by squared L2 distance (thesis section 4.3.4).

    Merging is associative, commutative and idempotent: any division of the candidates gives the same state.

    Attributes:
        k: how many are kept.
        best: key of a query -> its ranking, of at most k.
    """

    k: int
    best: Mapping[str, Ranking]

    @classmethod
    def none(cls, k: int, queries: Sequence[str]) -> "Neighbours":
        """No candidate seen yet.

        Raises:
            UserError: where k is below 1 or a query comes twice.
        """
        if k < 1:
            raise UserError(f"cannot look for {k} neighbours: ask for 1 at least.")
        if len(set(queries)) < len(queries):
            raise UserError(
                f"{len(queries) - len(set(queries))} queries come twice: give every query a key of its own."
            )
        return cls(k, dict.fromkeys(queries, ()))

    def add(self, queries: Block, candidates: Block) -> "Neighbours":
        """The state after candidates more.

        Args:
            queries: the queries of this state, in any order, (q, D).
            candidates: (n, D), any n.

        Raises:
            UserError: where lengths of vectors differ or two candidates share a key.
            ValueError: where the queries are not those of this state, or a number is infinite or NaN.
        """
        if set(queries.keys) != set(self.best):
            raise ValueError("these are not the queries of this state")
        if queries.vectors.shape[1:] != candidates.vectors.shape[1:]:
            raise UserError(
                f"queries of length {queries.vectors.shape[1:]} have no distance to candidates of length"
                f" {candidates.vectors.shape[1:]}: bring both to one size."
            )
        state = self
        for part in blocks(len(candidates.keys), CANDIDATES_AT_ONCE):
            rows = slice(part.start, part.stop)
            state = state._add(queries, Block(candidates.keys[rows], candidates.vectors[rows]))
        return state

    def _add(self, queries: Block, candidates: Block) -> "Neighbours":
        distances, error = approximate(queries.vectors, candidates.vectors)
        if not np.isfinite(distances).all():
            raise ValueError("vectors with numbers that are not finite have no distances")
        found: dict[str, Ranking] = {}
        for query, vector, row, bound in zip(queries.keys, queries.vectors, distances, error, strict=True):
            limit = np.inf
            if len(row) >= self.k:
                limit = np.partition(row, self.k - 1)[self.k - 1] + bound
            if len(self.best[query]) == self.k:
                limit = min(limit, self.best[query][-1][0])
            near = np.flatnonzero(row - bound <= limit)
            exact = squared_distances(np.broadcast_to(vector, (len(near), len(vector))), candidates.vectors[near])
            keys = [candidates.keys[i] for i in near.tolist()]
            found[query] = _first(self.k, zip(exact.tolist(), keys, strict=True))
        return self.merge(Neighbours(self.k, found))

    def merge(self, other: "Neighbours") -> "Neighbours":
        """The state over the candidates of both; a candidate in both counts once.

        Raises:
            UserError: where one key has two distances, so that two candidates share it.
            ValueError: where k or the queries differ.
        """
        if (self.k, set(self.best)) != (other.k, set(other.best)):
            raise ValueError(
                f"cannot merge {self.k} neighbours of {len(self.best)} queries with {other.k} of {len(other.best)}"
            )
        both = {query: _first(self.k, {*mine, *other.best[query]}) for query, mine in self.best.items()}
        return Neighbours(self.k, both)

    def to_json(self) -> dict[str, Any]:
        """An exact text form; equal states give equal text once its keys are sorted."""
        return {"k": self.k, "best": {query: [list(pair) for pair in row] for query, row in self.best.items()}}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Neighbours":
        """The inverse of ``to_json``."""
        best = {query: tuple((float(d), str(key)) for d, key in row) for query, row in content["best"].items()}
        return cls(int(content["k"]), best)


def _first(k: int, pairs: Iterable[tuple[float, str]]) -> Ranking:
    """The k smallest of pairs of distance and key."""
    ranking = sorted(pairs)
    keys = [key for _, key in ranking]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"two candidates share the key {twice!r}: give every candidate a key of its own.")
    return tuple(ranking[:k])
