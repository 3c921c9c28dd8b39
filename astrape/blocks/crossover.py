"""Bands that sum flat: Linkwitz-Riley crossovers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.ops.recurrence import Recurrence
from astrape.blocks.ops.sections import StateSpace, cascade, first_order, second_order
from astrape.blocks.parameters import check_choice, check_real
from astrape.blocks.registry import register
from astrape.blocks.state import map_state

__all__ = ["Crossover"]

ORDERS = ("2", "4", "8")
MOST_FREQUENCIES = 15


@register("crossover")
class Crossover(StreamBlock):
    """Splits every channel into bands whose sum has all frequencies at their full level.

    One output for each band, ``"0"`` the lowest, ``(batch, channels, n)`` each: one more than there are frequencies.
    Two bands of a Linkwitz-Riley crossover are in phase with each other at every frequency and 6 dB down at their
    border: each is a Butterworth filter twice (S. Linkwitz, "Active crossover networks for noncoincident drivers",
    J. Audio Eng. Soc. 24(1), 1976). Their sum is an all-pass, which the bands below the next border pass too, so that
    more than two sum flat as well (S. Lipshitz and J. Vanderkooy, J. Audio Eng. Soc. 34(4), 1986, on the cascade). The
    phase turns, so the sum is not the input itself: mix it with what went through the crossover, never with the input.
    No latency::

        bands:  {use: crossover, from: mic, frequencies: [200, 3000]}
        soft:   {use: compressor, from: bands.2}
        sum:    {use: add, from: [bands.0, bands.1, soft]}

    Args:
        source: any stream; every channel is split by itself.
        frequencies: borders, Hz, rising, each above 0 and below half the rate; 1 to 15 of them.
        order: 2, 4 or 8, for 12, 24 or 48 dB an octave. Default 4. Of order 2, the upper band is inverted, without
            which the two would cancel at the border.

    Raises:
        ValueError: for frequencies that are none, too many, out of range or do not rise, or an unknown order.
    """

    like: Tensor

    def __init__(self, source: Stream, *, frequencies: Sequence[float], order: int = 4) -> None:
        names = [str(band) for band in range(len(frequencies) + 1)]
        super().__init__(source, outputs=dict.fromkeys(names, source.channels))
        if not 1 <= len(frequencies) <= MOST_FREQUENCIES:
            raise ValueError(f"frequencies must be 1 to {MOST_FREQUENCIES} numbers, not {len(frequencies)}")
        half = float(self.rate_in) / 2
        self.frequencies = [check_real("frequencies", value, 0, half) for value in frequencies]
        if not all(0 < value < half for value in self.frequencies) or sorted(set(self.frequencies)) != self.frequencies:
            raise ValueError(f"frequencies must rise between 0 and half the rate, {half:g} Hz, not {list(frequencies)}")
        self.order = int(check_choice("order", str(order), ORDERS))
        self.borders = [border(value, float(self.rate_in), self.order) for value in self.frequencies]
        # Stands for the type and the device that the block is moved to.
        self.register_buffer("like", torch.zeros(1, 1), persistent=False)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> list[list[Tensor]]:
        """The states of each border's low-pass and high-pass, and of the all-pass of each band below it."""

        def rest(filter: StateSpace) -> Tensor:
            return torch.zeros(batch_size, self.channels_in, len(filter.b), device=device, dtype=dtype)

        return [
            [rest(low), rest(high), *(rest(both) for _ in range(index))]
            for index, (low, high, both) in enumerate(self.borders)
        ]

    def prepare(self, controls: Mapping[str, Tensor]) -> list[tuple[Recurrence, ...]]:
        return [tuple(part.unroll().to(self.like) for part in parts) for parts in self.borders]

    def step(
        self, x: Tensor, state: State, controls: Sequence[tuple[Recurrence, ...]]
    ) -> tuple[dict[str, Tensor], State]:
        if not x.shape[-1]:
            return {name: x.clone() for name in self.outputs}, map_state(torch.clone, state)
        bands: list[Tensor] = []
        rest, after = x, []
        for (low, high, both), (before_low, before_high, *before_bands) in zip(controls, state, strict=True):
            passed = [both.run(band, before) for band, before in zip(bands, before_bands, strict=True)]
            below, after_low = low.run(rest, before_low)
            rest, after_high = high.run(rest, before_high)
            bands = [*(band for band, _ in passed), below]
            after.append([after_low, after_high, *(state for _, state in passed)])
        return dict(zip(self.outputs, [*bands, rest], strict=True)), after


def border(frequency: float, rate: float, order: int) -> tuple[StateSpace, StateSpace, StateSpace]:
    """The low-pass, the high-pass and the all-pass that is their sum, of a Linkwitz-Riley crossover."""
    g = math.tan(math.pi * frequency / rate)
    if order == 2:
        low, high = first_order(g, 0.0, 1.0), first_order(g, 1.0, 0.0)
        return cascade([low, low]), cascade([first_order(g, -1.0, 0.0), high]), first_order(g, -1.0, 1.0)
    half = order // 2
    # Twice the cosines of the angles of Butterworth's poles.
    dampings = [2 * math.sin(math.pi * (2 * index + 1) / (2 * half)) for index in range(half // 2)]
    low = cascade([second_order(g, k, 0.0, 0.0, 1.0) for k in dampings] * 2)
    high = cascade([second_order(g, k, 1.0, 0.0, 0.0) for k in dampings] * 2)
    return low, high, cascade([second_order(g, k, 1.0, -k, 1.0) for k in dampings])
