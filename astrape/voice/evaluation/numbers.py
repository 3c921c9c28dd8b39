"""Values written for people."""

from __future__ import annotations

from astrape.voice.evaluation.metric import Quantity
from astrape.voice.evaluation.statistics import Aggregate

__all__ = ["interval", "number"]


def number(value: float, quantity: Quantity) -> str:
    """A number as text, with as many decimals as are worth showing, and a proper minus sign."""
    text = f"{value:.{quantity.digits}f}"
    return f"{0:.{quantity.digits}f}" if float(text) == 0 else text.replace("-", "\u2212")


def interval(found: Aggregate, quantity: Quantity) -> str | None:
    """``low to high``; ``None`` where there is none, and for a constant: where both would be shown alike."""
    if found.low is None or found.high is None:
        return None
    low, high = number(found.low, quantity), number(found.high, quantity)
    return None if low == high else f"{low} to {high}"
