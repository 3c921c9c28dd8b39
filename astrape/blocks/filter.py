"""Recursive and transversal filters: second-order sections, a DC blocker, and FIR filters by their taps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.ops.recurrence import Recurrence
from astrape.blocks.ops.sections import chebyshev_highpass
from astrape.blocks.registry import register

__all__ = ["FIR", "Biquad", "DCBlock", "SteepHighpass"]

KINDS = ("lowpass", "highpass", "bandpass", "notch", "peaking", "low_shelf", "high_shelf")
MAX_TAPS = 65536


class RecursiveFilter(StreamBlock):
    """A recursive filter of every channel by itself, from the state-space matrices that ``matrices`` gives.

    They are unrolled once per change of a control, or once per stream where all is fixed, and then in float64: rounding
    to the type of the block comes last, so that the matrices agree with each other as well as that type allows.
    """

    order: ClassVar[int]
    like: Tensor

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        # Stands for the type and the device that the block is moved to.
        self.register_buffer("like", torch.zeros(1, 1), persistent=False)

    def matrices(self, controls: Mapping[str, Tensor], like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``A, B, C, D`` of ``s' = A s + B x``, ``y = C s + D x``, batch first; ``like`` gives dtype and device."""
        raise NotImplementedError

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        return torch.zeros(batch_size, self.channels_in, self.order, device=device, dtype=dtype)

    def prepare(self, controls: Mapping[str, Tensor]) -> Recurrence:
        if controls:
            return Recurrence.unroll(*self.matrices(controls, next(iter(controls.values()))))
        return Recurrence.unroll(*self.matrices({}, torch.zeros(1, 1, dtype=torch.float64))).to(self.like)

    def step(self, x: Tensor, state: State, controls: Recurrence) -> tuple[Tensor, State]:
        return controls.run(x, state)


