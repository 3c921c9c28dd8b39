"""Checks of block parameters: a bound for every number that sizes memory, and an error that says what would do.

Recipes come from strangers; a constructor that allocated whatever a YAML file asks for would be a way to take a
machine down. So every count has a range, and every table a block builds has a largest size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import torch

from astrape.errors import StreamError
from astrape.wording import quote

__all__ = [
    "LARGEST_COUNT",
    "bounded",
    "check_choice",
    "check_elements",
    "check_real",
    "exact_number",
    "full_precision",
    "wide_type",
]

LARGEST_COUNT = 65536
"""Largest kernel, stride, factor or channel count: above any real network, below anything that hurts by itself."""

LARGEST_ELEMENTS = 1 << 28
"""Largest number of elements in one tensor that a constructor or a fresh state makes: 1 GiB in float32."""


def bounded(name: str, value: object, low: int, high: int) -> int:
    """Return ``value`` if it is a whole number from ``low`` to ``high``.

    Raises:
        ValueError: otherwise, naming the parameter, its range and what was given.

    >>> bounded("kernel", 3, 1, 65536)
    3
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        shown = quote(value) if type(value) is int else repr(value)
        raise ValueError(f"{name} must be a whole number from {low} to {high}, not {shown}")
    return value


def check_real(name: str, value: Any, low: float, high: float) -> float:
    """``value`` as a ``float`` if it is a finite number from ``low`` to ``high``.

    Raises:
        ValueError: for anything else, naming the parameter, the range and the value.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")
    return float(value)


_EXACT = re.compile(r"[-+]?[0-9]{1,20}(\.[0-9]{1,20}|\s*/\s*0*[1-9][0-9]{0,19})?")
"""No exponents: ``"1e999999999"`` is a short string, and as an exact number it fills the memory."""


def exact_number(name: str, value: Any) -> Fraction:
    """An ``int``, a ``Fraction``, or a string such as ``"62.5"`` or ``"44100/7"``, as a ``Fraction``.

    Raises:
        ValueError: for anything else, naming the parameter.
    """
    written = isinstance(value, str) and _EXACT.fullmatch(value.strip())
    if isinstance(value, bool) or not (written or isinstance(value, (int, Fraction))):
        raise ValueError(f"{name} must be a whole number, or a string such as '62.5' or '44100/7', not {value!r}")
    return Fraction("".join(value.split()) if isinstance(value, str) else value)


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


def full_precision(dtype: torch.dtype | None, block: object) -> None:
    """Refuse 16-bit floats for a block whose phases or powers they cannot hold.

    Raises:
        StreamError: for ``float16`` and ``bfloat16``, naming the block, with a hint.
    """
    if dtype in (torch.float16, torch.bfloat16):
        raise StreamError(f"{type(block).__name__} needs float32 or float64, not {dtype}: run the graph in float32")


def wide_type(device: torch.device | str | None) -> torch.dtype:
    """float64, or where there is none, float32."""
    return torch.float32 if device is not None and torch.device(device).type == "mps" else torch.float64
