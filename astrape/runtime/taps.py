"""Taps beside a live stream: levels, and recordings to files."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from astrape.audio.writer import AudioWriter
from astrape.runtime.rings import Frames, Ring

__all__ = ["LiveRecorder", "Meter", "Tap"]


class Tap:
    """New frames of a ring, each once, on request.

    Attributes:
        lost: frames that were overwritten before anybody asked.
    """

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._next = ring.written
        self.lost = 0

    def poll(self) -> Frames:
        """Frames that have come since the last call, ``(channels, frames)``."""
        # A quarter of the ring is left to the writer, which goes on meanwhile.
        least = self._ring.written - self._ring.size * 3 // 4
        if self._next < least:
            self.lost += least - self._next
            self._next = least
        frames = np.empty((self._ring.channels, self._ring.written - self._next), np.float32)
        got = self._ring.read(self._next, frames)
        self._next += got
        return frames[:, :got]


class Meter:
    """Levels of a ring since the last look.

    Attributes:
        peak, rms: of the last look; 1 is full scale.
        clipped: samples at full scale or beyond, since the start.
    """

    def __init__(self, ring: Ring) -> None:
        self._tap = Tap(ring)
        self.peak = self.rms = 0.0
        self.clipped = 0

    def look(self) -> None:
        x = self._tap.poll()
        if x.size:
            level = np.abs(np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0))
            self.peak, self.rms = float(level.max()), float(np.sqrt(np.mean(np.square(level, dtype=np.float64))))
            self.clipped += int((level >= 1.0).sum())


class LiveRecorder:
    """Writes rings to files while they run. The files appear when the ``with`` block ends well.

    Both begin at the same instant, so that one beside the other shows the delay.

    Args:
        files: a path for each ring that is to be recorded.
        rate: Hz.
    """

    def __init__(self, files: list[tuple[Path, Ring]], rate: int) -> None:
        self._taps = [(Tap(ring), AudioWriter(path, rate, ring.channels)) for path, ring in files]
        self._open = ExitStack()

    def __enter__(self) -> LiveRecorder:
        with ExitStack() as opening:
            for _, writer in self._taps:
                opening.enter_context(writer)
            self._open = opening.pop_all()
        return self

    def poll(self) -> None:
        """Write what has come. To be called every second at least."""
        for tap, writer in self._taps:
            frames = tap.poll()
            if frames.shape[1]:
                # Samples that are not finite were heard as silence, and would be a click of full scale in a file.
                writer.write(np.nan_to_num(frames.T, nan=0.0, posinf=0.0, neginf=0.0))

    @property
    def lost(self) -> int:
        """Frames that came too fast to be written."""
        return sum(tap.lost for tap, _ in self._taps)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.poll()
        self._open.__exit__(kind, error, trace)
