"""Metrics as mergeable states: sum now, divide once.

The states hold exact sums, so that merging is associative and commutative to the last bit: the same samples give the
same figure in any order, in any batches and for any number of parts.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ExactSum:
    """A sum of float64 values without any rounding: ``numerator * 2 ** exponent``.

    Every finite float64 is a dyadic rational, and so is every finite sum of them. The numerator is odd (or zero with
    exponent zero), so equal sums are equal objects.
    """

    numerator: int = 0
    exponent: int = 0

    @classmethod
    def of(cls, values: Iterable[float]) -> "ExactSum":
        """The sum of ``values``; ValueError where one is infinite or NaN."""
        total = cls()
        for value in values:
            total = total.add(value)
        return total

    def add(self, value: float) -> "ExactSum":
        """This sum plus one float64; ValueError where it is infinite or NaN."""
        if not math.isfinite(value):
            raise ValueError(f"cannot sum {value!r}: a judge gave a value that is not a finite number")
        numerator, denominator = value.as_integer_ratio()
        return self.merge(ExactSum(numerator, 1 - denominator.bit_length()))

    def merge(self, other: "ExactSum") -> "ExactSum":
        """The sum of both."""
        exponent = min(self.exponent, other.exponent)
        numerator = (self.numerator << (self.exponent - exponent)) + (other.numerator << (other.exponent - exponent))
        if numerator == 0:
            return ExactSum()
        zeros = (numerator & -numerator).bit_length() - 1
        return ExactSum(numerator >> zeros, exponent + zeros)

    def divide(self, count: int) -> float:
        """The sum over ``count``, rounded once, to the nearest float64 (ties to even)."""
        # Python's int / int rounds correctly whatever the size of the operands.
        if self.exponent >= 0:
            return (self.numerator << self.exponent) / count
        return self.numerator / (count << -self.exponent)

    def compute(self) -> float:
        """The sum as float64: what ``math.fsum`` gives."""
        return self.divide(1)

    def to_json(self) -> dict[str, Any]:
        """An exact text form: hexadecimal numerator and binary exponent."""
        return {"numerator": hex(self.numerator), "exponent": self.exponent}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ExactSum":
        """The inverse of ``to_json``."""
        return cls(int(content["numerator"], 16), int(content["exponent"]))


@dataclass(frozen=True)
class Mean:
    """Arithmetic mean of float64 values."""

    total: ExactSum = field(default_factory=ExactSum)
    count: int = 0

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Mean":
        """The mean of ``values``; None (undefined for that sample) does not count."""
        state = cls()
        for value in values:
            state = state.add(value)
        return state

    def add(self, value: float | None) -> "Mean":
        """One value more; None does not count."""
        return self if value is None else Mean(self.total.add(value), self.count + 1)

    def merge(self, other: "Mean") -> "Mean":
        """The mean over the samples of both."""
        return Mean(self.total.merge(other.total), self.count + other.count)

    def compute(self) -> float | None:
        """The mean, rounded once; None where nothing was counted."""
        return self.total.divide(self.count) if self.count else None

    def to_json(self) -> dict[str, Any]:
        """An exact text form."""
        return {"total": self.total.to_json(), "count": self.count}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Mean":
        """The inverse of ``to_json``."""
        return cls(ExactSum.from_json(content["total"]), int(content["count"]))


@dataclass(frozen=True)
class Shares:
    """How often each class of a fixed list occurred."""

    counts: Mapping[str, int]

    @classmethod
    def over(cls, classes: Sequence[str]) -> "Shares":
        """No occurrence yet of any of ``classes``."""
        return cls(dict.fromkeys(classes, 0))

    def add(self, name: str) -> "Shares":
        """One occurrence more; ValueError where the class is unknown."""
        if name not in self.counts:
            raise ValueError(f"class {name!r} is unknown: the classes are {', '.join(self.counts)}")
        return Shares({**self.counts, name: self.counts[name] + 1})

    def merge(self, other: "Shares") -> "Shares":
        """The counts of both; ValueError where their classes differ."""
        if tuple(self.counts) != tuple(other.counts):
            raise ValueError(f"cannot merge shares over {tuple(self.counts)} with shares over {tuple(other.counts)}")
        return Shares({name: count + other.counts[name] for name, count in self.counts.items()})

    def compute(self) -> dict[str, float] | None:
        """Class -> share, each count divided once; None where nothing was counted."""
        total = sum(self.counts.values())
        return {name: count / total for name, count in self.counts.items()} if total else None

    def to_json(self) -> list[list[Any]]:
        """Pairs of class and count: a list, for the order of the classes is part of the state."""
        return [[name, count] for name, count in self.counts.items()]

    @classmethod
    def from_json(cls, content: Sequence[Sequence[Any]]) -> "Shares":
        """The inverse of ``to_json``."""
        return cls({str(name): int(count) for name, count in content})
