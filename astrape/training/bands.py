"""Waveforms up to the frequency that their recordings reach, for judges that would hear from it which is which."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from astrape.training.augment.filters import fast_length

__all__ = ["below"]

EDGE = 0.04
"""Share of the band over which the gain falls from 1 to 0."""


def below(wave: Tensor, band: Tensor, rate: Fraction | float) -> Tensor:
    """A waveform without what lies above a frequency, row by row; the filter has no phase.

    Speech of 16 kHz ends at 8 kHz, and what is made to be like it does not. A discriminator that hears both whole
    learns to tell them by that, and teaches whoever listens to it to be dull.

    Args:
        wave: ``(batch, 1, samples)``. Its end is followed by silence as long as it is.
        band: Hz, ``(batch,)``.
        rate: of the wave, Hz.
    """
    samples = wave.shape[-1]
    length = fast_length(2 * samples)
    hertz = torch.arange(length // 2 + 1, device=wave.device) * (float(rate) / length)
    top = band.to(hertz)[:, None, None]
    gain = ((top - hertz) / (EDGE * top)).clamp(0, 1).to(wave.dtype)
    filtered: Tensor = torch.fft.irfft(torch.fft.rfft(wave, length) * gain, length)[..., :samples]
    return filtered
