"""Checks of block parameters: a bound for every number that sizes memory, and an error that says what would do.

Recipes come from strangers; a constructor that allocated whatever a YAML file asks for would be a way to take a
machine down. So every count has a range, and every table a block builds has a largest size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

__all__ = ["LARGEST_COUNT", "check_choice", "check_elements", "check_real"]

LARGEST_COUNT = 65536
"""Largest kernel, stride, factor or channel count: above any real network, below anything that hurts by itself."""

LARGEST_ELEMENTS = 1 << 28
"""Largest number of elements in one tensor that a constructor or a fresh state makes: 1 GiB in float32."""


def check_real(name: str, value: Any, low: float, high: float) -> float:
    """``value`` as a ``float`` if it is a finite number from ``low`` to ``high``.

    Raises:
        ValueError: for anything else, naming the parameter, the range and the value.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")
    return float(value)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """``value`` if it is one of ``choices``.

    Raises:
        ValueError: for anything else, listing the choices.
    """
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    return value


def check_elements(what: str, *shape: int) -> None:
    """Refuse a tensor of this shape if it would be too large to be meant.

    Raises:
        ValueError: above :data:`LARGEST_ELEMENTS` elements, naming the shape.
    """
    if math.prod(shape) > LARGEST_ELEMENTS:
        size = " x ".join(str(count) for count in shape)
        raise ValueError(f"{what} would hold {size} elements, more than {LARGEST_ELEMENTS}: choose smaller sizes")
