"""Losses between waveforms, by the magnitudes of their spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from astrape.blocks.base import Stream
from astrape.blocks.mel import mel_filters
from astrape.blocks.ops.tables import ExactTables, Float64
from astrape.blocks.parameters import bounded, check_real
from astrape.training.objectives.content import weighted
from astrape.training.objectives.objective import Comparison, Objective, Total, register_loss
from astrape.training.objectives.spectrum import FLOOR, Spectrum, check_wave, row_sums

__all__ = ["LogMagnitude", "LogMel", "MultiResolutionSTFT"]

QUIET = 1e-3
"""Root mean square magnitude, -60 dB, below which spectral convergence is relative to this and no longer to the
target: relative to silence, every error is infinite."""


class _Waveforms(Objective):
    compares: ClassVar[Comparison] = "samples"

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        check_wave(source)


@register_loss("multi_resolution_stft")
class MultiResolutionSTFT(_Waveforms):
    """Spectral convergence plus the absolute difference of log magnitudes, at several resolutions.

    ::

        convergence   = |T - S| / |T|              Frobenius norms over an utterance's frames, T and S magnitudes
        log magnitude = mean |ln T - ln S|         over frames and bins

    Each utterance and resolution counts by its valid samples, so that the sum over parts of a batch is that of the
    whole (Arik, Jun & Diamos, arXiv:1808.06719; several resolutions: Yamamoto, Song & Kim, arXiv:1910.11480). A signal
    at half the target's level scores 0.5 + ln 2 = 1.19; silence about 1 plus how far the target lies above the floor,
    in nats.

    Args:
        source: the waveform's rate, one channel.
        sizes: transform lengths, samples; 512, 1024 and 2048 by default.
        hops: samples from frame to frame for each; a quarter of the length when left out.
        fmax: what lies above is not compared, Hz; half the rate by default. A target at 24 kHz that was resampled has
            nothing above 12 kHz, and nothing is to be learned there.
        floor: magnitudes below this count as this; 1e-5 by default. White noise of 1e-5 of full scale has it.

    Raises:
        ValueError: for sizes out of range, unequal numbers of sizes and hops, or more than one channel.
    """

    def __init__(
        self,
        source: Stream,
        *,
        sizes: Sequence[int] = (512, 1024, 2048),
        hops: Sequence[int] | None = None,
        fmax: float | None = None,
        floor: float = FLOOR,
    ) -> None:
        super().__init__(source)
        half = float(source.rate) / 2
        self.share = check_real("fmax", half if fmax is None else fmax, 1.0, half) / half
        self.floor = check_real("floor", floor, FLOOR, 1.0)
        if not isinstance(sizes, (list, tuple)) or not sizes:
            raise ValueError(f"sizes must be a list of transform lengths, such as [512, 1024], not {sizes!r}")
        steps: Sequence[int | None] = [None] * len(sizes) if hops is None else hops
        if len(steps) != len(sizes):
            raise ValueError(f"hops must be as many as sizes, {len(sizes)}, not {len(steps)}")
        self.spectra = nn.ModuleList([Spectrum(size, hop) for size, hop in zip(sizes, steps, strict=True)])

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        return self._summed(signal, target, weights, None)

    def within(self, signal: Tensor, target: Tensor, weights: Tensor, band: Tensor) -> Total:
        return self._summed(signal, target, weights, band)

    def _summed(self, signal: Tensor, target: Tensor, weights: Tensor, band: Tensor | None) -> Total:
        parts = [self._at(spectrum, signal, target, weights, band) for spectrum in self.spectra]
        totals, counts = zip(*parts, strict=True)
        return Total(torch.stack(totals).sum(), torch.stack(counts).sum())

    def _at(self, spectrum: nn.Module, signal: Tensor, target: Tensor, weights: Tensor, band: Tensor | None) -> Total:
        assert isinstance(spectrum, Spectrum)
        weight = spectrum.frame_weights(weights)
        bins = int(self.share * (spectrum.bins - 1)) + 1
        made, wanted = (spectrum.magnitude(wave)[:, :bins].clamp(min=self.floor) for wave in (signal, target))
        share = made.new_tensor(float(bins))
        if band is not None:
            hertz = torch.arange(bins, device=made.device) * (float(self.source.rate) / spectrum.n_fft)
            there = (hertz <= band.to(hertz)[:, None]).unsqueeze(-1).to(made.dtype)
            # The bins left out are alike in both, and do not count in the mean over bins.
            made, wanted = (torch.where(there > 0, one, self.floor) for one in (made, wanted))
            share = there.sum(dim=1).clamp(min=1).squeeze(-1)
        least = torch.finfo(weight.dtype).tiny
        count = row_sums(weight)
        root = weight.sqrt()
        error = torch.linalg.vector_norm(root * (wanted - made), dim=(1, 2))
        size = torch.linalg.vector_norm(root * wanted, dim=(1, 2))
        convergence = error / torch.maximum(size, QUIET * (count * share).sqrt()).clamp(min=least)
        distance = row_sums((wanted.log() - made.log()).abs().sum(dim=1, keepdim=True) * weight) / share
        return Total((convergence * count + distance).sum() * spectrum.hop, count.sum() * spectrum.hop)


@register_loss("log_mel")
class LogMel(_Waveforms, ExactTables):
    """Absolute difference of log mel spectra, nats, averaged over bands.

    Each band is the weighted mean of the magnitudes under its triangle, at least the floor.

    Args:
        source: the waveform's rate, one channel.
        bins: number of bands; 80 by default.
        n_fft: window and transform, samples; 2048 by default.
        hop: samples from frame to frame; a quarter of ``n_fft`` when left out.
        fmin, fmax: edges of the lowest and the highest band, Hz; 0 and half the rate by default.
        floor: bands below this count as this; 1e-5 by default.

    Raises:
        ValueError: for numbers out of range, or bands narrower than the transform can resolve.
    """

    filters: Tensor

    def __init__(
        self,
        source: Stream,
        *,
        bins: int = 80,
        n_fft: int = 2048,
        hop: int | None = None,
        fmin: float = 0.0,
        fmax: float | None = None,
        floor: float = FLOOR,
    ) -> None:
        super().__init__(source)
        self.floor = check_real("floor", floor, FLOOR, 1.0)
        self.bins, self.fmin, self.fmax = bounded("bins", bins, 1, 1024), fmin, fmax
        self.spectrum = Spectrum(n_fft, hop)
        self.register_tables()

    def exact_tables(self) -> Mapping[str, Float64]:
        filters = mel_filters(self.bins, self.spectrum.n_fft, float(self.source.rate), self.fmin, self.fmax)
        return {"filters": filters / filters.sum(axis=1, keepdims=True)}

    def bands(self, wave: Tensor) -> Tensor:
        """Log mel spectrum, ``(batch, bins, frames)``."""
        return (self.filters @ self.spectrum.magnitude(wave)).clamp(min=self.floor).log()

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        return weighted((self.bands(signal) - self.bands(target)).abs(), self.spectrum.frame_weights(weights))

    def within(self, signal: Tensor, target: Tensor, weights: Tensor, band: Tensor) -> Total:
        hertz = torch.arange(self.spectrum.bins, device=signal.device) * (float(self.source.rate) / self.spectrum.n_fft)
        highest = ((self.filters > 0) * hertz).amax(dim=1)
        there = (highest <= band.to(highest)[:, None]).unsqueeze(-1).to(signal.dtype)
        error = (self.bands(signal) - self.bands(target)).abs() * there
        mean = error.sum(dim=1, keepdim=True) / there.sum(dim=1, keepdim=True).clamp(min=1)
        weight = self.spectrum.frame_weights(weights)
        return Total((mean * weight).sum(), weight.sum())


@register_loss("log_magnitude")
class LogMagnitude(_Waveforms):
    """Absolute difference of log magnitudes, nats, on one grid.

    Args:
        source: the waveform's rate, one channel.
        n_fft, hop: the grid; 392 and 98 by default, the teacher decoder's own.

    Raises:
        ValueError: for sizes out of range.
    """

    def __init__(self, source: Stream, *, n_fft: int = 392, hop: int = 98) -> None:
        super().__init__(source)
        self.spectrum = Spectrum(n_fft, hop)

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        error = (self.spectrum.magnitude(signal).log() - self.spectrum.magnitude(target).log()).abs()
        return weighted(error, self.spectrum.frame_weights(weights))
