"""Numbers as text: rates, times, sizes, counts."""

from __future__ import annotations

from fractions import Fraction

__all__ = ["many", "ms", "rate", "short", "short_rate", "size"]


def rate(value: Fraction) -> str:
    """A rate in Hz: whole, or to three decimals."""
    return str(value) if value.denominator == 1 else f"{float(value):.3f}"


def ms(seconds: Fraction | None, none: str = "unbounded") -> str:
    """Seconds as milliseconds, to three decimals."""
    if seconds is None:
        return none
    return "0" if seconds == 0 else f"{float(seconds * 1000):.3f} ms"


def size(count: int) -> str:
    """Bytes, from ten thousand on in thousands."""
    return f"{count} B" if count < 10_000 else f"{count / 1000:,.0f} kB"


def many(count: int, what: str) -> str:
    """A count with its noun: ``1 block``, ``2 blocks``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def short_rate(rate: Fraction) -> str:
    """A rate for people: ``44.1 kHz``, ``50 Hz``, ``200/3 Hz``."""
    if rate >= 1000 and (rate / 1000 * 1000).denominator == 1:
        return f"{float(rate / 1000):g} kHz" if rate < 1_000_000 else f"{float(rate):g} Hz"
    return f"{float(rate):g} Hz" if (rate * 1000).denominator == 1 else f"{float(rate):.4g} Hz"


def short(text: str, most: int) -> str:
    """The text, with its middle left out where it is too long: names differ at their ends."""
    if len(text) <= most:
        return text
    return text[: most // 3] + "…" + text[-(most - most // 3 - 1) :]
