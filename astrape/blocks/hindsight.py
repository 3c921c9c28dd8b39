"""Time to think: frames that speak of the past, with the newest input as context."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from torch import Tensor

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.parameters import bounded
from astrape.blocks.registry import register

__all__ = ["Hindsight"]

LONGEST = 1 << 16


@register("hindsight")
class Hindsight(StreamBlock):
    """Passes frames on, and declares that each stands for the signal ``frames`` frames earlier.

    ``(batch, channels, n)`` to the same. Before it stands a network that is *trained* to say, at each frame, what was
    spoken some frames ago: it then knows what came after, as far as a strictly causal network can. That context is paid
    for like any other, as latency, and this block is where it is declared: the compiler delays the paths that meet this
    one, and the trainers pair its frames with what they stand for::

        content: {use: hindsight, from: encoder, frames: 2}      # at 100 Hz: 20 ms to see how a sound goes on

    No measurement of an untrained graph can tell what its frames stand for, so the number is taken as declared.

    Args:
        source: frames of a learned layer.
        frames: how far back they look, 0 to 65536.

    Raises:
        ValueError: for a number out of range.
    """

    latency_by = "declared"

    def __init__(self, source: Stream, *, frames: int) -> None:
        super().__init__(source)
        self.frames = bounded("frames", frames, 0, LONGEST)

    @property
    def latency(self) -> Fraction:
        return self.frames / self.rate_in

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x, state
