"""Residual convolution blocks: normalise, mix over time within each channel, mix the channels, add."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.activation import Activation
from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.conv import Conv
from astrape.blocks.norm import Norm
from astrape.blocks.parameters import bounded
from astrape.blocks.registry import register

__all__ = ["ResidualConv", "SnakeConv", "widened"]


@register("residual_conv")
class ResidualConv(StreamBlock):
    """``x + pointwise(SiLU(depthwise(LN x)))``: ``(batch, channels, n)`` to the same shape.

    With ``expand`` above 1 it is ``x + pointwise(SiLU(widen(depthwise(LN x))))``: another pointwise convolution brings
    the channels to ``expand`` times as many first (ConvNeXt's order, Liu et al., arXiv:2201.03545).

    The zeros before time zero come after the normalisation, where they enter the convolution: they are the absence of
    input, not normalised silence. Receptive field: ``dilation * (kernel - 1) + 1`` frames. No latency.

    Args:
        source: the input stream.
        kernel: taps of the depthwise convolution, 1 to 65536.
        dilation: frames from tap to tap, 1 to 65536.
        expand: channels of the nonlinearity per channel, 1 to 16. Default 1.

    Attributes:
        norm, depthwise, widen, act, pointwise: the blocks it is made of, in order; a pointwise convolution has a kernel
            of 1. ``widen`` is there with ``expand`` above 1 only.

    Raises:
        ValueError: for a size out of range.
    """

    kind = "silu"

    def __init__(self, source: Stream, *, kernel: int = 5, dilation: int = 1, expand: int = 1) -> None:
        super().__init__(source)
        self.norm = Norm(source, kind="layer")
        self.depthwise = Conv(source, kernel=kernel, dilation=dilation, depthwise=True)
        self.widen, wide = widened(source, expand)
        self.act = Activation(wide, kind=self.kind)
        self.pointwise = Conv(wide, channels=source.channels, kernel=1)

    @property
    def receptive_field(self) -> Fraction:
        return self.depthwise.receptive_field

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return {"depthwise": self.depthwise.init_state(batch_size, device, dtype)}

    def prepare(self, controls: Mapping[str, Tensor]) -> Any:
        return self.act.prepare(controls)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        y, _ = self.norm.step(x, (), ())
        y, depthwise = self.depthwise.step(y, state["depthwise"], ())
        if self.widen is not None:
            y, _ = self.widen.step(y, (), ())
        y, _ = self.act.step(y, (), controls)
        y, _ = self.pointwise.step(y, (), ())
        return x + y, {"depthwise": depthwise}


@register("snake_conv")
class SnakeConv(ResidualConv):
    """``x + pointwise(SnakeBeta(depthwise(LN x)))``, as :class:`ResidualConv` with a periodic nonlinearity.

    Args:
        source: the input stream.
        kernel: taps of the depthwise convolution, 1 to 65536.
        dilation: frames from tap to tap, 1 to 65536.
        expand: channels of the nonlinearity per channel, 1 to 16. Default 1.

    Raises:
        ValueError: for a size out of range.
    """

    kind = "snake_beta"

    def __init__(self, source: Stream, *, kernel: int = 3, dilation: int = 1, expand: int = 1) -> None:
        super().__init__(source, kernel=kernel, dilation=dilation, expand=expand)


def widened(source: Stream, expand: int) -> tuple[Conv | None, Stream]:
    """The pointwise convolution to ``expand`` times the channels, none where that is 1, and what comes out."""
    wide = Stream(source.rate, source.channels * bounded("expand", expand, 1, 16))
    return (Conv(source, channels=wide.channels, kernel=1) if expand > 1 else None), wide
