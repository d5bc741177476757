"""Range checks with one clear sentence each; called from the ``check`` methods after conversion, never before."""

from collections.abc import Iterable

from affect_hpc.core.errors import UserError


def in_range(key: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Require ``low <= value <= high``."""
    if not low <= value <= high:
        raise UserError(f"{key}={value:g}{unit and ' ' + unit} is out of range: give a value from {low:g} to {high:g}.")


def one_of(key: str, value: str, valid: Iterable[str]) -> None:
    """Require ``value`` to be one of ``valid``."""
    names = list(valid)
    if value not in names:
        raise UserError(f"{key}={value!r} is unknown: the valid values are {', '.join(names)}.")
