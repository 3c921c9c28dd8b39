"""Caches of recordings themselves: decoded and resampled once, and how high they are.

- ``audio``: int16 ``(1, frames)`` at one rate. 16384 is full scale, so that what a resampler overshoots by is not cut
  off; the rounding is at -92 dB of full scale. Two bytes a sample: an hour at 44.1 kHz takes 318 MB.
- ``pitch``: float32 ``(1, frames)`` at 80 Hz, Hz, 0 where there is none, as a parallel corpus has it in its tables;
  from :class:`~astrape.blocks.pitch.PitchTracker`, moved back by its latency.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.blocks.pitch import PitchTracker
from astrape.graph.recipe import Recipe
from astrape.training.caches.record import Record
from astrape.training.errors import CacheError
from astrape.training.pairing import Clock, pitch_at
from astrape.training.tables import PITCH_RATE

__all__ = [
    "FULL_SCALE",
    "TRACKED_RATE",
    "audio_record",
    "microphone_rate",
    "packed",
    "pitch_record",
    "tracked_pitch",
    "unpacked",
]

FULL_SCALE = 16384
TRACKED_RATE = Fraction(16000)


def audio_record(rate: Fraction) -> Record:
    """The record of a cache of audio."""
    identity = {"full scale": FULL_SCALE}
    return Record("audio", 1, rate, f"recordings at {rate} Hz", identity)


def pitch_record() -> Record:
    """The record of a cache of pitch."""
    identity: dict[str, Any] = {"tracker": "pitch_tracker at 16 kHz, as it is by default"}
    return Record("pitch", 1, PITCH_RATE, "the pitch tracker", identity)


def microphone_rate(recipe: str) -> Fraction:
    """The rate of a recipe's audio.

    Raises:
        CacheError: for a recipe that hears nothing.
    """
    read = Recipe.load(recipe)
    rates = [Fraction(stream.rate) for stream in read.inputs.values() if stream.rate >= 4000]
    if not rates:
        raise CacheError(f"recipe '{recipe}' has no input of audio: give a rate with --rate")
    return rates[0]


def packed(wave: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Samples as they are stored; what lies beyond twice full scale is cut off."""
    return np.clip(np.rint(wave * FULL_SCALE), -32768, 32767).astype(np.int16)


def unpacked(stored: npt.NDArray[np.int16]) -> Tensor:
    """Samples as they were, float32."""
    return torch.from_numpy(stored.astype(np.float32)).div_(FULL_SCALE)


def tracked_pitch(audio: Tensor, frames: int) -> Tensor:
    """The fundamental at 80 Hz, ``(1, frames)``.

    Args:
        audio: ``(1, 1, samples)`` at 16 kHz.
        frames: how many.
    """
    tracker = _tracker()
    late = int(tracker.latency * TRACKED_RATE) + 1
    count = audio.shape[-1] + late
    padded = torch.nn.functional.pad(audio, (0, late + -count % tracker.quantum))
    with torch.inference_mode():
        found = tracker(padded)[0, :1]
    return pitch_at(found, frames, Clock(PITCH_RATE), Clock(tracker.rate_out, tracker.latency)).clone()


@cache
def _tracker() -> PitchTracker:
    return PitchTracker(Stream(TRACKED_RATE, 1))
