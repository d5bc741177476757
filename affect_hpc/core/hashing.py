"""Identity from content: the signature of a run is a digest of what fixes its result."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from affect_hpc.core.io import manifest_of

SIGNATURE_LENGTH = 10


def canonical(value: Any) -> Any:
    """``value`` as plain JSON data: transient fields left out, later-added fields left out at their default.

    Dataclasses become mappings, enums their names, integral floats integers (so that ``gamma=3`` and ``gamma=3.0``
    are one run).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: canonical(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not field.metadata.get("transient")
            and not ("absent_if" in field.metadata and getattr(value, field.name) == field.metadata["absent_if"])
        }
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return value


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted keys; empty mappings leave nothing."""
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= flat(item, f"{prefix}{name}.") if isinstance(item, Mapping) else {f"{prefix}{name}": item}
    return found


def digest(value: Any) -> str:
    """SHA-256 of ``value`` in canonical JSON, in hexadecimal."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def signature(stage: str, version: int, config: Any, parents: dict[str, list[str]]) -> str:
    """Name of the run folder of ``stage``: a function of stage, version, config and the parents' signatures."""
    return digest({"stage": stage, "version": version, "config": canonical(config), "parents": parents})[
        :SIGNATURE_LENGTH
    ]


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of all files below ``folder``."""
    return digest({name: entry["sha256"] for name, entry in manifest_of(folder).items()})
