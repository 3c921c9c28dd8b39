"""Augmentations of the samples' values: level, saturation, coding."""

from __future__ import annotations

import math

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

__all__ = ["Codec", "RandomGain", "RandomSaturation"]

MU = 255.0


@register_augmentation("gain")
class RandomGain(Augmentation):
    """Another level, of source and target alike.

    Args:
        chance: see :class:`Augmentation`.
        db: to draw between; -20 to 6 by default.
    """

    def __init__(self, chance: float = 1.0, db: Span = (-20.0, 6.0)) -> None:
        super().__init__(chance)
        self.db = span("db", db, -120.0, 60.0)

    def apply(self, wave: Tensor, rate: float, draw: Draw, others: Others) -> Augmented:
        gain = 10 ** (draw.uniform(*self.db) / 20)
        return Augmented(wave * gain, gain)


@register_augmentation("saturation")
class RandomSaturation(Augmentation):
    """An input that is driven too far: ``peak * tanh(drive x / peak) / tanh(drive)``. Peaks stay where they are.

    Args:
        chance: see :class:`Augmentation`.
        drive: dB to draw between; -10, which is hardly heard, to 15 by default.
    """

    def __init__(self, chance: float = 1.0, drive: Span = (-10.0, 15.0)) -> None:
        super().__init__(chance)
        self.drive = span("drive", drive, -60.0, 60.0)

    def apply(self, wave: Tensor, rate: float, draw: Draw, others: Others) -> Augmented:
        drive = 10 ** (draw.uniform(*self.drive) / 20)
        peak = max(float(wave.abs().max()), 1e-9)
        return Augmented(torch.tanh(wave * (drive / peak)) * (peak / math.tanh(drive)))


@register_augmentation("codec")
class Codec(Augmentation):
    """A call over a poor line: few samples a second, each coded in few bits by the mu-law (ITU-T G.711, mu = 255).

    Rates are changed in the Fourier domain, without delay, and are a few percent higher where that is quicker. The
    coder's full scale is the peak of the window, so that quiet windows are not coded worse.

    Args:
        chance: see :class:`Augmentation`.
        rates: samples a second, one of which is drawn; 8000 and 16000 by default.
        bits: of each sample, to draw between; 8, as in telephony, by default.
    """

    def __init__(self, chance: float = 1.0, rates: Span = (8000, 16000), bits: Span = (8, 8)) -> None:
        super().__init__(chance)
        if not isinstance(rates, (list, tuple)) or not rates:
            raise ValueError(f"rates must be a list of Hz, such as [8000, 16000], not {rates!r}")
        self.rates = [span("rates", one, 2000, 200_000)[0] for one in rates]
        self.bits = span("bits", bits, 3, 16)

    def apply(self, wave: Tensor, rate: float, draw: Draw, others: Others) -> Augmented:
        low = min(self.rates[int(draw.integers(len(self.rates)))], rate)
        bits = int(draw.integers(int(self.bits[0]), int(self.bits[1]) + 1))
        length = fast_length(wave.shape[-1])
        fewer = min(length, fast_length(round(length * low / rate)))
        spectrum = torch.fft.rfft(wave, length)
        coarse = torch.fft.irfft(spectrum[: fewer // 2 + 1], fewer) * (fewer / length)
        peak = max(float(coarse.abs().max()), 1e-9)
        coded = peak * _mu_law(coarse / peak, bits)
        back = torch.zeros_like(spectrum)
        back[: fewer // 2 + 1] = torch.fft.rfft(coded, fewer) * (length / fewer)
        return Augmented(torch.fft.irfft(back, length)[: wave.shape[-1]])


def _mu_law(x: Tensor, bits: int) -> Tensor:
    """Values from -1 to 1, as they come back from a coder of that many bits."""
    steps = 2 ** (bits - 1) - 1
    logarithm = torch.sign(x) * torch.log1p(MU * x.abs()) / math.log1p(MU)
    levels = torch.round(logarithm * steps) / steps
    return torch.sign(levels) * torch.expm1(levels.abs() * math.log1p(MU)) / MU
