"""A learned adapter from wide features at a high rate to narrow ones at a low rate."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor, nn

from astrape.blocks.activation import exact_gelu
from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.conv import Conv
from astrape.blocks.linear import Linear
from astrape.blocks.parameters import LARGEST_COUNT, bounded
from astrape.blocks.registry import register

__all__ = ["StridingAdapter"]


@register("striding_adapter")
class StridingAdapter(StreamBlock):
    """Learned decimation, then a small network at each frame: ``(batch, channels_in, n * factor)`` to ``n`` frames.

    A convolution with kernel and stride ``factor``, in as many groups as it has outputs; then linear, exact GELU,
    linear. With ``align: last`` its window ends with its quantum and it costs no latency. With ``align: first``, which
    left padding by ``factor - 1`` gives, the newest frame that it uses is ``factor - 1`` frames old: 15 ms from 200 Hz
    by 4, for nothing; it is there for networks trained that way.

    Args:
        source: the input stream.
        channels: output channels; 80 by default, as many as a mel front end in its place has.
        hidden: channels between convolution and output, 256 by default; divides the input's channels.
        factor: input frames per output frame, 1 to 65536; 4 by default, 200 Hz to 50 Hz.
        align: ``"last"`` or ``"first"``.

    Attributes:
        down: the convolution, weight ``(hidden, channels_in / hidden, factor)``.
        net: the network, ``net.0`` and ``net.3`` its linear maps.

    Raises:
        ValueError: for a size out of range, or a ``hidden`` that does not divide the input's channels.
    """

    def __init__(
        self,
        source: Stream,
        *,
        channels: int = 80,
        hidden: int = 256,
        factor: int = 4,
        align: Literal["last", "first"] = "last",
    ) -> None:
        bounded("hidden", hidden, 1, LARGEST_COUNT)
        bounded("factor", factor, 1, LARGEST_COUNT)
        bounded("channels", channels, 1, LARGEST_COUNT)
        if source.channels % hidden:
            raise ValueError(f"hidden must divide the input's {source.channels} channels, and {hidden} does not")
        super().__init__(source, quantum=factor, ratio=Fraction(1, factor), channels=channels)
        self.down = Conv(source, channels=hidden, kernel=factor, stride=factor, groups=hidden, align=align)
        wide = Linear(self.down.output, channels=hidden)
        narrow = Linear(wide.output, channels=channels)
        # The indices that the two have in checkpoints, where an activation and a dropout stand between them.
        self.net = nn.ModuleDict({"0": wide, "3": narrow})

    @property
    def latency(self) -> Fraction:
        return self.down.latency

    @property
    def receptive_field(self) -> Fraction:
        return self.down.receptive_field

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return self.down.init_state(batch_size, device, dtype)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        y, state = self.down.step(x, state, ())
        wide, narrow = (layer for layer in self.net.values() if isinstance(layer, Linear))
        y, _ = wide.step(y, (), ())
        y, _ = narrow.step(exact_gelu(y), (), ())
        return y, state
