"""Quality of a recording: level, clipping, activity and offset, measured piece by piece in constant memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["WARNINGS", "ReferenceMeter", "ReferenceQuality", "rms_dbfs"]

FULL_SCALE = 0.999
"""A sample from here on is clipped; below 1, since limiters and lossy codecs leave clipped samples a little short."""

ACTIVE_DBFS = -50.0
FRAME_SECONDS, STEP_SECONDS = 0.02, 0.01
QUIETEST_DBFS = -240.0
"""The level of silence, whose logarithm is not a number."""

WARNINGS = {
    "clipping_detected": "over 0.01 % of the samples are clipped: record with less gain",
    "reference_too_quiet": "under -35 dBFS: record closer or with more gain",
    "reference_too_loud": "over -8 dBFS: record with less gain",
    "low_active_speech_ratio": "under 60 % of the time is speech: cut the pauses out",
    "dc_offset_detected": "the mean is over 0.01 from zero: remove the offset with a high-pass filter",
}
"""Faults of a recording, by the names that voicebank files use, each with a hint."""


def rms_dbfs(power: float) -> float:
    """Decibels of full scale of a mean square; -240 for silence."""
    return max(QUIETEST_DBFS, 10 * math.log10(power)) if power > 0 else QUIETEST_DBFS


@dataclass(frozen=True)
class ReferenceQuality:
    """Measurements of one or more recordings together, each weighted by its length.

    Level, peak and offset are those of the mean of all channels, which is what is embedded. Clipping is counted on the
    channels themselves, whose mean would hide it.

    Attributes:
        duration_seconds: length.
        peak_amplitude: largest magnitude; 1 is full scale.
        rms_dbfs: level over all of it, silence included; -240 and above.
        clipping_fraction: share of samples at 0.999 of full scale or more.
        active_speech_ratio: share of 20 ms frames, one every 10 ms, at -50 dBFS or more.
        dc_offset: mean of the samples.
    """

    duration_seconds: float
    peak_amplitude: float
    rms_dbfs: float
    clipping_fraction: float
    active_speech_ratio: float
    dc_offset: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """Faults of the recording, of ``WARNINGS``."""
        found = (
            self.clipping_fraction > 1e-4,
            self.rms_dbfs < -35,
            self.rms_dbfs > -8,
            self.active_speech_ratio < 0.6,
            abs(self.dc_offset) > 0.01,
        )
        return tuple(name for name, holds in zip(WARNINGS, found, strict=True) if holds)


class ReferenceMeter:
    """Measures one recording.

    Args:
        rate: Hz.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.frames = 0
        self.peak = 0.0
        self.energy = 0.0
        self.sum = 0.0
        self.clipped = 0.0
        self.active_frames = 0
        self.frames_seen = 0
        self._frame = max(1, round(rate * FRAME_SECONDS))
        self._step = max(1, round(rate * STEP_SECONDS))
        self._held: npt.NDArray[np.float64] = np.zeros(0)

    def add(self, samples: npt.NDArray[Any]) -> None:
        """Go on with ``(frames, channels)``."""
        if not len(samples):
            return
        mono = samples.mean(axis=1, dtype=np.float64)
        self.frames += len(mono)
        self.peak = max(self.peak, float(np.abs(mono).max()))
        self.energy += float(np.square(mono).sum())
        self.sum += float(mono.sum())
        self.clipped += float((np.abs(samples) >= FULL_SCALE).mean(axis=1).sum())
        self._count_active(np.concatenate((self._held, mono)))

    def _count_active(self, samples: npt.NDArray[np.float64]) -> None:
        count = max(0, (len(samples) - self._frame) // self._step + 1)
        if count:
            frames = np.lib.stride_tricks.sliding_window_view(samples, self._frame)[:: self._step]
            self.active_frames += int((np.square(frames).mean(axis=1) >= 10 ** (ACTIVE_DBFS / 10)).sum())
            self.frames_seen += count
        self._held = samples[count * self._step :].copy()

    @staticmethod
    def together(meters: Sequence[ReferenceMeter]) -> ReferenceQuality:
        """All recordings as one, however many frames a second each of them has."""
        seconds = math.fsum(meter.frames / meter.rate for meter in meters)
        frames = sum(meter.frames_seen for meter in meters)

        def mean(name: str) -> float:
            return math.fsum(getattr(meter, name) / meter.rate for meter in meters) / seconds if seconds else 0.0

        return ReferenceQuality(
            duration_seconds=seconds,
            peak_amplitude=max((meter.peak for meter in meters), default=0.0),
            rms_dbfs=rms_dbfs(mean("energy")),
            clipping_fraction=min(1.0, mean("clipped")),
            active_speech_ratio=sum(meter.active_frames for meter in meters) / frames if frames else 0.0,
            dc_offset=mean("sum"),
        )
