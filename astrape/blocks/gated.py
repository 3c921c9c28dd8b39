"""Connections past a part of a network, or around a convolution, that a gate lets in."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from astrape.blocks.adaln import AdaLN, add_gated
from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.compose import Sequential
from astrape.blocks.conv import Conv
from astrape.blocks.registry import register
from astrape.blocks.residual import pointwise_net

__all__ = ["AdaptiveConv", "GatedSkip"]


@register("gated_skip")
class GatedSkip(StreamBlock):
    """``h + sigmoid(gate) * SiLU(conv(x))``: an early signal ``x`` brought back to a late one ``h``.

    Two inputs at one rate, in this order: ``h``, ``(batch, channels, n)``, and ``x`` of any channels; the output is as
    ``h``. The gate is one value a channel. With a dilated kernel the skip is a glance far back: kernel 5 and dilation
    32 at 50 Hz see 2.6 s::

        skip: {use: gated_skip, from: [stem, adapter], kernel: 5, dilation: 32}

    Args:
        sources: ``h`` and ``x``.
        kernel: taps of the convolution, 1 to 65536.
        dilation: frames from tap to tap, 1 to 65536.
        gate: the gate's first value, before the sigmoid. -2 by default: the skip begins at 12 %.

    Attributes:
        conv: the convolution.
        gate: ``(1, channels, 1)``.

    Raises:
        ValueError: for a number of inputs other than two, or a size out of range.
        RateError: for inputs at different rates.
    """

    variadic = True

    def __init__(
        self, sources: Mapping[str, Stream], *, kernel: int = 5, dilation: int = 1, gate: float = -2.0
    ) -> None:
        if len(sources) != 2:
            raise ValueError(f"gated_skip takes two inputs, the signal and what skips to it, not {len(sources)}")
        super().__init__(sources)
        self.late, self.early = self.inputs
        self.conv = Conv(self.inputs[self.early], channels=self.channels_in, kernel=kernel, dilation=dilation)
        self.gate = nn.Parameter(torch.full((1, self.channels_in, 1), float(gate)))

    @property
    def receptive_field(self) -> Fraction:
        return self.conv.receptive_field

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return self.conv.init_state(batch_size, device, dtype)

    def prepare(self, controls: Mapping[str, Tensor]) -> Tensor:
        """The opening of the gate, 0 to 1, ``(1, channels, 1)``."""
        return torch.sigmoid(self.gate)

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        skipped, state = self.conv.step(x[self.early], state, ())
        late: Tensor = x[self.late]
        return torch.addcmul(late, controls, functional.silu(skipped)), state


@register("adaptive_conv")
class AdaptiveConv(Sequential):
    """``x + gate * pointwise(SnakeBeta(depthwise(AdaLN x)))``: a vocoder's residual block that a control shapes.

    ``(batch, channels, n)`` to the same shape. The gate is :class:`~astrape.blocks.adaln.AdaLN`'s own and zero at
    first, so a fresh block passes its input through. Shift, scale and gate are computed once per change of the control.
    With ``expand`` above 1 a pointwise convolution before the nonlinearity, ``widen``, brings the channels to so many
    times as many.

    Args:
        source: the input stream.
        condition: name of the control.
        condition_channels: the control's channels.
        kernel: taps of the depthwise convolution, 1 to 65536.
        dilation: frames from tap to tap, 1 to 65536.
        expand: channels of the nonlinearity per channel, 1 to 16. Default 1.

    Attributes:
        adaln, depthwise, widen, act, pointwise: the blocks it is made of, in order; a pointwise convolution has a
            kernel of 1. ``widen`` is there with ``expand`` above 1 only.

    Raises:
        ValueError: for a condition that is not a name, or a size out of range.
    """

    def __init__(
        self,
        source: Stream,
        *,
        condition: str,
        condition_channels: int = 128,
        kernel: int = 3,
        dilation: int = 1,
        expand: int = 1,
    ) -> None:
        adaln = AdaLN(source, condition=condition, condition_channels=condition_channels, gated=True)
        depthwise = Conv(source, kernel=kernel, dilation=dilation, depthwise=True)
        super().__init__({"adaln": adaln, "depthwise": depthwise, **pointwise_net(source, "snake_beta", expand)})

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        y, state = super().step(x, state, controls)
        return add_gated(x, y, controls["adaln"]), state
