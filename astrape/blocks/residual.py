"""Residual convolution blocks: normalise, mix over time within each channel, mix the channels, add."""

from __future__ import annotations

from astrape.blocks.activation import Activation
from astrape.blocks.base import Stream, StreamBlock
from astrape.blocks.compose import Residual
from astrape.blocks.conv import Conv
from astrape.blocks.norm import Norm
from astrape.blocks.parameters import bounded
from astrape.blocks.registry import register

__all__ = ["ResidualConv", "SnakeConv", "pointwise_net"]


@register("residual_conv")
class ResidualConv(Residual):
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
        super().__init__(
            {
                "norm": Norm(source, kind="layer"),
                "depthwise": Conv(source, kernel=kernel, dilation=dilation, depthwise=True),
                **pointwise_net(source, self.kind, expand),
            }
        )


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


def pointwise_net(source: Stream, kind: str, expand: int) -> dict[str, StreamBlock]:
    """``widen`` to ``expand`` times the channels, where that is more than one; ``act``; and ``pointwise`` back."""
    wide = Stream(source.rate, source.channels * bounded("expand", expand, 1, 16))
    widen = {"widen": Conv(source, channels=wide.channels, kernel=1)} if expand > 1 else {}
    act = Activation(wide, kind=kind)
    return {**widen, "act": act, "pointwise": Conv(wide, channels=source.channels, kernel=1)}
