"""Sound of a device whose rate is another than the engine's: the library's resampler, block by block."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch

from astrape.audio.resampling import resampling
from astrape.blocks.base import Stream
from astrape.errors import AstrapeError, RateError
from astrape.graph.backends.native import quickest
from astrape.runtime.drift import Bridge
from astrape.runtime.rings import Frames

__all__ = ["Crossing", "RateChange", "whole_block"]


def whole_block(rate_in: int, rate_out: int, near: int) -> int:
    """Frames of a block that is whole quanta of the resampler between two rates: about ``near``, and at least one."""
    quantum = Fraction(rate_out, rate_in).denominator
    return quantum * max(1, near // quantum)


class RateChange:
    """Blocks of sound at one rate made into blocks at another by :class:`~astrape.blocks.resample.Resampler`.

    Where blocks are whole quanta of the resampler (:func:`whole_block`), each gives as many frames as it lasts, and the
    delay is half the filter. Blocks of other lengths give a frame more or less, and are later by the wait for quanta.

    Args:
        channels: of the sound.
        rate_in, rate_out: Hz.
        block: frames of a block in.

    Attributes:
        late: frames out by which the sound is later; exact.
        most: frames that a block gives at most.

    Raises:
        RateError: for two rates without a workable ratio.
    """

    def __init__(self, channels: int, rate_in: int, rate_out: int, block: int) -> None:
        try:
            graph = resampling(rate_in, Stream(rate_out, channels))
        except AstrapeError as error:
            raise RateError(f"{rate_in} Hz cannot be resampled to {rate_out} Hz: {error}") from error
        if graph is None:
            raise RateError(f"{rate_in} Hz is the rate already: hint: take the sound as it is")
        uneven = block % graph.quantum > 0
        self._session = graph.stream(chunk=block, constant_latency=uneven, backend=quickest(graph))
        self.late = self._session.latency_frames(graph.main)
        self.most = math.ceil(block * Fraction(rate_out, rate_in))

    def push(self, x: Frames) -> Frames:
        """The next block, ``(channels, frames)``, at the other rate. What is not finite is heard as silence."""
        if not np.isfinite(x).all():
            x = np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)
        # A copy: a device's buffer is no other's, and may be of interleaved frames.
        made = self._session.push(torch.from_numpy(np.array(x, np.float32))[None])
        return np.asarray(made[0].numpy(), np.float32)


class Crossing:
    """Carries sound from one device's callback to another's: through a resampler where rates differ, then a bridge.

    The resampler is on the writing side, so that a :class:`~astrape.runtime.drift.Bridge` sees one nominal rate.

    Args:
        channels: of the sound.
        rate_in, rate_out: nominal rates of both devices, Hz.
        block_in, block_out: frames of the blocks of either, at its own rate.

    Attributes:
        entering: frames of a block that enters, at ``rate_out``.
        late: frames out from a sample's arrival to its being handed on, as if every frame arrived by itself.
        resampled: those of them that the resampler takes.
    """

    def __init__(self, channels: int, rate_in: int, rate_out: int, block_in: int, block_out: int) -> None:
        self._change = None if rate_in == rate_out else RateChange(channels, rate_in, rate_out, block_in)
        self.resampled = 0 if self._change is None else self._change.late
        self.entering = block_in if self._change is None else self._change.most
        self._bridge = Bridge(channels, rate_out, self.entering, block_out)
        self.late = self.resampled + self._bridge.late

    @property
    def ratio(self) -> float:
        """The source's clock to the sink's, as measured: 1.0001 for a source that is fast by 100 in a million."""
        return self._bridge.ratio

    def write(self, x: Frames, now: float) -> None:
        """A block of the source, whose callback came at ``now`` seconds."""
        self._bridge.write(x if self._change is None else self._change.push(x), now)

    def read(self, y: Frames, now: float) -> None:
        """Fill a block of the sink, whose callback came at ``now`` seconds."""
        self._bridge.read(y, now)
