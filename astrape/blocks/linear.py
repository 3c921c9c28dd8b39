"""A matrix applied to each frame by itself."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.conv import draw_weights
from astrape.blocks.parameters import LARGEST_COUNT, bounded, check_elements
from astrape.blocks.registry import register

__all__ = ["Linear"]


@register("linear")
class Linear(StreamBlock):
    """``y = weight x + bias`` at each frame: ``(batch, channels_in, n)`` to ``(batch, channels, n)``.

    Args:
        source: the input stream.
        channels: output channels, 1 to 65536.
        bias: whether a bias is added.

    Attributes:
        weight, bias: as in ``torch.nn.Linear``, ``(channels, channels_in)`` and ``(channels,)``, drawn as there.

    Raises:
        ValueError: for a channel count out of range.
    """

    def __init__(self, source: Stream, *, channels: int, bias: bool = True) -> None:
        super().__init__(source, channels=bounded("channels", channels, 1, LARGEST_COUNT))
        check_elements("the weight", channels, source.channels)
        self.weight = nn.Parameter(torch.empty(channels, source.channels))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        draw_weights(self.weight, self.bias)

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return functional.linear(x.transpose(1, 2), self.weight, self.bias).transpose(1, 2), state
