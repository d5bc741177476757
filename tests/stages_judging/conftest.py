"""The fixture that all tests of judging share."""

from judging_world import world

__all__ = ["world"]
