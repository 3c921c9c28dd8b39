"""Running level of a signal."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["Level", "decibels"]


class Level:
    """Peak and RMS of all samples added so far, over all channels; sums in float64."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._power = 0.0
        self._count = 0

    def add(self, x: Tensor) -> None:
        if x.numel():
            self.peak = max(self.peak, float(x.abs().max()))
            self._power += float(x.double().square().sum())
            self._count += x.numel()

    @property
    def rms(self) -> float:
        return math.sqrt(self._power / self._count) if self._count else 0.0


def decibels(value: float) -> float:
    """Decibels relative to 1; -inf for 0."""
    return 20 * math.log10(value) if value > 0 else -math.inf
