"""Filters of fixed frequencies: first and second-order sections, and chains of them as one state-space filter.

A section is a trapezoidal integrator or a pair of them, as in V. Zavalishin, "The Art of VA Filter Design" (2012),
sections 3 and 4: its states have the size of the signal, so that float32 serves at frequencies far below the rate. All
here is float64; rounding comes last, once the chain is unrolled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from astrape.blocks.ops.recurrence import BLOCK, Recurrence
from astrape.blocks.ops.tables import Float64

__all__ = ["StateSpace", "cascade", "chebyshev_highpass", "first_order", "second_order"]


class StateSpace(NamedTuple):
    """A filter ``s' = a s + b x``, ``y = c s + d x``: ``a`` is ``(order, order)``, ``b`` and ``c`` are ``(order,)``."""

    a: Float64
    b: Float64
    c: Float64
    d: float

    def unroll(self, size: int = BLOCK) -> Recurrence:
        """The filter over blocks of ``size`` samples, float64, the same for every row of a batch."""
        a, b, c = (torch.from_numpy(np.ascontiguousarray(part))[None] for part in self[:3])
        return Recurrence.unroll(a, b, c, torch.tensor([self.d], dtype=torch.float64), size)

    def at_rest(self) -> Float64:
        """The state in which an input of constant 1 leaves the filter."""
        state: Float64 = np.linalg.solve(np.eye(len(self.b)) - self.a, self.b).astype(np.float64)
        return state


def first_order(g: float, high: float, low: float) -> StateSpace:
    """``(high s + low) / (s + 1)`` with ``s`` in units of the corner, and ``g = tan(pi corner / rate)``."""
    # The integrator's output is (s + g x) / (1 + g), and the high-pass is what is left of x.
    passed = g / (1 + g)
    state = np.array([[(1 - g) / (1 + g)]]), np.array([2 * passed])
    return StateSpace(*state, np.array([(low - high) / (1 + g)]), high + (low - high) * passed)


def second_order(g: float, k: float, high: float, band: float, low: float) -> StateSpace:
    """``(high s^2 + band s + low) / (s^2 + k s + 1)`` with ``s`` in units of the corner, as :func:`first_order`."""
    denominator = 1 + g * (g + k)
    # The two integrators' outputs by the states and the input.
    middle = np.array([1.0, -g, g]) / denominator
    lower = np.array([0.0, 1.0, 0.0]) + g * middle
    states = np.stack([2 * middle, 2 * lower]) - np.eye(2, 3)
    out = (band - k * high) * middle + (low - high) * lower + high * np.array([0.0, 0.0, 1.0])
    return StateSpace(states[:, :2], states[:, 2], out[:2], float(out[2]))


def cascade(sections: Sequence[StateSpace]) -> StateSpace:
    """One filter that does what ``sections`` do one after the other."""
    whole = sections[0]
    for section in sections[1:]:
        above = np.hstack([whole.a, np.zeros((len(whole.b), len(section.b)))])
        below = np.hstack([np.outer(section.b, whole.c), section.a])
        whole = StateSpace(
            np.vstack([above, below]),
            np.concatenate([whole.b, section.b * whole.d]),
            np.concatenate([section.d * whole.c, section.c]),
            section.d * whole.d,
        )
    return whole


def chebyshev_highpass(order: int, edge: float, stop_db: float, rate: float) -> StateSpace:
    """A high-pass of Chebyshev's second kind: flat above, and below ``edge`` at least ``stop_db`` down.

    The order is odd, which has a zero at 0 Hz, so that a constant is gone altogether. See A. Oppenheim and R. Schafer,
    "Discrete-Time Signal Processing", appendix B.
    """
    warped = math.tan(math.pi * edge / rate)
    swing = math.asinh(math.sqrt(10 ** (stop_db / 10) - 1)) / order
    sections = []
    for index in range(order // 2, -1, -1):
        angle = math.pi * index / order
        # The poles of the low-pass are the inverse of these, and the high-pass inverts once more.
        real, imaginary = math.sinh(swing) * math.cos(angle), math.cosh(swing) * math.sin(angle)
        size = math.hypot(real, imaginary)
        if index:
            sections.append((2 * real / size, warped * size, math.sin(angle) / size))
        else:
            first = first_order(warped * size, 1.0, 0.0)
    # The calmest first, so that no section is driven harder than the signal is.
    seconds = [second_order(g, k, 1.0, 0.0, zero**2) for k, g, zero in sorted(sections, reverse=True)]
    return cascade([first, *seconds])
