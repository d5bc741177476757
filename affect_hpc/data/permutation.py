"""Keyed permutations that are computed place by place: no table, no state, the same on every machine and version."""

import hashlib

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

ROUNDS = 6


class Permutation:
    """A bijection of 0 .. count-1, chosen by a key.

    A Feistel network over the next power of four, with cycle walking: values outside are permuted again until they
    fall inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"), fewer than four times on average.

    Args:
        count: size of the domain, 1 .. 2**62.
        key: any bytes.
    """

    def __init__(self, count: int, key: bytes) -> None:
        if not 1 <= count <= 2**62:
            raise ValueError(f"a permutation of {count} things cannot be made")
        self.count = count
        self._half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        # One hash gives four keys of 64 bits.
        material = b"".join(hashlib.sha256(key + bytes([part])).digest() for part in range(-(-ROUNDS // 4)))
        self._keys = np.frombuffer(material, "<u8")[:ROUNDS]

    def __call__(self, places: Int64) -> Int64:
        """What stands at ``places`` (any shape, each 0 .. count-1)."""
        return self._walk(places, self._keys, forward=True)

    def inverse(self, things: Int64) -> Int64:
        """Where ``things`` stand."""
        return self._walk(things, self._keys[::-1], forward=False)

    def _walk(self, values: Int64, keys: npt.NDArray[np.uint64], forward: bool) -> Int64:
        if values.size and (values.min() < 0 or values.max() >= self.count):
            raise IndexError(f"places of this permutation are 0 to {self.count - 1}")
        result = values.astype(np.uint64)
        outside = np.ones(result.shape, bool)
        while outside.any():
            result[outside] = self._network(result[outside], keys, forward)
            outside = result >= self.count
        return result.astype(np.int64)

    def _network(
        self, values: npt.NDArray[np.uint64], keys: npt.NDArray[np.uint64], forward: bool
    ) -> npt.NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for key in keys:
            if forward:
                left, right = right, left ^ (_mixed(right, key) & self._mask)
            else:
                left, right = right ^ (_mixed(left, key) & self._mask), left
        mixed: npt.NDArray[np.uint64] = (left << self._half) | right
        return mixed


def _mixed(values: npt.NDArray[np.uint64], key: np.uint64) -> npt.NDArray[np.uint64]:
    """Every bit of the result hangs on every bit of ``values`` and key (the finaliser of SplitMix64)."""
    x = values + key  # uint64 arrays wrap silently, as is wanted
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
