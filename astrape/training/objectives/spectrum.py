"""Spectra for losses: real matrix products, so that they run and differentiate on every device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrape.blocks.base import Stream
from astrape.blocks.ops.dft import WindowedDFT
from astrape.blocks.parameters import bounded
from astrape.blocks.spectral import MAX_N_FFT, spectral_window, squared_magnitude

__all__ = ["FLOOR", "Spectrum", "check_wave"]

FLOOR = 1e-5
"""Magnitudes below this count as this: -100 dB of white noise at full scale. There is nothing to learn from them, and
their logarithms and phases would drown the rest."""


class Spectrum(nn.Module):
    """Short-time spectra of the frames that lie wholly within a signal: nothing is padded, so no edge is invented.

    The Hann window has unit energy: white noise of standard deviation ``s`` has magnitudes of about ``s`` at every
    transform length, and one floor fits all.

    Args:
        n_fft: window and transform, samples, 16 to 8192.
        hop: samples from frame to frame, 1 to ``n_fft``; a quarter of ``n_fft`` when left out.

    Raises:
        ValueError: for sizes out of range.
    """

    def __init__(self, n_fft: int, hop: int | None = None) -> None:
        super().__init__()
        self.n_fft = bounded("n_fft", n_fft, 16, MAX_N_FFT)
        self.hop = bounded("hop", n_fft // 4 if hop is None else hop, 1, n_fft)
        window = spectral_window("hann", n_fft)
        self.dft = WindowedDFT(window / math.sqrt(float((window**2).sum())))

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1

    def forward(self, wave: Tensor) -> Tensor:
        """``(batch, 1, samples)`` to ``(batch, 2 * bins, frames)``: real parts, then imaginary ones."""
        if wave.shape[-1] < self.n_fft:
            return wave.new_zeros(wave.shape[0], 2 * self.bins, 0)
        spectrum: Tensor = self.dft(wave[:, 0].unfold(-1, self.n_fft, self.hop))
        return spectrum

    def magnitude(self, wave: Tensor) -> Tensor:
        """``(batch, bins, frames)``, at least :data:`FLOOR`, where the gradient ends."""
        return squared_magnitude(self(wave)).clamp(min=FLOOR**2).sqrt()

    def frame_weights(self, weights: Tensor) -> Tensor:
        """Weights of frames from weights of samples, ``(batch, 1, frames)``: that of the least sample in the window.

        So an absent sample has no part in any frame that counts.
        """
        if weights.shape[-1] < self.n_fft:
            return weights[..., :0]
        return -F.max_pool1d(-weights, self.n_fft, self.hop)


def check_wave(source: Stream) -> None:
    """Refuse a signal of more than one channel.

    Raises:
        ValueError: naming the number of channels.
    """
    if source.channels != 1:
        raise ValueError(f"the signal must be audio of 1 channel, not {source.channels}")


def row_sums(x: Tensor) -> Tensor:
    """Sums over all but the batch: ``(batch, ...)`` to ``(batch,)``."""
    return torch.flatten(x, 1).sum(dim=1)
