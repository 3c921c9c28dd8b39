"""Channels mixed into channels: a matrix of gains, and a place between left and right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.ops.tables import ExactTables, Float64
from astrape.blocks.parameters import LARGEST_COUNT, check_elements, check_real
from astrape.blocks.plumbing import Glide
from astrape.blocks.registry import register
from astrape.errors import RateError

__all__ = ["Matrix", "Pan"]


@register("matrix")
class Matrix(StreamBlock, ExactTables):
    """Each output channel a weighted sum of the input channels: ``y[j] = sum_i gains[j][i] x[i]``.

    ``(batch, channels, n)`` to ``(batch, len(gains), n)``. Stereo to mid and side, to mono, one channel out of many::

        sides: {use: matrix, from: stereo, gains: [[0.5, 0.5], [0.5, -0.5]]}
        mono:  {use: matrix, from: stereo, gains: [[0.5, 0.5]]}

    Args:
        source: any stream.
        gains: a row for each output channel, each a number for every input channel, -1e6 to 1e6.

    Raises:
        ValueError: for no rows, too many, or a gain that is not such a number.
        RateError: for a row that has not as many gains as there are channels.
    """

    gains: Tensor

    def __init__(self, source: Stream, *, gains: Sequence[Sequence[float]]) -> None:
        if not 1 <= len(gains) <= LARGEST_COUNT:
            raise ValueError(f"gains must be 1 to {LARGEST_COUNT} rows, not {len(gains)}")
        check_elements("the gains of a matrix", len(gains), source.channels)
        for index, row in enumerate(gains):
            if len(row) != source.channels:
                raise RateError(f"row {index} of gains has {len(row)} numbers: give one for each of {source.channels}")
        self.rows = [[check_real("gains", gain, -1e6, 1e6) for gain in row] for row in gains]
        super().__init__(source, channels=len(gains))
        self.register_tables()

    def exact_tables(self) -> dict[str, Float64]:
        return {"gains": np.array(self.rows, dtype=np.float64)}

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in

    def step(self, x: Tensor, state: State, controls: object) -> tuple[Tensor, State]:
        return self.gains @ x, state


@register("pan")
class Pan(StreamBlock):
    """Puts a signal in its place between left and right, at the same power everywhere.

    One channel to two, ``cos`` and ``sin`` of a quarter turn from left to right: 3 dB down in the middle, and the sum
    of the powers is 1. Of two channels, that is a balance: each is turned down by the same law, and the middle leaves
    them as they are, 3 dB louder than one channel there. A live position moves as the gain of ``gain`` does.

    Args:
        source: one channel or two.
        position: -1 left to 1 right, 0 the middle; a number or a control's name, held within that range. Default 0.
        smooth_ms: time constant for changes of a live position, 0 to 60000 ms. Default 5.

    Raises:
        ValueError: for a number out of its range.
        RateError: for more than two channels.
    """

    def __init__(self, source: Stream, *, position: float | str = 0.0, smooth_ms: float = 5.0) -> None:
        if source.channels > 2:
            raise RateError(f"pan takes one channel or two, not {source.channels}: bring them there with matrix")
        super().__init__(source, channels=2)
        if not isinstance(position, str):
            check_real("position", position, -1, 1)
        self.position = self.live(position)
        self.glide = Glide(smooth_ms, self.rate_in)
        self.loudest = math.sqrt(source.channels)

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return self.glide.init_state(batch_size, device, dtype) if isinstance(self.position, str) else ()

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x.new_zeros(x.shape[0], 2, 0), state
        if isinstance(self.position, str):
            place, state = self.glide.step(controls[self.position].clamp(-1, 1), x.shape[-1], state)
        else:
            place = x.new_full((1, 1, 1), self.position)
        angle = (place + 1) * (math.pi / 4)
        return x * torch.cat([angle.cos(), angle.sin()], dim=1) * self.loudest, state
