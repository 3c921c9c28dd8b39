"""Periodic waves without aliasing, whose phase never drifts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.ops.phase import TURN
from astrape.blocks.parameters import bounded, check_choice, check_real, wide_type
from astrape.blocks.registry import register
from astrape.errors import RateError

__all__ = ["Oscillator"]

SHAPES = ("sine", "sawtooth", "square", "triangle")
MOST_HARMONICS = 512


@register("oscillator")
class Oscillator(StreamBlock):
    """A periodic wave of amplitude 1, at the pace of its input, whose values it does not look at.

    ``(batch, any, n)`` to ``(batch, 1, n)``. The wave is the sum of its first harmonics, each as long as it lies below
    half the rate, so that nothing aliases; the highest fades as it nears it, and a frequency that moves makes no step::

        y = sum_k a_k min(1, rate / 2 f - k) sin(2 pi k p),    k = 1 ... harmonics, while rate / 2 f > k

    with ``a_k`` as Fourier's series has them: ``2 / (pi k)`` with changing signs for a sawtooth that rises through 0 at
    phase 0, ``4 / (pi k)`` for the odd harmonics of a square, ``8 / (pi k)^2`` with changing signs for those of a
    triangle. A sum that is cut off overshoots at jumps, by 9 % of them.

    The phase ``p`` is kept in int64 fixed point, 2^48 units a turn: it neither drifts in a week nor depends on how the
    stream is cut, and goes on without a step when the frequency changes. The frequency is met to ``rate / 2^49``.

    With no ``frequency``, the input is one: Hz, sample by sample, for vibrato and frequency modulation. What is not a
    finite number, or below 0, counts as 0 Hz. No gradient goes to it, which is a clock here.

    Args:
        source: the clock, or the frequency in Hz in one channel.
        frequency: Hz, 0 to half the rate; a number or a control's name, which is held within that range. Left out, the
            input sets it.
        shape: ``sine``, ``sawtooth``, ``square`` or ``triangle``. Default ``sine``.
        harmonics: how many at most, 1 to 512. Default 32; a sine has one.
        phase: in turns at time zero, 0 to 1. Default 0, where all shapes rise through 0.

    Raises:
        ValueError: for an unknown shape or a number out of its range.
        RateError: for an input of more than one channel that is to be the frequency.
    """

    latency_by = "declared"

    like: Tensor

    def __init__(
        self,
        source: Stream,
        *,
        frequency: float | str | None = None,
        shape: Literal["sine", "sawtooth", "square", "triangle"] = "sine",
        harmonics: int = 32,
        phase: float = 0.0,
    ) -> None:
        super().__init__(source, channels=1)
        if frequency is None and source.channels != 1:
            raise RateError(f"oscillator takes its frequency as one channel, not {source.channels}: or give frequency")
        self.rate = float(self.rate_in)
        if frequency is not None and not isinstance(frequency, str):
            check_real("frequency", frequency, 0, self.rate / 2)
        self.frequency = None if frequency is None else self.live(frequency)
        self.shape = check_choice("shape", shape, SHAPES)
        self.amplitudes = amplitudes(self.shape, bounded("harmonics", harmonics, 1, MOST_HARMONICS))
        self.phase = round(check_real("phase", phase, 0, 1) * TURN) % TURN
        # Stands for the device that the block is moved to.
        self.register_buffer("like", torch.zeros(1, 1), persistent=False)

    @property
    def receptive_field(self) -> Fraction | None:
        return None

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """The phase of the next sample, fixed point ``(batch, 1)``."""
        return torch.full((batch_size, 1), self.phase, device=device, dtype=torch.int64)

    def prepare(self, controls: Mapping[str, Tensor]) -> Tensor | None:
        """The frequency, float64 Hz ``(batch or 1, 1)``, or ``None`` where the input has it."""
        if self.frequency is None:
            return None
        if isinstance(self.frequency, str):
            return controls[self.frequency].detach().to(wide_type(self.like.device)).clamp(0.0, self.rate / 2)
        return torch.full_like(self.like, self.frequency, dtype=wide_type(self.like.device))

    def step(self, x: Tensor, state: Tensor, controls: Tensor | None) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x.new_zeros(x.shape[0], 1, 0), state.clone()
        if controls is None:
            given = x[:, 0].detach().to(wide_type(x.device))
            frequency = torch.where(given < math.inf, given, 0.0).clamp(0.0, self.rate / 2)
            advance = self.units(frequency)
            ends = state + advance.cumsum(dim=-1)
            turns, after = ends - advance, ends[:, -1:] & (TURN - 1)
        else:
            frequency, advance = controls, self.units(controls)
            turns = state + advance * torch.arange(x.shape[-1], device=x.device)
            after = (state + advance * x.shape[-1]) & (TURN - 1)
        return self.wave(turns, frequency)[:, None].to(x.dtype), after

    def units(self, frequency: Tensor) -> Tensor:
        """Units of phase that a sample takes."""
        return (frequency * (TURN / self.rate)).round().to(torch.int64)

    def wave(self, turns: Tensor, frequency: Tensor) -> Tensor:
        """The sum of the harmonics at a phase in units, ``(batch, n)``."""
        room = (self.rate / 2) / frequency.clamp(min=1e-9)
        y = torch.zeros_like(turns, dtype=frequency.dtype)
        for order, amplitude in self.amplitudes:
            angle = ((turns * order) & (TURN - 1)).to(frequency.dtype) * (2 * math.pi / TURN)
            y = torch.addcmul(y, angle.sin(), (room - order).clamp(0, 1), value=amplitude)
        return y


def amplitudes(shape: str, harmonics: int) -> list[tuple[int, float]]:
    """The harmonics that a shape has, and their amplitudes, by Fourier's series."""
    if shape == "sine":
        return [(1, 1.0)]
    if shape == "sawtooth":
        return [(k, -2 / (math.pi * k) * (-1) ** k) for k in range(1, harmonics + 1)]
    odd = range(1, harmonics + 1, 2)
    if shape == "square":
        return [(k, 4 / (math.pi * k)) for k in odd]
    return [(k, 8 / (math.pi * k) ** 2 * (-1) ** (k // 2)) for k in odd]
