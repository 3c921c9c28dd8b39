"""Small blocks that keep the contract: the good half of the tests, and examples of how blocks are written."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from astrape.blocks import Signal, State, Stream, StreamBlock


class Smooth(StreamBlock):
    """y[n] = y[n-1] + a (x[n] - y[n-1]): a one-pole average with an unbounded memory."""

    def __init__(self, source: Stream, *, a: float = 0.1) -> None:
        super().__init__(source)
        self.a = a

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        frames = []
        for frame in x.split(1, dim=-1) if x.shape[-1] else ():
            state = state + self.a * (frame - state)
            frames.append(state)
        return torch.cat(frames, dim=-1) if frames else x, state


class Convolution(StreamBlock):
    """A left-padded convolution; with a stride, a decimator whose windows end with their quanta."""

    def __init__(self, source: Stream, *, kernel: int = 5, stride: int = 1, channels: int = 3) -> None:
        super().__init__(source, quantum=stride, ratio=Fraction(1, stride), channels=channels)
        self.kernel, self.stride = kernel, stride
        self.conv = nn.Conv1d(source.channels, channels, kernel, stride)

    @property
    def receptive_field(self) -> Fraction | None:
        return Fraction(max(self.kernel, self.stride)) / self.rate_in

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(batch_size, self.channels_in, self.kernel - self.stride, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        heard = torch.cat([state, x], dim=-1)
        kept = heard[..., heard.shape[-1] - state.shape[-1] :].clone(memory_format=torch.contiguous_format)
        if not x.shape[-1]:
            return x.new_zeros(len(x), self.channels_out, 0), kept
        return self.conv(heard), kept


class Upsampler(StreamBlock):
    """A transposed convolution of twice its stride: the tail that the next frame completes is state."""

    def __init__(self, source: Stream, *, stride: int = 4, channels: int = 2) -> None:
        super().__init__(source, ratio=stride, channels=channels)
        self.stride = stride
        self.weight = nn.Parameter(torch.randn(source.channels, channels, 2 * stride) * 0.3)

    @property
    def receptive_field(self) -> Fraction | None:
        return Fraction(2) / self.rate_in

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return {"tail": torch.zeros(batch_size, self.channels_out, self.stride, device=device, dtype=dtype)}

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        tail = state["tail"]
        if not x.shape[-1]:
            return x.new_zeros(len(x), self.channels_out, 0), state
        y = F.conv_transpose1d(x, self.weight, stride=self.stride)
        y = torch.cat([y[..., : self.stride] + tail, y[..., self.stride :]], dim=-1)
        return y[..., : -self.stride], {"tail": y[..., -self.stride :].clone(memory_format=torch.contiguous_format)}


class Delay(StreamBlock):
    """The input, some frames later."""

    def __init__(self, source: Stream, *, frames: int = 7) -> None:
        super().__init__(source)
        self.frames = frames

    @property
    def latency(self) -> Fraction:
        return Fraction(self.frames) / self.rate_in

    @property
    def receptive_field(self) -> Fraction | None:
        return Fraction(self.frames + 1) / self.rate_in

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(batch_size, self.channels_in, self.frames, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        heard = torch.cat([state, x], dim=-1)
        return heard[..., : x.shape[-1]].clone(), heard[..., x.shape[-1] :].clone(memory_format=torch.contiguous_format)


class Recurrent(StreamBlock):
    """torch's own GRU, whose state has the layers first and therefore moves."""

    def __init__(self, source: Stream, *, channels: int = 3) -> None:
        super().__init__(source, channels=channels)
        self.rnn = nn.GRU(source.channels, channels, num_layers=2, batch_first=True)

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(batch_size, 2, self.channels_out, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x.new_zeros(len(x), self.channels_out, 0), state
        y, state = self.rnn(x.mT, state.transpose(0, 1).contiguous())
        return y.mT, state.transpose(0, 1).clone(memory_format=torch.contiguous_format)


class TupleRecurrent(StreamBlock):
    """torch's LSTM, whose state is a pair."""

    def __init__(self, source: Stream, *, channels: int = 3) -> None:
        super().__init__(source, channels=channels)
        self.rnn = nn.LSTM(source.channels, channels, batch_first=True)

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return tuple(torch.zeros(batch_size, 1, self.channels_out, device=device, dtype=dtype) for _ in range(2))

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x.new_zeros(len(x), self.channels_out, 0), state
        y, after = self.rnn(x.mT, tuple(part.transpose(0, 1).contiguous() for part in state))
        return y.mT, tuple(part.transpose(0, 1).clone(memory_format=torch.contiguous_format) for part in after)


class Bend(StreamBlock):
    """Pointwise, without state."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return torch.tanh(x), state


class Scripted(StreamBlock):
    """A layer that TorchScript has compiled."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        self.layer = torch.jit.script(nn.Linear(source.channels, source.channels))

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return self.layer(x.mT).mT.clone(memory_format=torch.contiguous_format), state


class Sum(StreamBlock):
    """Two inputs of one rate, added."""

    variadic = True

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        first, *others = (x[port] for port in self.inputs)
        return sum(others, first), state


class Halves(StreamBlock):
    """Two outputs: the first channel and the rest."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source, outputs={"first": 1, "rest": source.channels - 1})

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Signal, State]:
        return {"first": x[:, :1].clone(), "rest": x[:, 1:].clone()}, state


class LiveGain(StreamBlock):
    """A gain in dB that a control sets; what a step needs of it is computed once a change."""

    def __init__(self, source: Stream, *, decibels: float | str = "level") -> None:
        super().__init__(source)
        self.decibels = self.live(decibels)

    def prepare(self, controls: Mapping[str, Tensor]) -> Any:
        value = self.decibels
        return {"factor": 10 ** (controls[value].unsqueeze(-1) / 20) if isinstance(value, str) else 10 ** (value / 20)}

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x * controls["factor"], state


class Gate(StreamBlock):
    """Closed below a threshold: no gradient at all while it is."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return torch.where(x.abs() > 0.5, x, torch.zeros_like(x)), state


class Memory(StreamBlock):
    """The mean of a frame and the one before, which is the state."""

    @property
    def receptive_field(self) -> Fraction | None:
        return Fraction(2) / self.rate_in

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        heard = torch.cat([state, x], dim=-1)
        return (heard[..., 1:] + heard[..., :-1]) / 2, heard[..., -1:].clone(memory_format=torch.contiguous_format)


class Rounding(Memory):
    """A quantizer without any gradient, on the difference to the frame before."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        heard = torch.cat([state, x], dim=-1)
        return torch.round(4 * heard.diff(dim=-1)), heard[..., -1:].clone(memory_format=torch.contiguous_format)


class RunningMean(StreamBlock):
    """The mean of everything so far: a count in int64 and a sum in float64, vectorised over the chunk."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return {
            "count": torch.zeros(batch_size, 1, 1, device=device, dtype=torch.int64),
            "sum": torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=torch.float64),
        }

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        frames = x.shape[-1]
        if not frames:
            return x, state
        counts = state["count"] + torch.arange(1, frames + 1, device=x.device)
        sums = state["sum"] + x.double().cumsum(dim=-1)
        last = slice(frames - 1, None)
        return (sums / counts).to(x.dtype), {
            "count": counts[..., last].clone(memory_format=torch.contiguous_format),
            "sum": sums[..., last].clone(memory_format=torch.contiguous_format),
        }


class Interpolator(StreamBlock):
    """Two outputs a frame, the first halfway to it: outputs of one quantum reach back differently."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source, quantum=2, ratio=2)

    @property
    def receptive_field(self) -> Fraction | None:
        return Fraction(3) / self.rate_in

    def oldest_input(self, frame: int) -> int:
        return frame // 2 - (frame % 2 == 0)

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        heard = torch.cat([state, x], dim=-1)
        pairs = torch.stack([(heard[..., 1:] + heard[..., :-1]) / 2, x], dim=-1)
        return pairs.flatten(-2), heard[..., -1:].clone(memory_format=torch.contiguous_format)


class CentredAverage(StreamBlock):
    """Training only: the mean of a frame, the two before it and the two after."""

    @property
    def lookahead(self) -> Fraction:
        return Fraction(2) / self.rate_in

    def forward(self, x: Tensor, **controls: Tensor | float) -> Tensor:
        return F.avg_pool1d(x, 5, 1, 2, count_include_pad=False)


class UtteranceNorm(StreamBlock):
    """Training only: divides by the level of the whole utterance."""

    @property
    def lookahead(self) -> None:
        return None

    def forward(self, x: Tensor, **controls: Tensor | float) -> Tensor:
        return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
