"""Nested state and the file that holds it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from affect_hpc.core.io import manifest_of
from affect_hpc.train.statefile import TYPES, StateFile, read_state

STATE: dict[str, Any] = {
    "weights": {f"of.{name}": torch.arange(6).reshape(2, 3).to(dtype) for dtype, name in TYPES.items()},
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "turned": torch.arange(12.0).reshape(3, 4).T,
    "plain": {"steps": 7, "lr": 0.1, "name": "père", "list": [1, 2], "none": None},
}


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_equal(a[name], b[name])
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b)
    else:
        assert a == b


def test_what_is_written_is_read(tmp_path: Path) -> None:
    StateFile.of(STATE).write(tmp_path / "a.safetensors")
    assert_equal(read_state(tmp_path / "a.safetensors"), STATE)


def test_the_library_of_the_format_reads_it_too(tmp_path: Path) -> None:
    StateFile.of(STATE).write(tmp_path / "a.safetensors")
    found = load_file(tmp_path / "a.safetensors")
    assert torch.equal(found["turned"], STATE["turned"])
    assert torch.equal(found["weights/of.BF16"], STATE["weights"]["of.BF16"])


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    large = {"x": torch.arange(5_000_000, dtype=torch.float32)}
    entry = StateFile.of(large).write(tmp_path / "a.safetensors")
    assert manifest_of(tmp_path) == {"a.safetensors": entry}


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    reversed_order = dict(reversed(list(STATE.items())))
    assert StateFile.of(STATE).write(tmp_path / "a") == StateFile.of(reversed_order).write(tmp_path / "b")


def test_a_name_with_a_slash_would_be_read_as_two() -> None:
    with pytest.raises(AssertionError, match="a/b"):
        StateFile.of({"a/b": 1})
