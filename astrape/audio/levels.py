"""Running level of a signal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SPOKEN", "Level", "decibels", "sounding_rms"]

SPOKEN = 10 ** (-23 / 20)
"""Root mean square of what is spoken: -23 dBFS. Recordings of people lie about there, and voices are shown so."""

SOUNDING = 0.05
"""Share of the loudest frame's level below which a frame is a pause."""


class Level:
    """Peak and RMS of all samples added so far, over all channels; sums in float64."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._power = 0.0
        self._count = 0

    def add(self, samples: npt.NDArray[Any]) -> None:
        if samples.size:
            self.peak = max(self.peak, float(np.abs(samples).max()))
            self._power += float(np.square(samples, dtype=np.float64).sum())
            self._count += samples.size

    @property
    def rms(self) -> float:
        return math.sqrt(self._power / self._count) if self._count else 0.0


def sounding_rms(samples: npt.NDArray[np.float32], frame: int) -> np.float32:
    """Root mean square over the frames that are not pauses, of ``(samples,)``; 0 for silence or less than a frame."""
    whole = samples[: len(samples) // frame * frame].reshape(-1, frame)
    levels = np.sqrt((whole**2).mean(1))
    sounding = levels[levels > levels.max(initial=0) * SOUNDING]
    return np.sqrt((sounding**2).mean()) if len(sounding) else np.float32(0)


def decibels(value: float) -> float:
    """Decibels relative to 1; -inf for 0."""
    return 20 * math.log10(value) if value > 0 else -math.inf
