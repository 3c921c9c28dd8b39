"""Convolutions over time that see no frame after their own quantum, and their transposes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.ops.history import empty_history, empty_tail, join_history, next_history, own_copy
from astrape.blocks.ops.product import frame_product
from astrape.blocks.parameters import LARGEST_COUNT, bounded, check_choice, check_elements
from astrape.blocks.policy import policy
from astrape.blocks.registry import register

__all__ = ["Conv", "Downsample", "RepeatUpsample", "TransposedConv"]

FEW_FRAMES = 64
"""Output frames up to which a matrix product is faster than a convolution, which reorders its weights first on a CPU:
two to four times for 2 to 8 frames of 512 channels, and still 1.3 times for 64."""

FEW_TAPS = 8
"""Taps of a depthwise convolution up to which they are added one by one: 3 taps over 7 frames of 384 channels take 12
us, as products and their sums along memory 30."""

FEW_SPREAD = 4
"""Input frames up to which a transposed convolution is one matrix product, whose parts are laid over each other."""


@register("conv")
class Conv(StreamBlock):
    """Convolution with zeros before time zero: ``(batch, channels_in, n * stride)`` to ``(batch, channels, n)``.

    A quantum is ``stride`` input frames. Where the window lies in it is ``align``::

        kernel 4, stride 4       quantum k          a window that ends with ...
        frames           4k   4k+1  4k+2  4k+3
        "last"          [x     x     x     x ]      the quantum's last frame: the newest heard, latency 0
        "first"   x x x  x ]                        its first frame: stride - 1 frames of age, for nothing

    ``"first"`` is what left padding by ``dilation * (kernel - 1)`` gives, and is there for networks trained that way.
    With stride 1 the two are the same. A kernel narrower than its stride never sees the frames in between.

    Args:
        source: the input stream.
        channels: output channels; as many as the input has, when left out.
        kernel: taps, 1 to 65536.
        stride: input frames per output frame, 1 to 65536.
        dilation: frames from tap to tap, 1 to 65536.
        groups: runs of channels that are convolved apart; divides both channel counts.
        depthwise: each input channel on its own, which is ``groups`` of the input's channel count.
        bias: whether a bias is added.
        align: ``"last"`` or ``"first"``.

    Attributes:
        weight, bias: as in ``torch.nn.Conv1d``, ``(channels, channels_in / groups, kernel)`` and ``(channels,)``,
            drawn as there.

    Raises:
        ValueError: for a size out of range, or groups that do not divide the channels.
    """

    def __init__(
        self,
        source: Stream,
        *,
        channels: int | None = None,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        depthwise: bool = False,
        bias: bool = True,
        align: Literal["last", "first"] = "last",
    ) -> None:
        count = bounded("channels", source.channels if channels is None else channels, 1, LARGEST_COUNT)
        step_frames = bounded("stride", stride, 1, LARGEST_COUNT)
        super().__init__(source, quantum=step_frames, ratio=Fraction(1, step_frames), channels=count)
        self.kernel = bounded("kernel", kernel, 1, LARGEST_COUNT)
        self.stride = step_frames
        self.dilation = bounded("dilation", dilation, 1, LARGEST_COUNT)
        if depthwise and groups != 1:
            raise ValueError(f"groups must be left at 1 with depthwise, not {groups}: drop one of the two")
        self.groups = check_groups(source.channels if depthwise else groups, source.channels, count)
        self.align = check_choice("align", align, ("last", "first"))
        shape = (count, source.channels // self.groups, self.kernel)
        check_elements("the weight", *shape)
        check_elements("the state", source.channels, self.history)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(count)) if bias else None
        draw_weights(self.weight, self.bias)

    @property
    def span(self) -> int:
        """Frames from a window's oldest tap to its newest, both included."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def newest(self) -> int:
        """The newest frame of the quantum that the window reaches, counted from the quantum's start."""
        return self.stride - 1 if self.align == "last" else 0

    @property
    def history(self) -> int:
        """Frames before the quantum that the window reaches."""
        return max(0, self.span - 1 - self.newest)

    @property
    def latency(self) -> Fraction:
        return (self.stride - 1 - self.newest) / self.rate_in

    @property
    def receptive_field(self) -> Fraction:
        return (self.span + self.stride - 1 - self.newest) / self.rate_in

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return empty_history(batch_size, self.channels_in, self.history, device, dtype)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.channels_out, 0), state
        if self._sums_taps and x.shape[-1] == self.stride:
            return self._lone(x, state)
        joined, state = join_history(state, x)
        # A window shorter than its quantum begins after the quantum does.
        first = self.history + self.newest + 1 - self.span
        window = joined[..., first : first + x.shape[-1] - self.stride + self.span]
        return self._convolve(window), state

    @property
    def _sums_taps(self) -> bool:
        """Whether it is depthwise with few taps."""
        return self.groups == self.channels_in == self.channels_out and self.kernel <= FEW_TAPS

    def _lone(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One output frame of a depthwise convolution, whose taps are read where they lie: nothing is joined for it."""
        first = self.history + self.newest + 1 - self.span
        places = range(first, first + self.span, self.dilation)
        taps = [
            state[:, place, :, None]
            if isinstance(state, Tensor) and place < self.history
            else x[..., place - self.history, None]
            for place in places
        ]
        return self._summed(taps), next_history(state, x)

    def _summed(self, taps: Sequence[Tensor]) -> Tensor:
        """Frames times their tap's weights, added one after the other: channels that lie together stay together."""
        bias = None if self.bias is None else self.bias[:, None]
        y = taps[0] * self.weight[..., 0] if bias is None else bias
        for tap in range(1 if bias is None else 0, self.kernel):
            y = torch.addcmul(y, taps[tap], self.weight[..., tap])
        return y

    def _convolve(self, window: Tensor) -> Tensor:
        frames = (window.shape[-1] - self.span) // self.stride + 1
        single = self.groups == self.channels_out
        if frames > FEW_FRAMES or not (self.groups == 1 or single):
            return functional.conv1d(window, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        if self.groups == self.kernel == self.stride == 1:
            return frame_product(window.transpose(1, 2), self.weight.squeeze(-1), self.bias).transpose(1, 2)
        taps = policy().windows(window, self.span, self.stride)[..., :: self.dilation]
        if self.groups == 1:
            rows, weight = policy().rows_of_taps(taps, self.weight)
            return frame_product(rows, weight, self.bias).transpose(1, 2)
        if self._sums_taps:
            return self._summed(taps.unbind(-1))
        # One output a group, of several channels or many taps.
        bias = None if self.bias is None else self.bias[:, None]
        if taps.shape[:3] == (1, self.groups, 1):
            # A live frame: a product of its own for each channel, and the bias with it.
            column, weight = taps.view(self.groups, 1, -1), self.weight.view(self.groups, -1, 1)
            lone = torch.bmm(column, weight) if bias is None else torch.baddbmm(bias.unsqueeze(-1), column, weight)
            return lone.view(1, self.groups, 1)
        rows = taps.reshape(taps.shape[0], self.groups, -1, frames, self.kernel).transpose(2, 3).flatten(3)
        y = torch.matmul(rows, self.weight.flatten(1).unsqueeze(-1)).squeeze(-1)
        return y if bias is None else y + bias


@register("downsample")
class Downsample(Conv):
    """Learned decimation: a convolution whose kernel is its stride, ``(batch, channels_in, n * factor)`` to ``n``.

    Each output frame sees exactly the frames of its own quantum, so there is no state and no latency.

    Args:
        source: the input stream.
        factor: input frames per output frame, 1 to 65536.
        channels: output channels; as many as the input has, when left out.
        groups: as in :class:`Conv`.
        bias: whether a bias is added.

    Raises:
        ValueError: as :class:`Conv` does.
    """

    def __init__(
        self, source: Stream, *, factor: int, channels: int | None = None, groups: int = 1, bias: bool = True
    ) -> None:
        bounded("factor", factor, 1, LARGEST_COUNT)
        super().__init__(source, channels=channels, kernel=factor, stride=factor, groups=groups, bias=bias)


@register("transposed_conv")
class TransposedConv(StreamBlock):
    """Transposed convolution, cut to whole quanta: ``(batch, channels_in, n)`` to ``(batch, channels, n * stride)``.

    Input frame ``i`` reaches the outputs ``i * stride`` to ``i * stride + kernel - 1``. What reaches past the newest
    input's ``stride`` outputs is kept and added to the frames to come; the bias is added once, on the way out. With
    kernel 14 and stride 7, each output is made of two input frames, and 7 outputs are kept. With a kernel below its
    stride, the last ``stride - kernel`` outputs of a quantum are the bias alone.

    Args:
        source: the input stream.
        channels: output channels; as many as the input has, when left out.
        kernel: taps, 1 to 65536.
        stride: output frames per input frame, 1 to 65536.
        groups: runs of channels that are convolved apart; divides both channel counts.
        bias: whether a bias is added.

    Attributes:
        weight, bias: as in ``torch.nn.ConvTranspose1d``, ``(channels_in, channels / groups, kernel)`` and
            ``(channels,)``, drawn as there.

    Raises:
        ValueError: for a size out of range, or groups that do not divide the channels.
    """

    def __init__(
        self,
        source: Stream,
        *,
        channels: int | None = None,
        kernel: int,
        stride: int,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        count = bounded("channels", source.channels if channels is None else channels, 1, LARGEST_COUNT)
        super().__init__(source, ratio=bounded("stride", stride, 1, LARGEST_COUNT), channels=count)
        self.kernel = bounded("kernel", kernel, 1, LARGEST_COUNT)
        self.stride = stride
        self.groups = check_groups(groups, source.channels, count)
        self.tail = max(0, self.kernel - self.stride)
        shape = (source.channels, count // self.groups, self.kernel)
        check_elements("the weight", *shape)
        check_elements("the state", count, self.tail)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(count)) if bias else None
        draw_weights(self.weight, self.bias)

    @property
    def receptive_field(self) -> Fraction:
        return ((self.kernel - 1) // self.stride + 1) / self.rate_in

    def oldest_input(self, frame: int) -> int:
        # Past the kernel's end the quotient is -1, and 1, the end of the quantum, says that no input has influence.
        return -((self.kernel - 1 - frame) // self.stride)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return empty_tail(batch_size, self.channels_out, self.tail, device, dtype)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        frames = x.shape[-1] * self.stride
        if frames == 0:
            return x.new_zeros(x.shape[0], self.channels_out, 0), state
        y = self._spread(x)
        if self.tail:
            met, rest = y[..., : self.tail] + state, y[..., self.tail :]
            if self.tail == frames:
                # One frame of a kernel twice as long as its stride: what state reaches goes out, and no more.
                y, state = met, own_copy(rest)
            else:
                y = torch.cat([met, rest], dim=-1)
                y, state = y[..., :frames], own_copy(y[..., frames:])
        else:
            y = functional.pad(y, (0, frames - y.shape[-1]))
        return y if self.bias is None else y + self.bias[:, None], state

    def _spread(self, x: Tensor) -> Tensor:
        """The output of ``n`` frames in full, ``(batch, channels, (n - 1) * stride + kernel)``, without the bias."""
        frames = x.shape[-1]
        if self.groups > 1 or frames > FEW_SPREAD:
            return functional.conv_transpose1d(x, self.weight, None, self.stride, groups=self.groups)
        # One matrix product for all taps: a transposed convolution would turn its weights round in every call.
        taps = functional.linear(x.transpose(1, 2), self.weight.flatten(1).t())
        taps = taps.reshape(*taps.shape[:2], -1, self.kernel)
        if frames == 1:
            return taps[:, 0]
        reach = (frames - 1) * self.stride + self.kernel
        parts = [
            functional.pad(taps[:, i], (i * self.stride, reach - i * self.stride - self.kernel)) for i in range(frames)
        ]
        return torch.stack(parts).sum(dim=0)


@register("repeat_upsample")
class RepeatUpsample(StreamBlock):
    """Each frame ``factor`` times over: ``(batch, channels, n)`` to ``(batch, channels, n * factor)``.

    Args:
        source: the input stream.
        factor: output frames per input frame, 1 to 65536.

    Raises:
        ValueError: for a factor out of range.
    """

    def __init__(self, source: Stream, *, factor: int) -> None:
        super().__init__(source, ratio=bounded("factor", factor, 1, LARGEST_COUNT))
        self.factor = factor

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x.repeat_interleave(self.factor, dim=-1), state


def check_groups(groups: int, channels_in: int, channels: int) -> int:
    """``groups`` if it divides both channel counts.

    Raises:
        ValueError: if not, naming all three numbers.
    """
    bounded("groups", groups, 1, LARGEST_COUNT)
    if channels_in % groups or channels % groups:
        raise ValueError(
            f"groups must divide the input's {channels_in} and the output's {channels} channels, not {groups}: "
            f"choose a divisor of {math.gcd(channels_in, channels)}"
        )
    return groups


def draw_weights(weight: Tensor, bias: Tensor | None) -> None:
    """First values as torch's own layers draw them: uniform, bounded by one over the root of the fan-in."""
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(math.prod(weight.shape[1:]))
        nn.init.uniform_(bias, -bound, bound)
