"""Spectral envelopes: from a few bands to the bins of a transform, and from there onto a spectrum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.mel import SCALES
from astrape.blocks.ops.product import frame_product
from astrape.blocks.ops.tables import ExactTables, Float64
from astrape.blocks.parameters import bounded, check_choice, check_real
from astrape.blocks.registry import register
from astrape.blocks.spectral import MAX_N_FFT
from astrape.errors import RateError

__all__ = ["BandEnvelope", "SpectralProduct", "minimum_phase"]

FINE = 1 << 15
"""Points, at least, of the grid on which minimum phases are found: on a coarser one the envelope's corners blur."""


@register("band_envelope")
class BandEnvelope(StreamBlock, ExactTables):
    """The envelope of a spectrum, bin by bin, from log-amplitudes at a few frequencies.

    ``(batch, bands, n)`` to ``(batch, n_fft // 2 + 1, n)``. The bands' frequencies are evenly spaced on the mel scale
    from ``fmin`` to ``fmax``, both included. Between them the logarithm is interpolated on that scale, below them
    held, above ``extrapolate_from`` it falls by ``slope_db`` an octave, whatever the bands say there::

        y[f] = min(exp(sum_b weight[f, b] x[b] + offset[f]), limit)

    which is one matrix product. With ``phase: minimum`` the output is complex, ``2 * bins`` real parts then imaginary
    parts: the response of that magnitude whose energy comes as early as it can. A voice is nearer to it than to the
    zero phase of a real envelope, which rings before each pulse as much as after. The phase is linear in the
    log-magnitude, so it is one more product.

    Args:
        source: natural logarithms of amplitudes, 2 to 1024 bands.
        n_fft: transform length, samples, 2 to 8192.
        hop: samples per frame; ``hop`` times the rate of the frames is the sample rate.
        fmin, fmax: frequency of the lowest and of the highest band, Hz. Default 0 and half the sample rate.
        slope_db: fall above ``extrapolate_from``, 0 to 100 dB an octave. Default 12, about that of speech.
        extrapolate_from: Hz, ``fmin`` to ``fmax``; bands above it have no part in the output. For networks that were
            trained on recordings of a lower rate: what they say of the highest bands was never compared with anything,
            or is the slope of a filter. Default ``fmax``.
        level_db: what an input of 0 stands for, -120 to 60 dB. Default 0.
        limit_db: greatest amplitude, -60 to 120 dB; the gradient above it is 0. Default 40.
        phase: ``"zero"`` or ``"minimum"``. Default ``"zero"``.

    Raises:
        ValueError: for a number out of range or an unknown phase.
    """

    weight: Tensor
    offset: Tensor
    turn: Tensor
    turned: Tensor

    def __init__(
        self,
        source: Stream,
        *,
        n_fft: int,
        hop: int,
        fmin: float = 0.0,
        fmax: float | None = None,
        slope_db: float = 12.0,
        extrapolate_from: float | None = None,
        level_db: float = 0.0,
        limit_db: float = 40.0,
        phase: str = "zero",
    ) -> None:
        bounded("the number of bands", source.channels, 2, 1024)
        self.n_fft = bounded("n_fft", n_fft, 2, MAX_N_FFT)
        self.sample_rate = float(source.rate) * bounded("hop", hop, 1, MAX_N_FFT)
        self.complex = check_choice("phase", phase, ("zero", "minimum")) == "minimum"
        super().__init__(source, channels=(n_fft // 2 + 1) * (2 if self.complex else 1))
        nyquist = self.sample_rate / 2
        self.fmax = check_real("fmax", nyquist if fmax is None else fmax, 0, nyquist)
        self.fmin = check_real("fmin", fmin, 0, self.fmax)
        if self.fmin == self.fmax:
            raise ValueError(f"fmin and fmax must differ, not both be {self.fmin:g} Hz")
        last = self.fmax if extrapolate_from is None else extrapolate_from
        self.last = check_real("extrapolate_from", last, self.fmin, self.fmax)
        if self.last == self.fmin:
            raise ValueError(f"extrapolate_from must be above fmin, not {self.last:g} Hz as well")
        self.slope_db = check_real("slope_db", slope_db, 0, 100)
        self.level_db = check_real("level_db", level_db, -120, 60)
        self.log_limit = check_real("limit_db", limit_db, -60, 120) * math.log(10) / 20
        self.register_tables()

    def exact_tables(self) -> dict[str, Float64]:
        bins = self.n_fft // 2 + 1
        weight, offset = self.interpolation(self.sample_rate / self.n_fft, bins)
        tables = {"weight": weight, "offset": offset}
        if self.complex:
            # The length is even, and a multiple of the transform's.
            times = 2 * max(4, -(-FINE // (2 * self.n_fft)))
            length = times * self.n_fft
            columns = np.column_stack(self.interpolation(self.sample_rate / length, length // 2 + 1))
            phases = minimum_phase(columns).imag[: bins * times : times]
            tables |= {"turn": phases[:, :-1], "turned": phases[:, -1]}
        return tables

    def interpolation(self, spacing: float, count: int) -> tuple[Float64, Float64]:
        """Weights of the bands at ``count`` frequencies from 0 on, ``(count, bands)``, and an offset for each."""
        hertz = np.arange(count, dtype=np.float64) * spacing
        to_mel, _ = SCALES["slaney"]
        low, high = to_mel(np.array([self.fmin, self.fmax]))
        bands = self.channels_in
        place = ((to_mel(hertz.clip(max=self.last)) - low) / (high - low)).clip(0, 1) * (bands - 1)
        weight = (1 - np.abs(place[:, None] - np.arange(bands))).clip(min=0)
        octaves = np.log2(np.maximum(hertz, self.last) / self.last)
        return weight, (self.level_db - self.slope_db * octaves) * (math.log(10) / 20)

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in

    def step(self, x: Tensor, state: State, controls: object) -> tuple[Tensor, State]:
        frames = x.transpose(1, 2)
        magnitude = frame_product(frames, self.weight, self.offset).clamp(max=self.log_limit).exp()
        if not self.complex:
            return magnitude.transpose(1, 2), state
        phase = frame_product(frames, self.turn, self.turned)
        return torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=-1).transpose(1, 2), state


def minimum_phase(log_magnitude: Float64) -> npt.NDArray[np.complex128]:
    """The logarithm of the minimum-phase spectra of these log-magnitudes, ``(bins, ...)``, bins from 0 to Nyquist.

    The imaginary part is the phase.

    Folding the cepstrum (Oppenheim & Schafer, "Discrete-Time Signal Processing"): what lies before time zero is laid
    upon what lies after it.
    """
    length = 2 * (len(log_magnitude) - 1)
    cepstrum = np.fft.irfft(log_magnitude, length, axis=0)
    cepstrum[1 : length // 2] *= 2
    cepstrum[length // 2 + 1 :] = 0
    return np.asarray(np.fft.rfft(cepstrum, axis=0))


@register("spectral_product")
class SpectralProduct(StreamBlock):
    """A spectrum times an envelope, bin by bin.

    Two inputs at one rate: the spectrum, ``(batch, 2 * bins, n)``, real parts then imaginary parts as ``stft`` gives
    them, and the envelope, ``(batch, bins, n)`` where it is real, or ``(batch, 2 * bins, n)`` where it is complex,
    another spectrum for instance. The output is a spectrum::

        masked: {use: spectral_product, from: [spectra, mask]}

    Args:
        sources: the spectrum and the envelope, in this order.

    Raises:
        ValueError: for a number of inputs other than two.
        RateError: for inputs at different rates, or with other numbers of channels.
    """

    variadic = True

    def __init__(self, sources: Mapping[str, Stream]) -> None:
        if len(sources) != 2:
            raise ValueError(f"spectral_product takes two inputs, a spectrum and an envelope, not {len(sources)}")
        super().__init__(sources)
        self.spectrum, self.envelope = self.inputs
        channels, given = self.channels_in, self.inputs[self.envelope].channels
        if channels % 2 or given not in (channels, channels // 2):
            raise RateError(
                f"spectral_product takes a spectrum of 2 * bins channels and an envelope of bins, or 2 * bins, not "
                f"{channels} and {given}"
            )
        self.complex = given == channels

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in

    def step(self, x: Signal, state: State, controls: object) -> tuple[Tensor, State]:
        real, imaginary = x[self.spectrum].chunk(2, dim=1)
        envelope: Tensor = x[self.envelope]
        if not self.complex:
            return torch.cat([real * envelope, imaginary * envelope], dim=1), state
        along, across = envelope.chunk(2, dim=1)
        turned = torch.addcmul(real * along, imaginary, across, value=-1)
        return torch.cat([turned, torch.addcmul(real * across, imaginary, along)], dim=1), state