@register("biquad")
class Biquad(RecursiveFilter):
    """A second-order section of one of seven kinds, with the responses of the Audio EQ Cookbook.

    The transfer functions are those of R. Bristow-Johnson, "Cookbook formulae for audio EQ biquad filter coefficients"
    (W3C Note, 2021). They are realised as the trapezoidal state-variable filter of V. Zavalishin, "The Art of VA
    Filter Design" (2012), section 4, which has the very same response, keeps its accuracy in float32 at frequencies
    far below the sample rate, where direct forms lose it, and stays calm while its frequency moves. With
    ``g = tan(pi frequency / rate)``, damping ``k`` and the two integrators' states ``s1, s2``::

        band = (g (x - s2) + s1) / (1 + g (g + k))      s1' = 2 band - s1
        low  = s2 + g band                              s2' = 2 low - s2
        y    = m0 x + m1 band + m2 low

    Args:
        source: any stream; every channel is filtered by itself.
        kind: ``lowpass``, ``highpass``, ``bandpass`` (0 dB at its peak), ``notch``, ``peaking``, ``low_shelf`` or
            ``high_shelf``.
        frequency: corner or centre, Hz; a number or a control's name. A fixed one lies between 0 and half the rate,
            a live one is held within 1e-6 and 0.499 of the rate.
        q: quality, 0.01 to 1000; a number or a control's name. The default 1/sqrt(2) makes low and high passes
            Butterworth filters and shelves as steep as they get without overshoot.
        gain_db: gain of ``peaking`` and the shelves, -120 to 120 dB; a number or a control's name.

    Raises:
        ValueError: for an unknown kind or a number out of its range.

    >>> high = Biquad(Stream(44100, 1), kind="highpass", frequency=80.0)
    >>> high(torch.ones(1, 1, 44100))[0, 0, -1].abs() < 1e-5
    tensor(True)
    """

    order = 2

    def __init__(
        self,
        source: Stream,
        *,
        kind: Literal["lowpass", "highpass", "bandpass", "notch", "peaking", "low_shelf", "high_shelf"],
        frequency: float | str,
        q: float | str = 0.5**0.5,
        gain_db: float | str = 0.0,
    ) -> None:
        super().__init__(source)
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        nyquist = float(self.rate_in) / 2
        if not isinstance(frequency, str) and not 0 < frequency < nyquist:
            raise ValueError(f"frequency must lie between 0 and half the rate, {nyquist:g} Hz, not {frequency}")
        if not isinstance(q, str) and not 0.01 <= q <= 1000:
            raise ValueError(f"q must be 0.01 to 1000, not {q}")
        if not isinstance(gain_db, str) and not abs(gain_db) <= 120:
            raise ValueError(f"gain_db must be -120 to 120, not {gain_db}")
        self.kind = kind
        self.frequency, self.q, self.gain_db = self.live(frequency), self.live(q), self.live(gain_db)

    def matrices(self, controls: Mapping[str, Tensor], like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rate = float(self.rate_in)
        frequency = value_of(self.frequency, controls, like).clamp(1e-6 * rate, 0.499 * rate)
        q = value_of(self.q, controls, like).clamp(0.01, 1000.0)
        amplitude = 10 ** (value_of(self.gain_db, controls, like).clamp(-120, 120) / 40)
        g, k = torch.tan(frequency * (math.pi / rate)), 1 / q
        zero, one = torch.zeros_like(g), torch.ones_like(g)
        if self.kind == "lowpass":
            m0, m1, m2 = zero, zero, one
        elif self.kind == "highpass":
            m0, m1, m2 = one, -k, -one
        elif self.kind == "bandpass":
            m0, m1, m2 = zero, k, zero
        elif self.kind == "notch":
            m0, m1, m2 = one, -k, zero
        elif self.kind == "peaking":
            k = k / amplitude
            m0, m1, m2 = one, k * (amplitude**2 - 1), zero
        elif self.kind == "low_shelf":
            g = g / amplitude.sqrt()
            m0, m1, m2 = one, k * (amplitude - 1), amplitude**2 - 1
        else:
            g = g * amplitude.sqrt()
            m0, m1, m2 = amplitude**2, k * (amplitude - amplitude**2), 1 - amplitude**2
        denominator = 1 + g * (g + k)
        # Band and low as linear functions of the states and the input: rows over (s1, s2, x).
        band = torch.stack([one, -g, g], dim=-1) / denominator[:, None]
        low = torch.stack([zero, one, zero], dim=-1) + g[:, None] * band
        states = torch.stack([2 * band, 2 * low], dim=1) - torch.eye(2, 3, dtype=g.dtype, device=g.device)
        out = m1[:, None] * band + m2[:, None] * low
        return states[:, :, :2], states[:, :, 2], out[:, :2], m0 + out[:, 2]


@register("dc_block")
class DCBlock(RecursiveFilter):
    """A first-order high-pass that takes the constant part out of a signal.

    The bilinear transform of ``s / (s + 2 pi frequency)``: -3 dB at ``frequency``, gain 1 at half the rate.

    Args:
        source: any stream; every channel is filtered by itself.
        frequency: corner, Hz, between 0 and half the rate. The default of 10 Hz lies an octave below what is heard.

    Raises:
        ValueError: for a frequency out of range.
    """

    order = 1

    def __init__(self, source: Stream, *, frequency: float = 10.0) -> None:
        super().__init__(source)
        if not 0 < frequency < float(self.rate_in) / 2:
            raise ValueError(
                f"frequency must lie between 0 and half the rate, {float(self.rate_in) / 2:g} Hz, not {frequency}"
            )
        self.frequency = float(frequency)

    def matrices(self, controls: Mapping[str, Tensor], like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        g = torch.full((1,), math.tan(math.pi * self.frequency / float(self.rate_in)), dtype=like.dtype)
        # Trapezoidal integrator: low = (s + g x) / (1 + g), s' = 2 low - s, y = x - low.
        return ((1 - g) / (1 + g))[:, None, None], (2 * g / (1 + g))[:, None], (-1 / (1 + g))[:, None], 1 / (1 + g)


@register("steep_highpass")
class SteepHighpass(StreamBlock):
    """A steep high-pass against hum and rumble: all below ``frequency`` is at least ``stop_db`` down.

    Chebyshev's second kind, of the fifth order: flat above, with a zero at 0 Hz and two below ``frequency``. With 40 dB
    a signal is 2 dB down at 1.7 times ``frequency``, and 0.5 dB at twice of it.

    Args:
        source: any stream; every channel is filtered by itself.
        frequency: edge of what is taken out, Hz, between 0 and a quarter of the rate. The default of 60 Hz takes out
            the hum of mains of both kinds.
        stop_db: by how much, 10 to 120 dB. Default 40.

    Raises:
        ValueError: for a number out of its range.
    """

    like: Tensor

    def __init__(self, source: Stream, *, frequency: float = 60.0, stop_db: float = 40.0) -> None:
        super().__init__(source)
        quarter = float(self.rate_in) / 4
        if not 0 < frequency < quarter:
            raise ValueError(f"frequency must lie between 0 and a quarter of the rate, {quarter:g} Hz, not {frequency}")
        if not 10 <= stop_db <= 120:
            raise ValueError(f"stop_db must be 10 to 120 dB, not {stop_db}")
        self.chain = chebyshev_highpass(5, float(frequency), float(stop_db), float(self.rate_in))
        # Stands for the type and the device that the block is moved to.
        self.register_buffer("like", torch.zeros(1, 1), persistent=False)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        return torch.zeros(batch_size, self.channels_in, len(self.chain.b), device=device, dtype=dtype)

    def prepare(self, controls: Mapping[str, Tensor]) -> Recurrence:
        return self.chain.unroll().to(self.like)

    def step(self, x: Tensor, state: State, controls: Recurrence) -> tuple[Tensor, State]:
        return controls.run(x, state)


@register("fir")
class FIR(StreamBlock):
    """A transversal filter, ``y[n] = sum taps[i] x[n - i]``, of every channel by itself.

    The latency is the middle between the first and the last tap that is not zero: for symmetric taps the group delay.

    Args:
        source: any stream.
        taps: 1 to 65536 coefficients, newest sample first, not all zero.

    Raises:
        ValueError: for no taps, too many, or none but zeros.
    """

    latency_by = "centre"
    taps: Tensor

    def __init__(self, source: Stream, *, taps: Sequence[float]) -> None:
        super().__init__(source)
        if not 1 <= len(taps) <= MAX_TAPS:
            raise ValueError(f"taps must be 1 to {MAX_TAPS} numbers, not {len(taps)}")
        support = [index for index, tap in enumerate(taps) if tap != 0]
        if not support:
            raise ValueError("taps must not all be zero")
        self.support = support[0], support[-1]
        self.register_buffer("taps", torch.tensor(list(taps), dtype=torch.get_default_dtype()), persistent=False)

    @property
    def latency(self) -> Fraction:
        return Fraction(sum(self.support), 2) / self.rate_in

    @property
    def receptive_field(self) -> Fraction:
        return Fraction(self.support[1] + 1) / self.rate_in

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        return torch.zeros(batch_size, self.channels_in, len(self.taps) - 1, device=device, dtype=dtype)

    def step(self, x: Tensor, state: State, controls: object) -> tuple[Tensor, State]:
        batch, channels, frames = x.shape
        joined = torch.cat([state, x], dim=-1)
        if not frames:
            return x.clone(), joined
        kernel = self.taps.flip(0)[None, None]
        y = nn.functional.conv1d(joined.reshape(batch * channels, 1, -1), kernel).reshape(batch, channels, frames)
        return y, joined[..., frames:].clone(memory_format=torch.contiguous_format)


def value_of(value: float | str, controls: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """A parameter's value per batch row, ``(batch,)``, whether it is a number or a control."""
    if isinstance(value, str):
        return controls[value][:, 0]
    return torch.full_like(like[:, 0], value)
