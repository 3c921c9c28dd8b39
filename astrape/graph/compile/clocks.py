"""Times that a block declares, held against its clocks."""

from __future__ import annotations

import math
from fractions import Fraction

from astrape.blocks.base import StreamBlock

__all__ = ["strange_time"]

MOST_PARTS = 1 << 20
"""Into as many equal parts of a frame a declared time may fall: 2 for a window's centre, some hundreds for resamplers.
A float of 7/44100, taken for a fraction, falls into 2^63."""

SIMPLE_PARTS = 128
"""Into as many parts of a frame a time may fall to be told as what was meant."""

EXACT = Fraction(1, 10**9)
"""Share of a time that rounding to a float, or to its decimals, leaves unsaid, at most."""


def strange_time(block: StreamBlock) -> str | None:
    """The fault of the first declared time that no clock of the block can measure, in words; ``None`` if all is well.

    A time is a whole number of frames, or of some simple part of one, at the rates of the inputs and outputs. One that
    is not was computed in floats, and all that is added to it would only seem exact.
    """
    streams = (*block.inputs.values(), *block.outputs.values())
    ticks = math.lcm(*{stream.rate.numerator for stream in streams})
    declared = {"lookahead": block.lookahead, "receptive_field": block.receptive_field, "latency": block.latency}
    declared |= {f"latencies[{port!r}]": value for port, value in block.latencies.items()}
    for name, time in declared.items():
        # The denominator of time * ticks, which is asked of every node of every graph, in whole numbers alone.
        if isinstance(time, Fraction) and time.denominator // math.gcd(time.denominator, ticks) > MOST_PARTS:
            rates = ", ".join(dict.fromkeys(f"{stream.rate} Hz" for stream in streams))
            return (
                f"{type(block).__name__}.{name} is {time} s, which no clock of it ({rates}) can measure: it was "
                f"made of a float; compute it in Fractions: {_written(time, block)}"
            )
    return None


def _written(time: Fraction, block: StreamBlock) -> str:
    """The time in frames of the first clock in which it is a simple number of them, as the block may write it."""
    for name, rate in (("self.rate_in", block.rate_in), ("self.rate_out", block.rate_out)):
        frames = time * rate
        near = frames.limit_denominator(SIMPLE_PARTS)
        if abs(frames - near) < EXACT * max(Fraction(1), abs(near)):
            parts = f"{near.numerator}" if near.denominator == 1 else f"{near.numerator}, {near.denominator}"
            return f"{near} frames are Fraction({parts}) / {name}"
    frames = time * block.rate_in
    return f"{float(frames):.6g} frames of {block.rate_in} Hz; N of them are Fraction(N) / self.rate_in"
