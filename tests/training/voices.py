"""Synthetic voices: vowels in random order, each voice with its own pitch and length of throat. Small and learnable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import lfilter

RATE = 44100
VOWELS = {
    "a": (800, 1200, 2500),
    "e": (450, 2000, 2600),
    "i": (280, 2300, 3000),
    "o": (450, 850, 2600),
    "u": (320, 800, 2300),
}
VOWEL_SECONDS = 0.16


def vowel(which: str, samples: int, pitch: float, throat: float, draw: np.random.Generator) -> NDArray[np.float64]:
    """One vowel: a pulse train, with a little noise, through three resonances."""
    phase = np.cumsum(np.full(samples, pitch / RATE)) + draw.random()
    x = np.diff(np.floor(phase), prepend=np.floor(phase[0])) + 0.003 * draw.standard_normal(samples)
    for formant in VOWELS[which]:
        pole = np.exp(-np.pi * 90 / RATE + 2j * np.pi * formant * throat / RATE)
        x = lfilter([abs(1 - pole) ** 2], [1, -2 * pole.real, abs(pole) ** 2], x)
    return x


def utterance(speaker: int, number: int, seconds: float) -> NDArray[np.float32]:
    """Vowels for some seconds, with silences between."""
    draw = np.random.default_rng((speaker, number))
    own = np.random.default_rng(speaker)
    pitch, throat = own.uniform(100, 170), own.uniform(0.93, 1.07)
    samples = int(VOWEL_SECONDS * RATE)
    fade = np.minimum(1, np.minimum(np.arange(samples), np.arange(samples)[::-1]) / (0.01 * RATE))
    pieces = []
    for _ in range(int(seconds / VOWEL_SECONDS) + 1):
        if draw.random() < 0.4:
            pieces.append(np.zeros(samples))
        else:
            which = list(VOWELS)[draw.integers(len(VOWELS))]
            pieces.append(fade * vowel(which, samples, pitch * draw.uniform(0.95, 1.05), throat, draw))
    wave = np.concatenate(pieces)[: int(seconds * RATE)]
    wave = 0.2 * wave / (np.sqrt(np.mean(wave**2)) + 1e-9) + 1e-4 * draw.standard_normal(len(wave))
    return np.clip(wave, -1, 1).astype(np.float32)


def write_vctk(root: Path, speakers: int = 4, utterances: int = 4, seconds: float = 2.2) -> Path:
    """A corpus in VCTK's layout."""
    for speaker in range(speakers):
        name = f"p{225 + speaker}"
        folder = root / "wav48_silence_trimmed" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, utterances + 1):
            wave = utterance(speaker, number, seconds + 0.1 * number)
            soundfile.write(folder / f"{name}_{number:03d}_mic1.flac", wave, RATE)
    return root
