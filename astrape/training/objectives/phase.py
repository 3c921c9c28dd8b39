"""Losses on the phase of spectra, which is known up to whole turns only.

Ai & Ling ("Neural speech phase prediction based on parallel estimation architecture and anti-wrapping losses",
arXiv:2211.15974) measure a difference of phases by ``f(x) = |x - 2 pi round(x / 2 pi)|``, 0 to pi. For phasors ``u``
and ``v`` of length 1 that is ``|angle(u conj(v))|``: the product turns by the difference, and a turn too many is none.
So it is computed here, without a phase ever being unwrapped.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.blocks.spectral import squared_magnitude
from astrape.training.objectives.objective import Comparison, Objective, Total, register_loss
from astrape.training.objectives.spectrum import FLOOR, Spectrum, check_wave

__all__ = ["AntiWrappingPhase", "GroupDelay"]


class _PhaseObjective(Objective):
    compares: ClassVar[Comparison] = "samples"

    def __init__(self, source: Stream, *, n_fft: int = 392, hop: int = 98) -> None:
        super().__init__(source)
        check_wave(source)
        self.spectrum = Spectrum(n_fft, hop)

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        made, wanted = self.spectrum(signal), self.spectrum(target)
        loudness = squared_magnitude(wanted).sqrt()
        real, imaginary = _turned_back(*_phasors(made), *_phasors(wanted))
        return self.compare(real, imaginary, loudness * self.spectrum.frame_weights(weights))

    def compare(self, real: Tensor, imaginary: Tensor, weights: Tensor) -> Total:
        """The loss of phasors ``(batch, bins, frames)`` that are turned by the phase difference."""
        raise NotImplementedError


@register_loss("anti_wrapping_phase")
class AntiWrappingPhase(_PhaseObjective):
    """Anti-wrapped difference of instantaneous phase, radians, 0 to pi; chance is pi / 2.

    Bins count by the target's magnitude, for the phase of what is not heard means nothing. A bin where signal or target
    lies below 1e-5 has no phase: it scores chance, with no gradient.

    Args:
        source: the waveform's rate, one channel.
        n_fft, hop: the grid; 392 and 98 by default, the teacher decoder's own.

    Raises:
        ValueError: for sizes out of range.
    """

    def compare(self, real: Tensor, imaginary: Tensor, weights: Tensor) -> Total:
        return Total((_wrapped(real, imaginary) * weights).sum(), weights.sum())


@register_loss("group_delay")
class GroupDelay(_PhaseObjective):
    """Anti-wrapped difference of group delay: of the phase's step from bin to bin, radians, 0 to pi.

    What shifts a frame in time tilts its phase over frequency, and a constant turn does not matter. A pair of bins
    counts by the lesser of the target's two magnitudes; where one has no phase it scores chance, pi / 2.

    Args:
        source: the waveform's rate, one channel.
        n_fft, hop: the grid; 392 and 98 by default, the teacher decoder's own.

    Raises:
        ValueError: for sizes out of range.
    """

    def compare(self, real: Tensor, imaginary: Tensor, weights: Tensor) -> Total:
        step = _turned_back(real[:, 1:], imaginary[:, 1:], real[:, :-1], imaginary[:, :-1])
        weight = torch.minimum(weights[:, 1:], weights[:, :-1])
        return Total((_wrapped(*step) * weight).sum(), weight.sum())


def _phasors(spectrum: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts of length 1, both 0 where the magnitude is below the floor."""
    power = squared_magnitude(spectrum)
    heard = power >= FLOOR**2
    scale = torch.where(heard, power, torch.ones_like(power)).rsqrt() * heard
    real, imaginary = spectrum.chunk(2, dim=1)
    return real * scale, imaginary * scale


def _turned_back(real: Tensor, imaginary: Tensor, by_real: Tensor, by_imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """A complex product with the conjugate of the second factor."""
    return real * by_real + imaginary * by_imaginary, imaginary * by_real - real * by_imaginary


def _wrapped(real: Tensor, imaginary: Tensor) -> Tensor:
    """``|angle|`` of phasors, chance where there is none."""
    silent = (real == 0) & (imaginary == 0)
    angle = torch.atan2(imaginary, torch.where(silent, torch.ones_like(real), real)).abs()
    return angle.masked_fill(silent, math.pi / 2)
