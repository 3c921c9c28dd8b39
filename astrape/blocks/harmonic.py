"""A source for a spectral vocoder: the harmonics of a fundamental that is found from the frames."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from astrape.blocks.activation import Activation
from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.compose import Sequential
from astrape.blocks.conv import Conv
from astrape.blocks.parameters import LARGEST_COUNT, bounded, check_real
from astrape.blocks.registry import register

__all__ = ["HarmonicSource"]

LEAST = 1e-4
"""Added before the logarithm: the level that the comb counts as silence, -80 dB."""


@register("harmonic_source")
class HarmonicSource(StreamBlock):
    """A log-magnitude comb at the harmonics of a fundamental, in the bins of the iSTFT that is to follow.

    ``(batch, channels, n)`` to ``(batch, n_fft / 2 + 1, n)``. From the frames plus a projection of the speaker (the
    fundamental must follow the target's register, not the source's), a causal convolution, SnakeBeta and a pointwise
    convolution give two numbers a frame::

        f0     = lowest + (highest - lowest) * sigmoid(first)      Hz
        voiced = sigmoid(second)
        y[f]   = log(voiced * sum_k exp(-((freq[f] - k f0) / width)^2) + 1e-4),   k = 1 to harmonics

    with ``width`` one bin. It is differentiable in ``f0`` and needs no forward transform. At 175 Hz and 1512 points a
    fundamental of 100 Hz makes peaks 3.4 bins apart. Put it beside the frames before the head's first projection
    (source-filter vocoding: Wang, Takaki & Yamagishi, arXiv:1810.11946)::

        source: {use: harmonic_source, from: frames, condition: speaker, n_fft: 1512, hop: 252}
        joined: {use: concat, from: [refined, source]}

    With ``pitch: true`` there are two outputs, ``comb`` and ``pitch``, the latter two channels, ``f0`` and ``voiced``:
    what a loss supervises. The comb is the same.

    Args:
        source: the frames, at the rate of the spectra.
        condition: name of the control that carries the speaker.
        condition_channels: the control's channels.
        n_fft, hop: of the iSTFT; ``hop`` times the rate of the frames is the sample rate.
        harmonics: teeth of the comb, 1 to 1024; 16 by default.
        lowest, highest: range of the fundamental, Hz; 50 to 600 by default, which speech keeps within.
        pitch: whether to give the fundamental and the voicing as a second output. Default ``False``.

    Attributes:
        spk_proj: the speaker's projection.
        head: ``head.0`` convolution of kernel 3, ``head.1`` SnakeBeta, ``head.2`` pointwise convolution to 2.

    Raises:
        ValueError: for a condition that is not a name, or a number out of range.
    """

    frequencies: Tensor

    def __init__(
        self,
        source: Stream,
        *,
        condition: str,
        n_fft: int,
        hop: int,
        condition_channels: int = 128,
        harmonics: int = 16,
        lowest: float = 50.0,
        highest: float = 600.0,
        pitch: bool = False,
    ) -> None:
        if not isinstance(condition, str) or not condition:
            raise ValueError(f"condition must be the name of a control, not {condition!r}")
        bounded("n_fft", n_fft, 2, LARGEST_COUNT)
        bounded("hop", hop, 1, LARGEST_COUNT)
        bins = n_fft // 2 + 1
        super().__init__(source, outputs={"comb": bins, "pitch": 2} if pitch else {"out": bins})
        self.condition = condition
        self.controls[condition] = bounded("condition_channels", condition_channels, 1, LARGEST_COUNT)
        self.harmonics = bounded("harmonics", harmonics, 1, 1024)
        self.lowest = check_real("lowest", lowest, 0, 1e6)
        self.highest = check_real("highest", highest, self.lowest, 1e6)
        self.width = float(source.rate * hop / n_fft)
        self.spk_proj = nn.Linear(condition_channels, source.channels)
        self.head = Sequential(
            Conv(source, kernel=3), Activation(source, kind="snake_beta"), Conv(source, channels=2, kernel=1)
        )
        frequencies = torch.arange(bins, dtype=torch.float64) * self.width
        self.register_buffer("frequencies", frequencies.to(torch.get_default_dtype()), persistent=False)

    @property
    def receptive_field(self) -> Fraction:
        return 3 / self.rate_in

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return self.head.init_state(batch_size, device, dtype)

    def prepare(self, controls: Mapping[str, Tensor]) -> Any:
        """The speaker's share of every frame, ``(batch, channels, 1)``, and what the head takes."""
        projected: Tensor = self.spk_proj(controls[self.condition])
        return projected.unsqueeze(-1), self.head.prepare({})

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Signal, State]:
        fundamental, voicing, state = self.pitch(x, state, controls)
        comb = torch.zeros_like(fundamental)
        # One harmonic at a time: all at once would take `harmonics` times the memory of the output.
        for number in range(1, self.harmonics + 1):
            distance = (self.frequencies[:, None] - number * fundamental) / self.width
            comb = comb + torch.exp(-distance.square())
        comb = torch.log(comb * voicing + LEAST)
        if "pitch" in self.outputs:
            return {"comb": comb, "pitch": torch.cat([fundamental, voicing], dim=1)}, state
        return comb, state

    def pitch(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, Tensor, State]:
        """The fundamental in Hz and the voicing from 0 to 1, ``(batch, 1, n)`` each, and the next state."""
        share, prepared = controls
        y, state = self.head.step(x + share, state, prepared)
        first, second = torch.sigmoid(y).chunk(2, dim=1)
        return self.lowest + (self.highest - self.lowest) * first, second, state
