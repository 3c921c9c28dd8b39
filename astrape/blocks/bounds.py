"""Bounds on the sizes a block is built with, so that a mistyped recipe fails in words and not in memory."""

from __future__ import annotations

__all__ = ["bounded"]


def bounded(name: str, value: object, low: int, high: int) -> int:
    """Return ``value`` if it is a whole number from ``low`` to ``high``.

    Raises:
        ValueError: otherwise, naming the parameter, its range and what was given.

    >>> bounded("kernel", 3, 1, 65536)
    3
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
    return value
