"""What is, and what is not, part of the identity of a run."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest

from affect_hpc.config.fields import absent_if, transient
from affect_hpc.core.hashing import SIGNATURE_LENGTH, canonical, digest, folder_digest, signature
from affect_hpc.core.io import write_text


class Mode(Enum):
    fast = "described in one way"


class SameMode(Enum):
    fast = "described in another way"


@dataclass
class Inner:
    gamma: float = 3.0
    log_every: int = transient(20)


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    mode: Mode | SameMode = Mode.fast
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    flip: bool = absent_if(False)


@dataclass
class OuterBefore:
    """Outer before ``flip`` was added, fields in another order."""

    sizes: list[int] = field(default_factory=lambda: [1, 2])
    mode: Mode = Mode.fast
    inner: Inner = field(default_factory=Inner)


def test_transient_fields_do_not_count() -> None:
    assert digest(Outer(Inner(log_every=1))) == digest(Outer())
    assert digest(Outer(Inner(gamma=4))) != digest(Outer())


def test_a_later_field_counts_only_away_from_its_default() -> None:
    assert digest(Outer(flip=False)) == digest(OuterBefore())
    assert digest(Outer(flip=True)) != digest(OuterBefore())


def test_integral_floats_are_integers() -> None:
    assert digest(Outer(Inner(gamma=3))) == digest(Outer(Inner(gamma=3.0)))
    assert canonical({"a": [2.0, 2.5, -0.0]}) == {"a": [2, 2.5, 0]}


def test_truth_is_no_number() -> None:
    assert digest({"a": True}) != digest({"a": 1})


def test_enums_count_by_name_not_by_description() -> None:
    assert digest(Outer(mode=Mode.fast)) == digest(Outer(mode=SameMode.fast))


def test_order_of_keys_does_not_count_order_of_lists_does() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert digest([1, 2]) == digest((1, 2))


def test_no_infinity_gets_a_name() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"lr": float("inf")})


def test_signature_is_a_function_of_each_argument() -> None:
    one = signature("stage", 1, Inner(), {"latents": ["x/1"]})
    others = [
        signature("other", 1, Inner(), {"latents": ["x/1"]}),
        signature("stage", 2, Inner(), {"latents": ["x/1"]}),
        signature("stage", 1, Inner(gamma=1), {"latents": ["x/1"]}),
        signature("stage", 1, Inner(), {"latents": ["x/2"]}),
        signature("stage", 1, Inner(), {"images": ["x/1"]}),
    ]
    assert len({one, *others}) == 6
    assert len(one) == SIGNATURE_LENGTH
    assert one == signature("stage", 1, Inner(), {"latents": ["x/1"]})


def test_folder_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    for name in ("here", "there"):
        write_text(tmp_path / name / "unet" / "config.json", "{}")
    assert folder_digest(tmp_path / "here") == folder_digest(tmp_path / "there")
    write_text(tmp_path / "there" / "unet" / "config.json", "{ }")
    assert folder_digest(tmp_path / "here") != folder_digest(tmp_path / "there")
    write_text(tmp_path / "there" / "unet" / "config.json", "{}")
    (tmp_path / "there" / "unet").rename(tmp_path / "there" / "net")
    assert folder_digest(tmp_path / "here") != folder_digest(tmp_path / "there")
