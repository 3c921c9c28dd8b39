"""Pitch: whether the melody of the source is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.voice.evaluation.context import Context, Tools
from astrape.voice.evaluation.errors import EvaluationError, MetricError
from astrape.voice.evaluation.metric import Quantity
from astrape.voice.evaluation.packages import Package
from astrape.voice.evaluation.recording import Recording

__all__ = ["TRACKERS", "Melody", "PitchTrack", "compare_pitch"]

RATE = 16000
HOP = 256
LOWEST, HIGHEST = 50.0, 600.0
"""Hz; voices, not whistles."""
PIECE_SECONDS = 32.0
"""A whole number of hops, 2000 of them."""
FEWEST_VOICED = 10

SWIFT = Package("swift-f0", "swift_f0", "swift-f0")
WORLD = Package("pyworld", "pyworld", "pyworld")
TRACKERS = {"swift-f0": SWIFT, "pyworld": WORLD}

Pitch = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PitchTrack:
    """Fundamental frequency every 16 ms, Hz; 0 where unvoiced."""

    hertz: Pitch

    rate = RATE / HOP

    @property
    def voiced(self) -> npt.NDArray[np.bool_]:
        return self.hertz > 0


def compare_pitch(source: PitchTrack, converted: PitchTrack) -> dict[str, float]:
    """Correlation, voicing agreement and shift of two tracks, over the frames that both have.

    The correlation is Pearson's, of the logarithms, over frames that are voiced in both: a voice moved by any interval
    as a whole keeps 1. The agreement is the share of frames on whose voicing both agree. The shift is the median
    interval over the frames voiced in both, in semitones.

    Raises:
        MetricError: when fewer than 10 frames are voiced in both, or one of the two never moves.
    """
    frames = min(len(source.hertz), len(converted.hertz))
    a, b = source.hertz[:frames], converted.hertz[:frames]
    both = (a > 0) & (b > 0)
    if both.sum() < FEWEST_VOICED:
        raise MetricError(
            f"{int(both.sum())} frames are voiced in source and result both, and it takes {FEWEST_VOICED}"
        )
    x, y = np.log2(a[both]), np.log2(b[both])
    scores = {
        "voicing_agreement": 100 * float(((a > 0) == (b > 0)).mean()),
        "f0_shift": 12 * float(np.median(y - x)),
    }
    x, y = x - x.mean(), y - y.mean()
    spread = float(np.sqrt((x @ x) * (y @ y)))
    # Rounding leaves a pitch that never moves a spread of 1e-30 or so.
    if spread < 1e-12 * len(x):
        raise MetricError("the pitch of the source or of the result never moves, and has no correlation")
    return scores | {"f0_correlation": float(x @ y) / spread}


class Melody:
    """The course of the fundamental frequency, by SwiftF0, or by WORLD (DIO and StoneMask; Morise et al. 2016)."""

    name = "pitch"
    quantities = (
        Quantity(
            "f0_correlation",
            "Pitch correlation",
            "",
            "higher",
            "Pearson's correlation of log pitch with the source's, where both are voiced",
        ),
        Quantity(
            "voicing_agreement",
            "Voicing agreement",
            "%",
            "higher",
            "frames on which source and result agree to be voiced or not",
            digits=1,
        ),
        Quantity(
            "f0_shift", "Pitch shift", "semitones", None, "median interval from the source to the result", digits=2
        ),
    )

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        if tools.tracker is not None and tools.tracker not in TRACKERS:
            raise EvaluationError(f"there is no pitch tracker '{tools.tracker}' (choose from: {', '.join(TRACKERS)})")
        found = [name for name, package in TRACKERS.items() if find_spec(package.module) is not None]
        self.tracker = tools.tracker or (found[0] if found else next(iter(TRACKERS)))

    @property
    def packages(self) -> tuple[Package, ...]:
        return (TRACKERS[self.tracker],)

    def score(self, context: Context) -> dict[str, float]:
        return compare_pitch(self.track(context.source), self.track(context.converted))

    def pooled(self, parts: Sequence[object]) -> dict[str, float]:
        return {}

    def track(self, recording: Recording) -> PitchTrack:
        """The pitch of a recording; kept, since the page draws it too."""
        return self.tools.remember("pitch", recording, self._track)

    def _track(self, recording: Recording) -> PitchTrack:
        return PitchTrack(np.concatenate(list(self._follow(recording))))

    @cached_property
    def _follow(self) -> Callable[[Recording], Any]:
        return _swift() if self.tracker == "swift-f0" else _world


def _swift() -> Callable[[Recording], Any]:
    from swift_f0 import SwiftF0

    detector = SwiftF0(threads=1, spin=False)

    def follow(recording: Recording) -> Any:
        stream = detector.stream(fmin=LOWEST, fmax=HIGHEST)
        for piece in recording.pieces(RATE, PIECE_SECONDS):
            yield _voiced(stream.push(piece, RATE))
        yield _voiced(stream.flush())

    return follow


def _voiced(found: Any) -> Pitch:
    return np.where(found.confidence >= 0.5, found.pitch_hz, 0.0)


def _world(recording: Recording) -> Any:
    import pyworld

    for piece in recording.pieces(RATE, PIECE_SECONDS):
        samples = piece.astype(np.float64)
        coarse, times = pyworld.dio(samples, RATE, f0_floor=LOWEST, f0_ceil=HIGHEST, frame_period=1000 * HOP / RATE)
        # One frame more than there are hops: the next piece's first.
        yield pyworld.stonemask(samples, coarse, times, RATE)[: max(1, len(piece) // HOP)]
