"""A causal mel spectrogram: triangular filters on the magnitudes of the causal short-time Fourier transform."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.ops.tables import ExactTables, Float64
from astrape.blocks.parameters import bounded
from astrape.blocks.registry import register
from astrape.blocks.spectral import STFT, product, squared_magnitude

__all__ = ["Mel", "mel_filters"]


@register("mel")
class Mel(StreamBlock, ExactTables):
    """Mel spectrogram without centring: frame ``k`` ends with its own ``hop`` samples.

    ``(batch, 1, k * hop)`` at the sample rate becomes ``(batch, bins, k)`` at ``1 / hop`` of it: the natural logarithm
    of the filtered magnitudes, kept above ``floor``. Algorithmic latency ``(n_fft - hop) / 2`` samples: 583, or 13.2
    ms, for 2048 and 882 at 44.1 kHz. Before time zero it sees silence.

    Args:
        source: one channel of audio.
        hop: samples from frame to frame, 1 to ``n_fft``.
        bins: number of mel filters; 80, as most speech models take.
        n_fft: window and transform length, samples, 2 to 8192.
        fmin: lower edge of the lowest filter, Hz.
        fmax: upper edge of the highest, Hz; half the sample rate when left out.
        scale: ``"slaney"``, linear below 1 kHz and logarithmic above, filters of equal area (librosa's default); or
            ``"htk"``, ``2595 log10(1 + f / 700)``, filters with a peak of 1 (HTK's and torchaudio's).
        power: 1 for magnitudes (the default), 2 for powers.
        log: logarithm of the result or the result itself.
        floor: what the filtered magnitudes are clamped to before the logarithm, 1e-5: -100 dB of a full-scale value,
            below which there is nothing to learn from. Silence is thus ``log(1e-5) = -11.5`` and the gradient there 0.
        window: as in :class:`~astrape.blocks.spectral.STFT`.

    Raises:
        ValueError: for sizes out of range, edges that are out of order or above half the sample rate, an unknown scale
            or power, or more filters than the transform can resolve (one would hold no bin and always be silent).
        RateError: for an input of more than one channel.
    """

    latency_by = "centre"

    filters: Tensor

    def __init__(
        self,
        source: Stream,
        *,
        hop: int,
        bins: int = 80,
        n_fft: int = 2048,
        fmin: float = 0.0,
        fmax: float | None = None,
        scale: str = "slaney",
        power: int = 1,
        log: bool = True,
        floor: float = 1e-5,
        window: str = "hann",
    ) -> None:
        bounded("bins", bins, 1, 1024)
        if power not in (1, 2):
            raise ValueError(f"power must be 1 (magnitudes) or 2 (powers), not {power!r}")
        if not (floor > 0 and math.isfinite(floor)):
            raise ValueError(f"floor must be positive and finite, not {floor!r}: 1e-5 is usual")
        stft = STFT(source, n_fft=n_fft, hop=hop, window=window)
        super().__init__(source, quantum=hop, ratio=Fraction(1, hop), channels=bins)
        self.stft = stft
        self.power = power
        self.log = bool(log)
        self.floor = float(floor)
        self.bins, self.fmin, self.fmax, self.scale = bins, fmin, fmax, scale
        self.register_tables()

    def exact_tables(self) -> dict[str, Float64]:
        rate = float(self.rate_in)
        return {"filters": mel_filters(self.bins, self.stft.n_fft, rate, self.fmin, self.fmax, self.scale)}

    @property
    def latency(self) -> Fraction:
        return self.stft.latency

    @property
    def receptive_field(self) -> Fraction:
        return self.stft.receptive_field

    def oldest_input(self, frame: int) -> int:
        return self.stft.oldest_input(frame)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return self.stft.init_state(batch_size, device, dtype)

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        spectrum, state = self.stft.step(x, state, ())
        energy = squared_magnitude(spectrum)
        mel = product((energy.sqrt() if self.power == 1 else energy).transpose(1, 2), self.filters).transpose(1, 2)
        return (mel.clamp(min=self.floor).log() if self.log else mel), state


def mel_filters(
    bins: int, n_fft: int, rate: float, fmin: float = 0.0, fmax: float | None = None, scale: str = "slaney"
) -> Float64:
    """Triangular mel filters, ``(bins, n_fft // 2 + 1)``.

    The ``bins + 2`` edges lie evenly on the mel scale from ``fmin`` to ``fmax``; filter ``j`` rises from edge ``j`` to
    edge ``j + 1`` and falls to edge ``j + 2``. For the arguments and errors see :class:`Mel`.
    """
    top = rate / 2 if fmax is None else float(fmax)
    if not 0 <= fmin < top <= rate / 2:
        raise ValueError(f"fmin and fmax must rise from 0 to at most {rate / 2:g} Hz, not {fmin!r} and {top!r}")
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, not {scale!r}")
    to_mel, to_hertz = SCALES[scale]
    ends = to_mel(np.array([fmin, top]))
    edges = to_hertz(np.linspace(ends[0], ends[1], bins + 2))[:, None]
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    frequencies = np.arange(n_fft // 2 + 1) * (rate / n_fft)
    filters = np.minimum((frequencies - lower) / (centre - lower), (upper - frequencies) / (upper - centre)).clip(min=0)
    silent = np.flatnonzero(filters.max(axis=1) == 0)
    if silent.size:
        raise ValueError(
            f"bins must be fewer than {bins}, or n_fft more than {n_fft}: filter {silent[0]} lies between two bins of "
            f"the transform and would always be silent"
        )
    if scale == "slaney":
        filters *= 2 / (upper - lower)
    return np.asarray(filters, dtype=np.float64)


SLANEY_KNEE, SLANEY_MELS, SLANEY_STEP = 1000.0, 15.0, math.log(6.4) / 27
"""1 kHz is mel 15 (200/3 Hz each); above it a factor of 6.4 takes 27 (Slaney, Auditory Toolbox, 1998)."""


def _slaney_mel(hertz: Float64) -> Float64:
    ratio = np.maximum(hertz, SLANEY_KNEE) / SLANEY_KNEE
    return np.minimum(hertz, SLANEY_KNEE) * (SLANEY_MELS / SLANEY_KNEE) + np.log(ratio) / SLANEY_STEP


def _slaney_hertz(mel: Float64) -> Float64:
    above = np.maximum(mel - SLANEY_MELS, 0.0)
    return np.minimum(mel, SLANEY_MELS) * (SLANEY_KNEE / SLANEY_MELS) * np.exp(above * SLANEY_STEP)


def _htk_mel(hertz: Float64) -> Float64:
    return 2595.0 * np.log10(1 + hertz / 700.0)


def _htk_hertz(mel: Float64) -> Float64:
    return 700.0 * (10 ** (mel / 2595.0) - 1)


Scale = Callable[[Float64], Float64]
SCALES: dict[str, tuple[Scale, Scale]] = {"slaney": (_slaney_mel, _slaney_hertz), "htk": (_htk_mel, _htk_hertz)}
