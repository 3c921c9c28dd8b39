"""Blocks that hear the future or a neighbour, or sound different when their input is cut differently."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from astrape.blocks import Signal, State, Stream, StreamBlock
from tests.testing.sound_blocks import Convolution, Memory
from tests.testing.zoo.registry import breaks


@breaks("look-ahead")
class CentredConvolution(StreamBlock):
    """A convolution padded on both sides."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        self.conv = nn.Conv1d(source.channels, source.channels, 3, padding=1)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return self.conv(x) if x.shape[-1] else x, state


@breaks("look-ahead")
class OffByOnePad(Convolution):
    """Padded on the left by one too few in the full-sequence pass, and filled up on the right."""

    def forward(self, x: Signal, **controls: Any) -> Signal:
        return self.conv(F.pad(x, (self.kernel - 2, 1)))


@breaks("look-ahead")
class PeeksInLongChunks(Memory):
    """Uses the next frame where the chunk has one, and the chunk is long."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        if x.shape[-1] > 32:
            y = torch.cat([y[..., :-1] + 0.1 * x[..., 1:], y[..., -1:]], dim=-1)
        return y, after


@breaks("look-ahead")
class UtteranceLevel(StreamBlock):
    """Divides by the level of the whole utterance, and calls itself causal."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() if x.shape[-1] else x, state


@breaks("look-ahead")
class BatchNorm(StreamBlock):
    """Batch statistics over time as well: in training mode the future, and the neighbours, are in every output."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        self.norm = nn.BatchNorm1d(source.channels, track_running_stats=True)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return self.norm(x) if x.shape[-1] else x, state


@breaks("look-ahead gradient")
class GradientPeek(Memory):
    """A value that cancels and a gradient that does not: training would steer by the future."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        ahead = torch.cat([x[..., 1:], x[..., :1] * 0], dim=-1)
        return y + 0.1 * (ahead - ahead.detach()), after


@breaks("look-ahead")
class WrongLookahead(StreamBlock):
    """For training only; looks two frames ahead and says one."""

    @property
    def lookahead(self) -> Fraction:
        return Fraction(1) / self.rate_in

    def forward(self, x: Signal, **controls: Any) -> Signal:
        return F.avg_pool1d(x, 5, 1, 2)


@breaks("row isolation")
class BatchMean(StreamBlock):
    """Takes the mean of the batch off every row."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x - x.mean(dim=0, keepdim=True), state


@breaks("row isolation")
class LeakInTraining(StreamBlock):
    """Adds a little of the neighbouring row, in training mode alone."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x + 0.01 * x.roll(1, dims=0) if self.training else x.clone(), state


@breaks("row isolation")
class NoiseByPlace(StreamBlock):
    """Adds a noise of its own to each row, by the row's place in the batch: alone, a stream sounds different."""

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        place = torch.arange(len(x), dtype=x.dtype)[:, None, None]
        return x + 0.1 * torch.sin(1000 * place), state


@breaks("NaN isolation")
class SpreadingNan(StreamBlock):
    """Guards against NaN over the whole batch: one bad row silences all."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return torch.where(x.isfinite().all(), x, torch.zeros_like(x)), state


@breaks("NaN isolation")
class MaskedByProduct(StreamBlock):
    """Picks its own row with a matrix of ones and zeros, and zero times NaN is NaN."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return torch.einsum("ab,bct->act", torch.eye(len(x), dtype=x.dtype, device=x.device), x), state


@breaks("empty step")
class RefusesNothing(Convolution):
    """Fails on a chunk of no frames, which a host with small buffers will send."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        if x.shape[-1] == 0:
            raise RuntimeError("kernel larger than input")
        return super().step(x, state, controls)


@breaks("step equals forward")
class ForgetsBetweenChunks(Memory):
    """Starts every chunk from silence."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, _ = super().step(x, torch.zeros_like(state), controls)
        return y, state


@breaks("step equals forward")
class ShiftedStride(Convolution):
    """A stride of four that carries its remainder one frame late."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source, kernel=6, stride=4)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, kept = super().step(x, state, controls)
        heard = torch.cat([state, x], dim=-1)
        late = heard[..., heard.shape[-1] - kept.shape[-1] - 1 : -1].clone(memory_format=torch.contiguous_format)
        return y, late if x.shape[-1] else kept


@breaks("step equals forward")
class ShortRing(StreamBlock):
    """Sums the last eight frames from a ring of eight: a chunk overwrites frames that its first outputs still need."""

    window = 8

    @property
    def receptive_field(self) -> Fraction | None:
        return Fraction(self.window) / self.rate_in

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(batch_size, self.channels_in, self.window, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        frames = x.shape[-1]
        ring = torch.cat([state, x], dim=-1)[..., -self.window :].clone(memory_format=torch.contiguous_format)
        if frames > self.window:
            return F.avg_pool1d(torch.cat([state, x], dim=-1)[..., 1:], self.window, 1), ring
        ends = torch.arange(frames, 0, -1, device=x.device)
        heard = torch.arange(self.window, device=x.device)[:, None] <= self.window - ends[None, :]
        return ring @ heard.to(x.dtype) / self.window, ring


@breaks("step equals forward", Stream(25, 1))
class LongRing(StreamBlock):
    """An echo of 64 numbers, each heard as 40 ms, whose ring is right in any chunk until one goes round its end.

    Its state is far wider than its input and its output far longer, which must not shorten the way to that end.
    """

    ring, width = 64, 200

    def __init__(self, source: Stream) -> None:
        super().__init__(source, ratio=1764)

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return {
            "ring": torch.zeros(batch_size, self.width, self.ring, device=device, dtype=dtype),
            "position": torch.zeros(batch_size, 1, dtype=torch.int64, device=device),
        }

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        ring, begin = state["ring"].clone(), int(state["position"][0]) % self.ring
        heard = []
        for frame in range(x.shape[-1]):
            at = min(begin + frame, self.ring - 1)
            now = x[..., frame : frame + 1] + 0.5 * ring[:, :1, at : at + 1]
            ring = torch.cat([ring[..., :at], now.expand(-1, self.width, -1), ring[..., at + 1 :]], dim=-1)
            heard.append(now)
        y = torch.cat(heard, dim=-1) if heard else x
        return y.repeat_interleave(1764, dim=-1), {"ring": ring, "position": state["position"] + x.shape[-1]}


@breaks("step equals forward")
class OtherForward(Memory):
    """A faster full-sequence pass that pads with the first frame where the state has zeros."""

    def forward(self, x: Signal, **controls: Any) -> Signal:
        heard = F.pad(x, (1, 0), mode="replicate") if x.shape[-1] else F.pad(x, (1, 0))
        return (heard[..., 1:] + heard[..., :-1]) / 2


@breaks("step equals forward")
class CountsChunks(Memory):
    """Fades in by the number of calls, in its state: another chunk size fades differently."""

    @property
    def receptive_field(self) -> None:
        return None

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        last = super().init_state(batch_size, device, dtype)
        return {"last": last, "calls": torch.zeros(batch_size, 1, 1, device=device, dtype=torch.int64)}

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        y, last = super().step(x, state["last"], controls)
        calls = state["calls"] + int(x.shape[-1] > 0)
        return y * (calls / 10).clamp(max=1), {"last": last, "calls": calls}
