"""Concealment of missing frames: the last sound again, silence or the voice itself, joined without a click."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from astrape.errors import AstrapeError
from astrape.runtime.rings import Frames, Ring

__all__ = ["OVERLOADS", "Concealer", "Overload"]

Overload = Literal["repeat", "silence", "bypass"]

OVERLOADS: tuple[str, ...] = get_args(Overload)

HISTORY = 0.02
"""Seconds of output that are repeated."""

FADES = {"repeat": 0.08, "silence": 0.005, "bypass": 0.005}
"""Seconds over which the last sound fades out."""

RETURN = 0.005
"""Seconds over which sound fades in again."""


class Concealer:
    """Fills gaps in a stream of blocks, and joins both ends of a gap.

    The last 20 ms are played again, backwards and forwards, so that what is heard goes on where it stopped; meanwhile
    they fade into silence, or into the dry signal. When frames come again, they fade in. Nothing is allocated after it
    is made.

    Args:
        played: what has been heard until now; who plays writes it there, block by block.
        rate: of the stream, Hz.
        most: frames of the longest block.
        policy: ``repeat`` fades within 80 ms, ``silence`` within 5 ms, ``bypass`` within 5 ms into the dry signal.

    Raises:
        AstrapeError: for another policy.
    """

    def __init__(self, played: Ring, rate: float, most: int, policy: str = "repeat") -> None:
        if policy not in OVERLOADS:
            raise AstrapeError(f"overload policy '{policy}': choose from: {', '.join(OVERLOADS)}")
        self.policy = policy
        self._played = played
        channels = played.channels
        self._history = np.zeros((channels, max(2, round(HISTORY * rate))), np.float32)
        self._fade = max(1, round(FADES[policy] * rate))
        self._return = max(1, round(RETURN * rate))
        self._count = np.arange(most, dtype=np.float32)
        self._places = np.empty(most, np.int64)
        self._steps = np.arange(most, dtype=np.int64)
        self._below = np.empty(most, bool)
        self._fill = np.empty((channels, most), np.float32)
        self._gain = np.empty(most, np.float32)
        self._gone = 0
        """Frames since the gap began; 0 outside one."""
        self._back = 0
        """Frames since frames came again."""

    @property
    def dry(self) -> bool:
        """Whether gaps are filled with the dry signal."""
        return self.policy == "bypass"

    @property
    def active(self) -> bool:
        """Whether what is heard is not, or not yet wholly, the stream."""
        return self._gone > 0

    def apply(self, y: Frames, ready: int, dry: Frames | None = None) -> None:
        """Fill ``y`` from frame ``ready`` on, and fade in what comes before if there was a gap before it.

        Args:
            y: a block, right in its first ``ready`` frames.
            dry: the dry signal of the same frames, for ``bypass``.
        """
        count = y.shape[1]
        if self._gone and ready:
            self._join(y, ready, dry)
        if ready < count:
            if not self._gone or self._back:
                self._recall(y, ready)
                self._gone = self._back = 0
            fill = self._filled(count - ready, None if dry is None else dry[:, ready:])
            y[:, ready:] = fill
            self._gone += count - ready

    def _join(self, y: Frames, ready: int, dry: Frames | None) -> None:
        """Fade from the filling to what came."""
        fill = self._filled(ready, dry)
        gain = self._gain[:ready]
        np.add(self._count[:ready], self._back + 1, out=gain)
        gain *= 1.0 / self._return
        np.minimum(gain, 1.0, out=gain)
        head = y[:, :ready]
        head -= fill
        head *= gain
        head += fill
        self._gone += ready
        self._back += ready
        if self._back >= self._return:
            self._gone = self._back = 0

    def _filled(self, count: int, dry: Frames | None) -> Frames:
        """The next ``count`` frames of the filling."""
        length = self._history.shape[1]
        places = self._places[:count]
        # Backwards from the last frame, then forwards again: 9 8 7 ... 0 1 2 ... 9 8.
        np.add(self._steps[:count], self._gone, out=places)
        np.remainder(places, 2 * length, out=places)
        np.subtract(places, length, out=places)
        below = np.less(places, 0, out=self._below[:count])
        np.subtract(-1, places, out=places, where=below)
        fill = self._fill[:, :count]
        np.take(self._history, places, axis=1, out=fill, mode="clip")
        gain = self._gain[:count]
        np.add(self._count[:count], self._gone + 1, out=gain)
        gain *= -1.0 / self._fade
        gain += 1.0
        np.maximum(gain, 0.0, out=gain)
        if dry is None:
            fill *= gain
        else:
            fill -= dry[:, :count]
            fill *= gain
            fill += dry[:, :count]
        return fill

    def _recall(self, y: Frames, ready: int) -> None:
        """Take what was heard last: what came of this block, and the played stream before it."""
        length = self._history.shape[1]
        own = min(ready, length)
        self._history[:, length - own :] = y[:, ready - own : ready]
        self._played.read(self._played.written - (length - own), self._history[:, : length - own])
