"""Audio to overlapping frames and back."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.ops.history import empty_history, empty_tail, join_history, own_copy
from astrape.blocks.parameters import LARGEST_COUNT, bounded, check_choice
from astrape.blocks.policy import policy
from astrape.blocks.registry import register
from astrape.errors import RateError

__all__ = ["Framing", "OverlapAdd"]


@register("framing")
class Framing(StreamBlock):
    """The newest ``size`` samples at every ``hop``-th: ``(batch, 1, n * hop)`` to ``(batch, size, n)``.

    Frame ``k`` ends with its quantum: it holds the samples ``(k + 1) hop - size`` to ``(k + 1) hop - 1``, oldest
    first, with zeros before time zero. Its centre is ``(size - hop) / 2`` samples before the centre of its quantum,
    which is the latency. Frames of 1024 at a hop of 256 and 16 kHz are 24 ms late.

    Args:
        source: the input stream, of one channel.
        size: samples per frame, which become channels, 1 to 65536.
        hop: samples from frame to frame, 1 to ``size``.

    Raises:
        RateError: for an input of several channels.
        ValueError: for a size out of range, or a hop above ``size``, which would leave samples out.
    """

    latency_by = "centre"

    def __init__(self, source: Stream, *, size: int, hop: int) -> None:
        check_frames(size, hop)
        if source.channels != 1:
            raise RateError(f"framing takes one channel, not {source.channels}: split it first")
        super().__init__(source, quantum=hop, ratio=Fraction(1, hop), channels=size)
        self.size, self.hop = size, hop

    @property
    def latency(self) -> Fraction:
        return Fraction(self.size - self.hop, 2) / self.rate_in

    @property
    def receptive_field(self) -> Fraction:
        return self.size / self.rate_in

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return empty_history(batch_size, 1, self.size - self.hop, device, dtype)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], self.size, 0), state
        joined, state = join_history(state, x)
        return own_copy(policy().windows(joined[:, 0], self.size, self.hop).transpose(1, 2)), state


@register("overlap_add")
class OverlapAdd(StreamBlock):
    """The sum of overlapping frames: ``(batch, size, n)`` to ``(batch, 1, n * hop)``.

    Frame ``k`` begins at output ``k * hop``; the ``size - hop`` samples past the newest frame's hop are kept for the
    frames to come. Half of that is the latency, as half of it is :class:`Framing`'s: with the same sizes, one after
    the other is a delay of ``size - hop`` samples and nothing else, whatever the window, as long as ``normalize`` is
    left on.

    Args:
        source: the input stream; its channels are the samples of a frame, oldest first.
        hop: output samples per frame, 1 to the channel count.
        window: ``none``, or ``hann``: each frame is faded in and out by a periodic Hann window before it is added,
            which hides the seams between frames that were changed apart from each other.
        normalize: divide by the sum of the windows that meet at each sample, a constant of its place in the hop.

    Raises:
        ValueError: for a hop out of range, or a Hann window with frames that do not overlap: its first sample is
            zero, so every ``hop``-th output would be lost.
    """

    latency_by = "centre"

    weight: Tensor
    """The weight of each sample of a frame, ``(size, 1)``."""

    def __init__(self, source: Stream, *, hop: int, window: str = "none", normalize: bool = True) -> None:
        size = source.channels
        check_frames(size, hop)
        check_choice("window", window, ("none", "hann"))
        if window == "hann" and hop == size:
            raise ValueError(f"hop must be below the frame's {size} samples with a hann window, not {hop}")
        super().__init__(source, ratio=hop, channels=1)
        self.size, self.hop, self.window = size, hop, window
        place = np.arange(size)
        weight = np.ones(size) if window == "none" else np.sin(np.pi * place / size) ** 2
        if normalize:
            weight = weight / np.bincount(place % hop, weight)[place % hop]
        buffer = torch.from_numpy(weight[:, None]).to(torch.get_default_dtype())
        self.register_buffer("weight", buffer, persistent=False)

    @property
    def latency(self) -> Fraction:
        return Fraction(self.size - self.hop, 2) / self.rate_out

    @property
    def receptive_field(self) -> Fraction:
        return ((self.size - 1) // self.hop + 1) / self.rate_in

    def oldest_input(self, frame: int) -> int:
        return -((self.size - 1 - frame) // self.hop)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return empty_tail(batch_size, 1, self.size - self.hop, device, dtype)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        frames = x.shape[-1] * self.hop
        tail = self.size - self.hop
        if frames == 0:
            return x.new_zeros(x.shape[0], 1, 0), state
        y = functional.fold(x * self.weight, (1, frames + tail), (1, self.size), stride=(1, self.hop))[:, :, 0]
        if tail == 0:
            return y, state
        y = torch.cat([y[..., :tail] + state, y[..., tail:]], dim=-1)
        return y[..., :frames], own_copy(y[..., frames:])


def check_frames(size: int, hop: int) -> None:
    """Check a frame size and a hop that does not exceed it.

    Raises:
        ValueError: for one that is out of range.
    """
    bounded("size", size, 1, LARGEST_COUNT)
    bounded("hop", hop, 1, size)
