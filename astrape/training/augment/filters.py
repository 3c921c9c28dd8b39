"""Augmentations that filter: rooms, microphones, narrow bands. None of them makes anything late."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from astrape.blocks.bands import minimum_phase
from astrape.training.augment.augmentation import (
    Augmentation,
    Augmented,
    Draw,
    Others,
    Span,
    register_augmentation,
    span,
)

__all__ = ["Band", "Equaliser", "Formants", "RandomRoom", "convolved", "fast_length", "minimum_phase_response"]

TAPS = 2048
"""Taps of filters made from their magnitude: 46 ms at 44.1 kHz, enough for a corner at 30 Hz."""

LEAST = 1e-4
"""Magnitude, -80 dB, below which none is asked for: the cepstrum of silence has no end."""

DECAY = math.log(1000.0)
"""A reverberation time is that of 60 dB."""


@register_augmentation("room")
class RandomRoom(Augmentation):
    """A small room: the sound itself, and a tail of noise that dies away.

    The tail begins 1 to 10 ms later, loses 60 dB in the reverberation time, its upper band sooner, and has so much less
    energy than the direct sound as the ratio says. The whole is brought to the energy of the direct sound alone.

    Args:
        chance: see :class:`Augmentation`.
        rt60: seconds to draw between; 0.1 to 0.6 by default, from a car to a bare living room.
        ratio: direct to reverberant energy, dB; 0 to 20 by default, from across the room to near the mouth.
    """

    def __init__(self, chance: float = 1.0, rt60: Span = (0.1, 0.6), ratio: Span = (0.0, 20.0)) -> None:
        super().__init__(chance)
        self.rt60 = span("rt60", rt60, 0.01, 5.0)
        self.ratio = span("ratio", ratio, -20.0, 60.0)

    def response(self, rate: float, draw: Draw) -> Tensor:
        """An impulse response, ``(samples,)``, that begins with the direct sound."""
        seconds = draw.uniform(*self.rt60)
        share = 10 ** (-draw.uniform(*self.ratio) / 10)
        begin = max(1, int(draw.uniform(0.001, 0.010) * rate))
        corner = draw.uniform(3000.0, 8000.0)
        count = max(begin + 1, int(seconds * rate))
        tail = draw.standard_normal(count, dtype=np.float32)
        tail *= np.exp(-DECAY / (seconds * rate) * np.arange(count, dtype=np.float32))
        tail[:begin] = 0
        # One pole, by its spectrum: walls take the upper band first.
        length = fast_length(2 * count)
        pole = 1 / (1 + 1j * np.fft.rfftfreq(length, 1 / rate) / corner)
        late = torch.fft.irfft(torch.fft.rfft(torch.from_numpy(tail), length) * torch.from_numpy(pole), length)[:count]
        late = late * math.sqrt(share / max(float(late.square().sum()), 1e-12))
        late[0] += 1.0
        response: Tensor = (late / math.sqrt(1 + share)).to(torch.float32)
        return response

    def apply(self, wave: Tensor, rate: float, draw: Draw, others: Others) -> Augmented:
        return Augmented(convolved(wave, self.response(rate, draw)))


@register_augmentation("eq")
class Equaliser(Augmentation):
    """A microphone that is not flat: gains at a few frequencies, a smooth line between them.

    Args:
        chance: see :class:`Augmentation`.
        gain: largest gain or loss, dB; 8 by default.
        points: frequencies, evenly spaced in octaves from 60 Hz to half the rate; 7 by default.
    """

    def __init__(self, chance: float = 1.0, gain: float = 8.0, points: int = 7) -> None:
        super().__init__(chance)
        self.gain = span("gain", gain, 0.0, 40.0)[1]
        self.points = int(span("points", points, 2, 64)[1])

    def apply(self, wave: Tensor, rate: float, draw: Draw, others: Others) -> Augmented:
        at = np.geomspace(60.0, rate / 2, self.points)
        gains = draw.uniform(-self.gain, self.gain, self.points)
        octaves = np.log2(np.maximum(np.fft.rfftfreq(2 * TAPS, 1 / rate), 1.0))
        curve = np.interp(octaves, np.log2(at), gains)
        return Augmented(convolved(wave, minimum_phase_response(10 ** (curve / 20))))


@register_augmentation("band")
class Band(Augmentation):
    """A channel that lets a band through: a telephone, a cheap headset, a video call.

    Corners are drawn evenly in octaves; the slopes are those of Butterworth filters.

    Args:
        chance: see :class:`Augmentation`.
        low: lower corner to draw between, Hz; 20 to 300 by default.
        high: upper corner, Hz; 3400 to 16000 by default.
        order: of both slopes, 6 dB an octave each; 2 to 8 by default.
    """

    def __init__(
        self, chance: float = 1.0, low: Span = (20.0, 300.0), high: Span = (3400.0, 16000.0), order: Span = (2, 8)
    ) -> None:
        super().__init__(chance)
        self.low = span("low", low, 1.0, 4000.0)
        self.high = span("high", high, 500.0, 200_000.0)
        self.order = span("order", order, 1, 16)

    def apply(self, wave: Tensor, rate: float, draw: Draw, others: Others) -> Augmented:
        low, high = (math.exp(draw.uniform(math.log(least), math.log(most))) for least, most in (self.low, self.high))
        rise, fall = (int(one) for one in draw.integers(int(self.order[0]), int(self.order[1]) + 1, 2))
        hertz = np.maximum(np.fft.rfftfreq(2 * TAPS, 1 / rate), 1e-3)
        power = 1 / (1 + (low / hertz) ** (2 * rise)) / (1 + (hertz / high) ** (2 * fall))
        return Augmented(convolved(wave, minimum_phase_response(np.sqrt(power))))


@register_augmentation("formants")
class Formants(Augmentation):
    """Another length of the throat: every magnitude of the spectrum at another frequency, with the phase that is there.

    Pitch and time stay: harmonics keep their phases' motion, and only their strengths are those of another place. For a
    front end that hears magnitudes it is another speaker who says the same.

    Args:
        chance: see :class:`Augmentation`.
        factor: what frequencies are multiplied by, to draw between; 0.85 to 1.18 by default.
        window: seconds of a frame; 0.025 by default.
    """

    def __init__(self, chance: float = 1.0, factor: Span = (0.85, 1.18), window: float = 0.025) -> None:
        super().__init__(chance)
        self.factor = span("factor", factor, 0.25, 4.0)
        self.window = span("window", window, 0.005, 0.2)[0]

    def apply(self, wave: Tensor, rate: float, draw: Draw, others: Others) -> Augmented:
        factor = draw.uniform(*self.factor)
        size = fast_length(int(self.window * rate))
        taper = torch.hann_window(size)
        spectrum = torch.stft(wave, size, size // 4, window=taper, return_complex=True, pad_mode="constant")
        at = torch.arange(spectrum.shape[0]) / factor
        low = at.floor().long().clamp(max=spectrum.shape[0] - 2)
        share = (at - low).clamp(max=1.0).unsqueeze(1)
        size_of = spectrum.abs()
        moved = torch.lerp(size_of[low], size_of[low + 1], share)
        turned = spectrum * (moved / size_of.clamp(min=1e-9))
        return Augmented(torch.istft(turned, size, size // 4, window=taper, length=wave.shape[-1]))


def minimum_phase_response(magnitude: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
    """The impulse response of minimum phase with a magnitude, ``(bins,)`` to float32 ``(bins - 1,)``.

    What is left of the response after half the transform is cut off.
    """
    count = 2 * (len(magnitude) - 1)
    response = np.fft.irfft(np.exp(minimum_phase(np.log(np.maximum(magnitude, LEAST)))), count)
    return torch.from_numpy(response[: count // 2].astype(np.float32))


def convolved(wave: Tensor, response: Tensor) -> Tensor:
    """A wave through a filter, as long as the wave."""
    length = fast_length(wave.shape[-1] + response.shape[-1] - 1)
    product = torch.fft.rfft(wave, length) * torch.fft.rfft(response, length)
    filtered: Tensor = torch.fft.irfft(product, length)[: wave.shape[-1]]
    return filtered


def fast_length(least: int) -> int:
    """The smallest length of at least so many that is a product of 2, 3 and 5: a quick transform.

    >>> fast_length(88201)
    90000
    """
    odds: list[int] = [3**threes * 5**fives for threes in range(5) for fives in range(5)]
    lengths: list[int] = [odd << max(1, (-(-least // odd) - 1).bit_length()) for odd in odds]
    return min(lengths)
