"""Pseudo-speakers: a rendering with its formants moved along frequency, and its pitch with them (WORLD)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.corpus.errors import ToolError
from astrape.wording import lacking

__all__ = ["PERIOD_MS", "fundamental", "warped"]

PERIOD_MS = 12.5
"""Frame period of F0 as it is stored."""

LOWEST, HIGHEST = 60.0, 500.0
"""Hz, of a speaker's F0."""

Floats = npt.NDArray[np.float32]


def warped(audio: Floats, f0: Floats, rate: int, stretch: float, pitch: float) -> tuple[Floats, Floats]:
    """The same speech from a vocal tract of another length.

    WORLD's envelope is stretched along frequency and its F0 multiplied; aperiodicity stays where it is. Length and
    timing stay, so the labels do.

    Args:
        audio: ``(samples,)``.
        f0: Hz at 80 Hz, 0 where unvoiced; frame ``j`` covers ``j / 80`` to ``(j + 1) / 80`` seconds.
        rate: of the audio, Hz.
        stretch: above 1 moves formants up.
        pitch: times F0.

    Returns:
        Audio and F0, as long as they came.

    Raises:
        ToolError: without the package pyworld.
    """
    world = _world()
    x = audio.astype(np.float64)
    # WORLD's frames are instants, j / 80 s: between two of the stored frames.
    before = np.concatenate((f0[:1], f0[:-1])).astype(np.float64)
    both = (before > 0) & (f0 > 0)
    track = np.where(both, (before + f0) / 2, np.maximum(before, f0)).astype(np.float64)
    times = np.arange(len(track)) * PERIOD_MS / 1000
    envelope = world.cheaptrick(x, track, times, rate)
    aperiodicity = world.d4c(x, track, times, rate)
    bins = np.arange(envelope.shape[1])
    # A bin of the new envelope is taken from where it was; beyond the last one, the last one goes on.
    places = np.minimum(bins / stretch, bins[-1])
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, bins[-1])
    share = places - low
    logs = np.log(envelope)
    moved = np.ascontiguousarray(np.exp((1 - share) * logs[:, low] + share * logs[:, high]))
    made = world.synthesize(track * pitch, moved, aperiodicity, rate, PERIOD_MS)
    out = np.zeros(len(audio), np.float32)
    count = min(len(audio), len(made))
    out[:count] = made[:count]
    return out, (f0 * np.float32(pitch)).astype(np.float32)


def fundamental(audio: Floats, rate: int, frames: int) -> Floats:
    """F0 of a recording by WORLD (DIO, refined), Hz at 80 Hz, 0 where unvoiced.

    Args:
        audio: ``(samples,)``.
        rate: Hz.
        frames: of the result; frame ``j`` is measured in its middle.

    Raises:
        ToolError: without the package pyworld.
    """
    world = _world()
    x = audio.astype(np.float64)
    # Twice as dense, so that every other instant is the middle of a frame.
    track, times = world.dio(x, rate, f0_floor=LOWEST, f0_ceil=HIGHEST, frame_period=PERIOD_MS / 2)
    track = world.stonemask(x, track, times, rate)[1::2][:frames]
    return np.concatenate((track, np.zeros(frames - len(track)))).astype(np.float32)


def _world() -> Any:
    try:
        # It warns of a package that it imports itself.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pyworld
    except ImportError as error:
        raise ToolError(lacking("the F0 of speech", "pyworld", "corpus")) from error
    return pyworld
