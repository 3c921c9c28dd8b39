"""Linear maps of each frame: a matrix, or a fixed factor and offset."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.conv import draw_weights
from astrape.blocks.ops.product import frame_product
from astrape.blocks.parameters import LARGEST_COUNT, bounded, check_elements, check_real
from astrape.blocks.registry import register

__all__ = ["Affine", "Linear"]


@register("linear")
class Linear(StreamBlock):
    """``y = weight x + bias`` at each frame: ``(batch, channels_in, n)`` to ``(batch, channels, n)``.

    Args:
        source: the input stream.
        channels: output channels, 1 to 65536.
        bias: whether a bias is added.
        init: factor on the first values of weight and bias, 0 to 100: below 1 for a layer before an exponential, whose
            first output would be too loud or too quiet by orders of magnitude. Weights that are loaded are not scaled.

    Attributes:
        weight, bias: as in ``torch.nn.Linear``, ``(channels, channels_in)`` and ``(channels,)``, drawn as there.

    Raises:
        ValueError: for a channel count or a factor out of range.
    """

    def __init__(self, source: Stream, *, channels: int, bias: bool = True, init: float = 1.0) -> None:
        super().__init__(source, channels=bounded("channels", channels, 1, LARGEST_COUNT))
        check_elements("the weight", channels, source.channels)
        self.weight = nn.Parameter(torch.empty(channels, source.channels))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        factor = check_real("init", init, 0, 100)
        draw_weights(self.weight, self.bias)
        if factor != 1:
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.mul_(factor)

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return frame_product(x.transpose(1, 2), self.weight, self.bias).transpose(1, 2), state


@register("affine")
class Affine(StreamBlock):
    """``y = scale * x + shift``, with fixed numbers: ``(batch, channels, n)`` to the same shape.

    It brings what a network takes to a range around 0, such as log mels, which lie between -11.5 and 2::

        level: {use: affine, scale: 0.25, shift: 1.5}

    Args:
        source: the input stream.
        scale, shift: numbers from -1e9 to 1e9. Default 1 and 0.

    Raises:
        ValueError: for a number out of range.
    """

    def __init__(self, source: Stream, *, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__(source)
        self.scale, self.shift = check_real("scale", scale, -1e9, 1e9), check_real("shift", shift, -1e9, 1e9)

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x * self.scale + self.shift, state
