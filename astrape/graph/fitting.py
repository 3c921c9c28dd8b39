"""The check that tensors of a file fit the model that they are for: one wording for all files of weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["listed", "mismatches"]

MOST = 5


def mismatches(wanted: Mapping[str, Any], given: Mapping[str, Any], *, subset: bool = False) -> list[str]:
    """The reasons why tensors do not fill a model, each in words; empty where they fit.

    >>> mismatches({"a": (3,), "b": (2, 2)}, {"b": (2, 1), "c": ()})
    ["'a' is missing", "'c' is unknown", "'b' is (2, 1) and not (2, 2)"]

    Args:
        wanted: tensors of the model by name, or their shapes.
        given: those of the file.
        subset: the file may have others too.
    """
    missing = [f"'{name}' is missing" for name in wanted if name not in given]
    unknown = [] if subset else [f"'{name}' is unknown" for name in given if name not in wanted]
    shaped = [(name, _shape(given[name]), _shape(wanted[name])) for name in wanted if name in given]
    return [*missing, *unknown, *(f"'{name}' is {has} and not {due}" for name, has, due in shaped if has != due)]


def listed(faults: Iterable[str]) -> str:
    """The first five, and how many more there are."""
    found = list(faults)
    return ", ".join(found[:MOST]) + (f" and {len(found) - MOST} more" if len(found) > MOST else "")


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(getattr(tensor, "shape", tensor))
