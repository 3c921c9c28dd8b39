"""Augmentation by noise."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from astrape.training.augment.augmentation import (
    Augmentation,
    Augmented,
    Draw,
    Others,
    Span,
    register_augmentation,
    span,
)
from astrape.training.augment.filters import fast_length

__all__ = ["Babble", "RandomNoise", "speech_level"]

FRAME_SECONDS = 0.02

QUIET_DB = 30.0
"""Frames so far below the loudest one are pauses, and have no part in the level of speech."""

LOWEST_HZ = 20.0


@register_augmentation("noise")
class RandomNoise(Augmentation):
    """Steady noise, from white to brown.

    Its power falls with the frequency to the power of the tilt: 0 is white, 1 pink, 2 brown. The ratio is that of the
    level of speech, without its pauses, to that of the noise. A silent window stays silent.

    Args:
        chance: see :class:`Augmentation`.
        snr: ratio of speech to noise to draw between, dB; 5 to 40 by default.
        tilt: 0 to 2 by default.
    """

    def __init__(self, chance: float = 1.0, snr: Span = (5.0, 40.0), tilt: Span = (0.0, 2.0)) -> None:
        super().__init__(chance)
        self.snr = span("snr", snr, -20.0, 120.0)
        self.tilt = span("tilt", tilt, -2.0, 4.0)

    def apply(self, wave: Tensor, rate: float, draw: Draw, others: Others) -> Augmented:
        ratio, tilt = draw.uniform(*self.snr), draw.uniform(*self.tilt)
        length = fast_length(wave.shape[-1])
        hertz = torch.fft.rfftfreq(length, 1 / rate).clamp(min=LOWEST_HZ)
        bins = draw.standard_normal((2, len(hertz)), dtype=np.float32)
        spectrum = torch.complex(*torch.from_numpy(bins)) * hertz.pow(-tilt / 2)
        noise = torch.fft.irfft(spectrum, length)[: wave.shape[-1]]
        level = speech_level(wave, rate) * 10 ** (-ratio / 20)
        return Augmented(wave + noise * (level / max(float(noise.square().mean().sqrt()), 1e-12)))


@register_augmentation("babble")
class Babble(Augmentation):
    """Others who speak at the same time: other recordings of the corpus, at one level together.

    Args:
        chance: see :class:`Augmentation`.
        snr: ratio of the speaker to the others to draw between, dB; 5 to 25 by default.
        voices: how many others; 1 to 3 by default.
    """

    def __init__(self, chance: float = 1.0, snr: Span = (5.0, 25.0), voices: Span = (1, 3)) -> None:
        super().__init__(chance)
        self.snr = span("snr", snr, -20.0, 120.0)
        self.voices = span("voices", voices, 1, 16)

    def apply(self, wave: Tensor, rate: float, draw: Draw, others: Others) -> Augmented:
        ratio = draw.uniform(*self.snr)
        count = int(draw.integers(int(self.voices[0]), int(self.voices[1]) + 1))
        noise = torch.stack([others(draw) for _ in range(count)]).sum(dim=0)
        level = speech_level(wave, rate) * 10 ** (-ratio / 20)
        return Augmented(wave + noise * (level / max(speech_level(noise, rate), 1e-9)))


def speech_level(wave: Tensor, rate: float) -> float:
    """Root mean square over frames of 20 ms that are not pauses; of ``(samples,)``."""
    size = min(wave.shape[-1], max(1, int(FRAME_SECONDS * rate)))
    power = wave.unfold(-1, size, size).square().mean(dim=-1)
    loud = power >= power.max() * 10 ** (-QUIET_DB / 10)
    return math.sqrt(float(power[loud].mean()))
