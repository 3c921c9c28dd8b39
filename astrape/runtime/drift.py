"""Sound from a device with one clock to a device with another: their drift is measured, and resampled away."""

from __future__ import annotations

import math

import numpy as np

from astrape.runtime.rings import Frames, Ring

__all__ = ["Bridge", "DelayLockedLoop"]

HALF = 16
"""Half the filter, frames: what it is late by."""

PHASES = 256
"""Phases of the filter's table; between two of them it is interpolated, 100 dB below the sound."""

SHAPE = 9.0
"""Beta of the Kaiser window: 90 dB."""

BANDWIDTH = 0.05
"""Hz, of the loops that smooth the times of callbacks: of 100 a second, jitter comes out 17 times smaller."""

PULL = 8.0
"""Seconds within which a wrong distance is corrected: a frame too many is 3 parts in a million of pitch."""

STEEPEST = 0.005
"""Largest deviation of the ratio of the clocks from 1; crystals differ by 0.0002 at most."""

MARGIN = 0.004
"""Seconds held for callbacks that come late."""


AWAY = 0.2
"""Seconds without a callback after which a device has been away."""


class DelayLockedLoop:
    """An estimate of when each frame of a device arrives, from the jittering times of its callbacks.

    A second-order loop (F. Adriaensen, "Using a DLL to filter time", Linux Audio Conference 2005), which begins wide
    and narrows down within some seconds.

    Args:
        rate: nominal, Hz.

    Attributes:
        period: measured seconds a frame.
    """

    def __init__(self, rate: float) -> None:
        self.period = 1.0 / rate
        self._rate = rate
        self._time = 0.0
        self._frames = 0
        self._updates = 0
        self._began = 0.0

    def update(self, now: float, frames: int, block: int) -> None:
        """A callback at ``now`` seconds has brought the number of frames up to ``frames``, by ``block``."""
        if self._updates == 0:
            self._began = self._time = now
            self._frames = frames
            self._updates = 1
            return
        expected = self.at_frame(frames)
        length = block / self._rate
        width = max(BANDWIDTH, 1.0 / max(2 * length, now - self._began))
        omega = min(0.5, 2 * math.pi * width * length)
        error = now - expected
        if abs(error) > AWAY:
            # The device was away. Its clock is what it was, and its count begins here.
            self._began = self._time = now
            self._frames = frames
            return
        self._time = expected + math.sqrt(2) * omega * error
        self._frames = frames
        self.period += omega * omega * error / max(1, block)
        self._updates += 1

    def at_frame(self, frames: int) -> float:
        """The time at which a count of frames has arrived, in seconds."""
        return self._time + (frames - self._frames) * self.period

    def frames_at(self, now: float) -> float:
        """The count of frames that have arrived by a time, a part of the next one included."""
        return self._frames + (now - self._time) / self.period


class Bridge:
    """Carries sound from one device's callback to another's, always by the same delay.

    The source writes, the sink reads, and neither waits. Where the sink reads moves on by the measured ratio of both
    clocks, with a slow pull towards the distance that is wanted; in between, a windowed sinc interpolates. Nothing is
    dropped or doubled.

    Args:
        channels: of the sound.
        rate: nominal rate of both devices, Hz.
        block_in, block_out: frames of the longest block of either.

    Attributes:
        late: frames from a sample's arrival to its being handed on, as if every frame arrived by itself.
        ratio: of the source's clock to the sink's, as measured: 1.0001 for a source that is fast by 100 parts in a
            million.
        empty: frames for which the source had nothing, as when it was unplugged.
        restarts: how often the distance was set anew, since the source was away.
    """

    def __init__(self, channels: int, rate: float, block_in: int, block_out: int) -> None:
        self.rate = rate
        self.late = block_in + block_out + HALF + 2 + math.ceil(MARGIN * rate)
        self.ratio = 1.0
        self.empty = 0
        self.restarts = 0
        self.ring = Ring(channels, 4 * (self.late + block_in + block_out) + int(0.5 * rate))
        self._source, self._sink = DelayLockedLoop(rate), DelayLockedLoop(rate)
        self._read = 0
        self._place = 0
        self._part = 0.0
        self._locked = False
        self._table = _table()
        longest = int(block_out * (1 + 2 * STEEPEST)) + 2 * HALF + 4
        self._window = np.zeros((channels, longest), np.float32)
        self._count = np.arange(block_out, dtype=np.float64)

    def write(self, x: Frames, now: float) -> None:
        """A block of the source, whose callback came at ``now`` seconds."""
        self.ring.write(x)
        self._source.update(now, self.ring.written, x.shape[1])

    def read(self, y: Frames, now: float) -> None:
        """Fill a block of the sink, whose callback came at ``now`` seconds."""
        count = y.shape[1]
        self._read += count
        self._sink.update(now, self._read, count)
        # Times of this block's frames as the smoothed clock has them, not the callback's own.
        smooth = self._sink.at_frame(self._read)
        wanted = self._source.frames_at(smooth) - self.late
        if not self._locked or abs(wanted - self._place - self._part) > self.late:
            if self.ring.written <= 0 or wanted < HALF or self.ring.written < wanted + count + HALF:
                y[:] = 0.0
                self.empty += count if self._locked else 0
                return
            self.restarts += self._locked
            self._locked = True
            self._place = math.floor(wanted)
            self._part = wanted - self._place
        self._move(y, wanted - self._place - self._part)

    def _move(self, y: Frames, error: float) -> None:
        count = y.shape[1]
        self.ratio = self._sink.period / self._source.period
        step = self.ratio * (1 + error / (PULL * self.rate))
        step = min(1 + STEEPEST, max(1 - STEEPEST, step))
        places = self._part + step * self._count[:count]
        whole = places.astype(np.int64)
        length = int(whole[-1]) + 2 * HALF
        window = self._window[:, :length]
        if self.ring.read(self._place - HALF + 1, window) < length:
            # Missing frames are silence; afterwards the distance is what it was.
            y[:] = 0.0
            self.empty += count
        else:
            phases = (places - whole) * PHASES
            phase = phases.astype(np.int64)
            weights = self._table[phase] + (phases - phase)[:, None] * (self._table[phase + 1] - self._table[phase])
            frames = np.lib.stride_tricks.sliding_window_view(window, 2 * HALF, axis=1)[:, whole]
            np.einsum("cnk,nk->cn", frames, weights, out=y, casting="same_kind")
        end = self._part + step * count
        self._place += math.floor(end)
        self._part = end - math.floor(end)


def _table() -> np.ndarray:
    """Weights of the frames around an instant, ``(phases + 1, 2 * HALF)``: each row sums to 1."""
    fractions = np.arange(PHASES + 1)[:, None] / PHASES
    distance = np.arange(-HALF + 1, HALF + 1)[None] - fractions
    bell = np.i0(SHAPE * np.sqrt(np.maximum(0.0, 1 - (distance / HALF) ** 2)))
    weights = np.sinc(0.94 * distance) * bell
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
