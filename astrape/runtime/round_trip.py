"""The delay of a sound card, out and in again, measured with clicks through a cable."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from astrape.errors import AstrapeError
from astrape.runtime.rings import Frames, Ring

__all__ = ["RoundTrip", "Trip"]

CLICK = 64
"""Frames of a click: noise that is known, so that it is found below the level of what else is heard."""

CLEAR = 6.0
"""Times that a click has to stand out of the rest."""


@dataclass(frozen=True)
class Trip:
    """A measured delay.

    Attributes:
        frames: from output to input, the median of all clicks that were heard.
        spread: frames between the least and the most.
        heard, sent: clicks.
        level: of the clicks as they came back, over what was sent.
    """

    frames: int
    spread: int
    heard: int
    sent: int
    level: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class RoundTrip:
    """Plays clicks, hears them, and says how late they are. Its :meth:`process` is what a callback calls.

    Args:
        rate: Hz.
        clicks: how many.
        every: seconds between them, more than the longest delay that can be told.
    """

    def __init__(self, rate: int, clicks: int = 5, every: float = 0.6) -> None:
        self._every = int(every * rate)
        self.clicks = clicks
        self.frames = (clicks + 2) * self._every
        self._heard = Ring(1, self.frames + self._every)
        self._signal = np.zeros((1, self.frames + self._every), np.float32)
        self._click = (0.5 * np.sign(np.random.default_rng(1).standard_normal(CLICK))).astype(np.float32)
        for index in range(clicks):
            begin = (index + 1) * self._every
            self._signal[0, begin : begin + CLICK] = self._click

    @property
    def done(self) -> bool:
        return self._heard.written >= self.frames

    def process(self, x: Frames, y: Frames) -> None:
        count = x.shape[1]
        begin = self._heard.written
        part = self._signal[:, begin : begin + count]
        y[:] = 0.0
        y[:, : part.shape[1]] = part
        self._heard.write(x[:1])

    def result(self) -> Trip:
        """The measured round trip.

        Raises:
            AstrapeError: where no click came back.
        """
        x = np.zeros((1, min(self._heard.written, self.frames)), np.float32)
        self._heard.read(0, x)
        late, levels = [], []
        for index in range(self.clicks):
            begin = (index + 1) * self._every
            part = x[0, begin : begin + self._every + CLICK]
            if len(part) < self._every:
                break
            match = np.correlate(part, self._click, "valid") / float(self._click @ self._click)
            peak = int(np.abs(match).argmax())
            rest = np.abs(np.delete(match, slice(max(0, peak - CLICK), peak + CLICK)))
            if abs(match[peak]) > CLEAR * max(1e-4, float(rest.max(initial=0.0)) / 2):
                late.append(peak)
                levels.append(abs(float(match[peak])))
        if not late:
            raise AstrapeError(
                f"none of {self.clicks} clicks came back: hint: connect the output to the input with a cable or a "
                "loopback device, and turn both up"
            )
        return Trip(
            int(statistics.median_low(late)), max(late) - min(late), len(late), self.clicks, statistics.median(levels)
        )
