"""Causal short-time Fourier transforms as real matrix products, and the step from polar to rectangular.

The products are those of :mod:`astrape.blocks.ops.dft`. A spectrum of ``bins = n_fft // 2 + 1`` complex bins travels as
``2 * bins`` real channels, all real parts first, then all imaginary parts.

Forward (analysis) window ``w``, frame ``k`` covers samples ``k * hop + hop - n_fft`` to ``k * hop + hop - 1``, the
samples before time zero being 0::

    X[f, k] = sum_m w[m] x[k * hop + hop - n_fft + m] exp(-2 pi i f m / n_fft)

Backward, the weighted overlap-add of Griffin & Lim (1984), normalised by the squared windows of the frames that exist.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.ops.dft import WindowedDFT, WindowedInverseDFT
from astrape.blocks.ops.history import own_copy
from astrape.blocks.ops.tables import ExactTables, Float64
from astrape.blocks.parameters import bounded
from astrape.blocks.policy import policy
from astrape.blocks.registry import register
from astrape.errors import RateError

__all__ = ["ISTFT", "STFT", "ExpPolar", "Magnitude", "spectral_window"]

MAX_N_FFT = 8192
"""Largest transform. A prime cannot be factored: its matrix has ``n_fft * (n_fft + 1)`` entries, 268 MB of float32."""

LEAST_WEIGHT = 1e-11
"""A summed squared window below this counts as 0: dividing by it would only amplify rounding."""

COSINE_WINDOWS: dict[str, tuple[float, float]] = {
    "hann": (0.5, 0.5),
    "hamming": (0.54, 0.46),
    "rectangular": (1.0, 0.0),
}


def spectral_window(name: str, length: int) -> Float64:
    """The periodic window ``name`` of ``length`` samples: ``a - b cos(2 pi n / length)``.

    ``hann``, ``hamming``, ``rectangular``, or ``sine``, the square root of ``hann``, whose square overlap-adds to a
    constant where it is used both ways.

    Raises:
        ValueError: for another name.
    """
    phase = 2 * np.pi * np.arange(length) / length
    if name == "sine":
        return np.sin(phase / 2)
    if name not in COSINE_WINDOWS:
        raise ValueError(f"window must be one of {', '.join([*COSINE_WINDOWS, 'sine'])}, not '{name}'")
    constant, cosine = COSINE_WINDOWS[name]
    return constant - cosine * np.cos(phase)


@register("stft")
class STFT(StreamBlock):
    """Short-time Fourier transform whose windows end with their own ``hop`` samples.

    ``(batch, 1, k * hop)`` at the sample rate becomes ``(batch, 2 * (n_fft // 2 + 1), k)`` at ``1 / hop`` of it: the
    real parts of bins 0 to ``n_fft // 2`` are channels 0 to ``n_fft // 2``, and their imaginary parts follow in the
    same order. ``istft`` takes this layout, ``magnitude`` makes one channel a bin of it. Nothing is scaled: a bin is
    the windowed samples' sum, as of ``torch.stft`` with ``normalized=False``.

    The algorithmic latency is that of the window's centre, ``(n_fft - hop) / 2`` samples: 630 for 1512 and 252.

    Args:
        source: one channel.
        n_fft: window and transform length, samples, 2 to 8192; odd lengths have no Nyquist bin.
        hop: samples from frame to frame, 1 to ``n_fft``.
        window: ``hann`` (the default, as most trained models expect), ``hamming``, ``sine`` or ``rectangular``, all
            periodic.

    Raises:
        ValueError: for sizes out of range or an unknown window.
        RateError: for an input of more than one channel.
    """

    latency_by = "centre"

    def __init__(self, source: Stream, *, n_fft: int, hop: int, window: str = "hann") -> None:
        bounded("n_fft", n_fft, 2, MAX_N_FFT)
        bounded("hop", hop, 1, n_fft)
        if source.channels != 1:
            raise RateError(f"stft takes one channel, not {source.channels}: split them and transform each")
        super().__init__(source, quantum=hop, ratio=Fraction(1, hop), channels=2 * (n_fft // 2 + 1))
        self.n_fft, self.hop = n_fft, hop
        taper = spectral_window(window, n_fft)
        self.support = n_fft - int(np.flatnonzero(taper)[0])
        self.dft = WindowedDFT(taper)

    @property
    def latency(self) -> Fraction:
        return Fraction(self.n_fft - self.hop, 2) / self.rate_in

    @property
    def receptive_field(self) -> Fraction:
        """The window without its leading zeros (a periodic Hann window starts with one)."""
        return Fraction(self.support) / self.rate_in

    def oldest_input(self, frame: int) -> int:
        return self.hop - self.support

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """The last ``n_fft - hop`` samples, silence at time zero."""
        return torch.zeros(batch_size, 1, self.n_fft - self.hop, device=device, dtype=dtype)

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        heard = torch.cat([state, x], dim=-1)
        state = own_copy(heard[..., heard.shape[-1] - state.shape[-1] :])
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.channels_out, 0), state
        spectrum: Tensor = self.dft(policy().windows(heard[:, 0], self.n_fft, self.hop))
        return spectrum, state


@register("istft")
class ISTFT(StreamBlock, ExactTables):
    """Inverse short-time Fourier transform by windowed overlap-add, complete after one frame.

    ``(batch, 2 * (n_fft // 2 + 1), k)``, all real parts and then all imaginary parts as ``stft`` gives them, becomes
    ``(batch, 1, k * hop)`` at ``hop`` times the rate. Frame ``k`` is laid
    over samples ``k * hop`` to ``k * hop + n_fft - 1``; its first ``hop`` samples are then complete and leave. The sum
    is divided by the squared windows of the frames that exist, so the beginning, where fewer overlap, is as exact as
    the rest. With "same" padding the offline transform trims ``(n_fft - hop) / 2`` samples in front, so

        causal[n] = offline[n - (n_fft - hop) / 2]

    and the first ``(n_fft - hop) / 2`` samples stand for time before zero: they are exactly 0. That is also the
    algorithmic latency. The imaginary parts of the bins at 0 Hz and at Nyquist are ignored, as ``irfft`` ignores them.

    The state holds the overlap still open and an int64 count of frames seen. The divisor depends on that count alone,
    and only until ``n_fft / hop`` frames have come; its reciprocal is a table made in float64, and the count stops
    there, so it never overflows.

    Args:
        source: ``2 * (n_fft // 2 + 1)`` channels, real parts then imaginary parts.
        n_fft: window and transform length, samples, 2 to 8192.
        hop: samples from frame to frame, 1 to ``n_fft``; ``n_fft - hop`` must be even.
        window: the synthesis window, as in :class:`STFT`; assumed to be the analysis window too.

    Raises:
        ValueError: for sizes out of range, an odd ``n_fft - hop``, or windows that leave samples uncovered (a Hann
            window with ``hop = n_fft`` starts with a zero that nothing overlaps).
        RateError: for another number of input channels.
    """

    latency_by = "centre"

    weights: Tensor

    def __init__(self, source: Stream, *, n_fft: int, hop: int, window: str = "hann") -> None:
        bounded("n_fft", n_fft, 2, MAX_N_FFT)
        bounded("hop", hop, 1, n_fft)
        bins = n_fft // 2 + 1
        if (n_fft - hop) % 2:
            raise ValueError(
                f"n_fft - hop must be even for a whole number of samples of latency, not {n_fft} - {hop} = "
                f"{n_fft - hop}: make both even or both odd"
            )
        if source.channels != 2 * bins:
            raise RateError(
                f"istft with n_fft {n_fft} takes 2 * {bins} channels, real and imaginary parts, not {source.channels}"
            )
        super().__init__(source, ratio=hop, channels=1)
        self.n_fft, self.hop = n_fft, hop
        taper = spectral_window(window, n_fft)
        self.spans = -(-n_fft // hop)
        """Quanta of output that one frame is laid over."""
        self.padded = np.pad(taper, (0, self.spans * hop - n_fft))
        self.dft = WindowedInverseDFT(taper)
        self.register_tables()
        # By output sample of a quantum, how many frames back the last window that covers it began.
        self.oldest = [int(np.flatnonzero(column)[-1]) for column in self.padded.reshape(-1, hop).T]

    def exact_tables(self) -> dict[str, Float64]:
        """Row ``j``: one over the summed squared windows of a frame and its ``j`` predecessors, over its quantum."""
        summed = np.cumsum(self.padded.reshape(self.spans, self.hop) ** 2, axis=0)
        covered = summed >= LEAST_WEIGHT
        before_zero = np.arange(summed.size).reshape(summed.shape) < (self.n_fft - self.hop) // 2
        if not (covered | before_zero).all():
            raise ValueError(
                f"hop must be small enough for the windows to cover every sample, and {self.hop} with n_fft "
                f"{self.n_fft} is not: half of n_fft always is"
            )
        return {"weights": np.where(before_zero, 0.0, 1.0 / np.where(covered, summed, 1.0))}

    @property
    def latency(self) -> Fraction:
        return Fraction(self.n_fft - self.hop, 2) / self.rate_out

    @property
    def receptive_field(self) -> Fraction:
        return Fraction(1 + max(self.oldest)) / self.rate_in

    def oldest_input(self, frame: int) -> int:
        return -self.oldest[frame]

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """``tail`` ``(batch, spans - 1, hop)``, the overlap still open; ``seen`` ``(batch, 1)``, frames so far."""
        return {
            "tail": torch.zeros(batch_size, self.spans - 1, self.hop, device=device, dtype=dtype),
            "seen": torch.zeros(batch_size, 1, device=device, dtype=torch.int64),
        }

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        batch, _, count = x.shape
        earlier = self.spans - 1
        frames = self.dft(x)
        if self.spans * self.hop > self.n_fft:
            frames = F.pad(frames, (0, self.spans * self.hop - self.n_fft))
        frames = frames.view(batch, count, self.spans, self.hop)
        if count == 1:
            overlap = torch.cat([state["tail"] + frames[:, 0, :earlier], frames[:, 0, earlier:]], dim=1)
        else:
            overlap = torch.cat([state["tail"], frames[:, :, earlier]], dim=1)
            for late in range(earlier):
                overlap[:, late : late + count].add_(frames[:, :, late])
        seen = (state["seen"] + torch.arange(count + 1, device=x.device)).clamp(max=earlier)
        weights = self.weights.index_select(0, seen[:, :count].flatten()).view(batch, count, self.hop)
        y = overlap[:, :count] * weights
        after = {"tail": own_copy(overlap[:, count:]), "seen": own_copy(seen[:, count:])}
        return y.reshape(batch, 1, count * self.hop), after


@register("exp_polar")
class ExpPolar(StreamBlock):
    """Log-magnitude and phase to real and imaginary parts: the last step of a spectral vocoder head before its iSTFT.

    ``(batch, 2 * bins, frames)``, log-magnitudes then phases in radians, becomes ``m cos(p), m sin(p)`` of the same
    shape, with ``m = min(exp(log-magnitude), limit)``. Above the limit the gradient to the log-magnitude is 0, never
    NaN, however large the input. After Vocos (Siuzdak, arXiv:2306.00814).

    Args:
        source: an even number of channels.
        limit: largest magnitude; 100 keeps a wild frame from overwhelming an early training step.

    Raises:
        ValueError: for a limit that is not positive and finite.
        RateError: for an odd number of channels.
    """

    def __init__(self, source: Stream, *, limit: float = 100.0) -> None:
        if not (limit > 0 and math.isfinite(limit)):
            raise ValueError(f"limit must be positive and finite, not {limit}: 100 is usual")
        check_pairs(source, "exp_polar", "log-magnitudes, then phases")
        super().__init__(source)
        self.log_limit = math.log(limit)

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        log_magnitude, phase = x.chunk(2, dim=1)
        magnitude = log_magnitude.clamp(max=self.log_limit).exp()
        return torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1), state


@register("magnitude")
class Magnitude(StreamBlock):
    """Magnitude of a complex spectrum.

    ``(batch, 2 * bins, frames)``, real parts then imaginary parts, becomes ``(batch, bins, frames)``.
    Where a bin is 0 its gradient is 0, and not the NaN of a square root's.

    Raises:
        RateError: for an odd number of channels.
    """

    def __init__(self, source: Stream) -> None:
        check_pairs(source, "magnitude", "real parts, then imaginary parts")
        super().__init__(source, channels=source.channels // 2)

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        return squared_magnitude(x).sqrt(), state


def squared_magnitude(spectrum: Tensor) -> Tensor:
    """``re^2 + im^2`` of ``(batch, 2 * bins, frames)``, kept above 0 by the smallest normal number of its type."""
    real, imaginary = spectrum.chunk(2, dim=1)
    return (real.square() + imaginary.square()).clamp(min=torch.finfo(spectrum.dtype).tiny)


def check_pairs(source: Stream, name: str, order: str) -> None:
    if source.channels % 2:
        raise RateError(f"{name} takes an even number of channels ({order}), not {source.channels}")


def product(frames: Tensor, matrix: Tensor) -> Tensor:
    """``frames @ matrix.T`` in the matrix's precision even under autocast: bfloat16 is 50 dB short of audio."""
    if torch.is_autocast_enabled(frames.device.type):
        with torch.autocast(frames.device.type, enabled=False):
            return F.linear(frames.to(matrix.dtype), matrix)
    return F.linear(frames, matrix)
