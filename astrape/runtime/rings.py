"""A ring of frames without waiting: one thread writes, any number of others read by frame number."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Frames", "Ring"]

Frames = npt.NDArray[np.float32]
"""``(channels, frames)``."""


class Ring:
    """The last frames of a stream, by their number since its beginning.

    Writing never fails and never waits: it overwrites what is oldest. A reader names the frame it wants, and is told
    how many there are; what was overwritten while it copied, it is not given. There is no lock: the writer alone moves
    the two counters, says before it copies how far it is going to write, and after it how far it has.

    Nothing is allocated after the ring is made, but for views.

    Args:
        channels: of a frame.
        frames: that are kept at least; rounded up to a power of two.

    Attributes:
        written: frames written since the beginning: the number of the next one.

    >>> ring = Ring(1, 4)
    >>> ring.write(np.arange(6, dtype=np.float32)[None])
    >>> out = np.zeros((1, 3), dtype=np.float32)
    >>> ring.read(3, out), out.tolist(), ring.oldest
    (3, [[3.0, 4.0, 5.0]], 2)
    """

    def __init__(self, channels: int, frames: int) -> None:
        self.size = 1 << max(0, frames - 1).bit_length()
        self._data = np.zeros((channels, self.size), np.float32)
        self._claimed = 0
        self.written = 0

    @property
    def channels(self) -> int:
        return len(self._data)

    @property
    def oldest(self) -> int:
        """Number of the oldest frame that is still there."""
        return max(0, self._claimed - self.size)

    def write(self, x: npt.NDArray[Any]) -> None:
        """Append ``(channels, n)``, of which at most ``size`` frames stay."""
        count = int(x.shape[1])
        first = self.written
        self._claimed = first + count
        kept = min(count, self.size)
        begin = (first + count - kept) % self.size
        ahead = min(kept, self.size - begin)
        if kept:
            self._data[:, begin : begin + ahead] = x[:, count - kept : count - kept + ahead]
        if ahead < kept:
            self._data[:, : kept - ahead] = x[:, count - kept + ahead :]
        self.written = first + count

    def read(self, first: int, out: npt.NDArray[Any]) -> int:
        """Copy frames from number ``first`` on, and say how many are there.

        Frames before number 0 are silence.

        Returns:
            How many frames at the beginning of ``out`` are right. 0 where ``first`` was overwritten already.
        """
        wanted = int(out.shape[1])
        before = min(max(0, -first), wanted)
        if before:
            out[:, :before] = 0
        start = first + before
        count = min(wanted - before, self.written - start)
        if count <= 0:
            return before
        begin = start % self.size
        ahead = min(count, self.size - begin)
        if count > self.size:
            return 0
        out[:, before : before + ahead] = self._data[:, begin : begin + ahead]
        if ahead < count:
            out[:, before + ahead : before + count] = self._data[:, : count - ahead]
        if self._claimed - self.size > start:
            return 0
        return before + count
