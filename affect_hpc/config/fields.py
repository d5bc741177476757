"""Field markers that decide what of a config belongs to the identity of a run."""

from collections.abc import Callable
from dataclasses import field
from typing import Any


def transient(default: Any) -> Any:
    """A field that does not change the result (resources, intervals, micro batch): never part of a signature."""
    return field(default=default, metadata={"transient": True})


def transient_part(config: Callable[[], Any]) -> Any:
    """As ``transient``, for a config of its own with its defaults."""
    return field(default_factory=config, metadata={"transient": True})


def absent_if(default: Any) -> Any:
    """A field added later: while it has ``default`` it is left out, so that older signatures stay what they were."""
    return field(default=default, metadata={"absent_if": default})
