"""Conditions: the source as a worse microphone hears it. What is measured against stays the clean source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from astrape.audio.atomic import make_folder
from astrape.audio.places import Place
from astrape.audio.writer import AudioWriter
from astrape.voice.evaluation.errors import EvaluationError
from astrape.voice.evaluation.pairs import Pair
from astrape.voice.evaluation.recording import Recording

__all__ = ["CLEAN", "CONDITIONS", "degraded", "noise_and_room"]

Floats = npt.NDArray[np.float64]

CLEAN = "clean"
NOISE_DB = 15.0
ROOM_SECONDS, ROOM_DB = 0.35, -3.0
ROOM_STARTS = 0.002
"""Seconds after the direct sound at which the first reflections come: less than a metre of detour."""


def noise_and_room(samples: Floats, rate: int, seed: int) -> Floats:
    """Speech in a small room with noise at 15 dB.

    The room is the direct sound, and from 2 ms on Gaussian noise whose level falls by 60 dB in 0.35 s (Polack's model
    of late reverberation, 1988), 3 dB below the direct sound in energy: a furnished office, half a metre from the
    microphone. The noise is pink, 15 dB below the reverberant speech, both measured over the whole recording. The
    direct sound stays where it was, so that results are still in time with the clean source.

    Args:
        samples: ``(frames,)``.
        rate: Hz.
        seed: of room and noise.
    """
    random = np.random.default_rng(seed)
    tail = random.standard_normal(round(ROOM_SECONDS * rate)) * 10 ** (
        -3 * np.arange(round(ROOM_SECONDS * rate)) / (ROOM_SECONDS * rate)
    )
    tail[: round(ROOM_STARTS * rate)] = 0
    room = tail * np.sqrt(10 ** (ROOM_DB / 10) / np.square(tail).sum())
    room[0] = 1
    size = 1 << (len(samples) + len(room)).bit_length()
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(room, size), size)[: len(samples)]
    noise = _pink(len(samples), random)
    level = np.sqrt(np.square(wet).mean() / max(float(np.square(noise).mean()), 1e-30) * 10 ** (-NOISE_DB / 10))
    return np.asarray(wet + level * noise)


CONDITIONS: dict[str, Callable[[Floats, int, int], Floats]] = {"noise-room": noise_and_room}
"""Conditions by name: ``(samples, rate, seed)`` to samples of the same length."""


def degraded(pairs: Sequence[Pair], condition: str, folder: Path | Place) -> list[Pair]:
    """The same pairs, whose systems hear a degraded source instead.

    Args:
        pairs: with clean sources, of some minutes at most: they are held in memory whole.
        condition: of ``CONDITIONS``.
        folder: sources go to ``folder/SPEAKER/NAME.wav``, in one channel at their own rate. The seed is drawn from the
            source's name, so that a source sounds alike in every run.

    Raises:
        EvaluationError: for an unknown condition.
        AstrapeError: for a source that cannot be read, and a file that cannot be written.
    """
    if condition not in CONDITIONS:
        raise EvaluationError(f"there is no condition '{condition}' (choose from: {', '.join(CONDITIONS)})")
    made: dict[str, Path | Place] = {}
    for pair in pairs:
        key = pair.source.key
        if key not in made:
            made[key] = folder / f"{key}.wav"
            recording = Recording(pair.source.path)
            samples = np.concatenate(list(recording.pieces(recording.rate, 30.0))).astype(np.float64)
            seed = int.from_bytes(hashlib.sha256(f"{condition} {key}".encode()).digest()[:8], "little")
            worse = CONDITIONS[condition](samples, recording.rate, seed)
            peak = float(np.abs(worse).max())
            make_folder(made[key].parent)
            with AudioWriter(made[key], recording.rate, 1, "FLOAT") as written:
                written.write((worse / max(1.0, peak)).astype(np.float32)[:, None])
    return [replace(pair, given=made[pair.source.key]) for pair in pairs]


def _pink(count: int, random: np.random.Generator) -> Floats:
    """Noise whose power falls by 3 dB an octave."""
    spectrum = np.fft.rfft(random.standard_normal(count))
    return np.asarray(np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1.0)), count))
