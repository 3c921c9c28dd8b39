"""Blocks that do not give what they declare, or keep what they may not: state, reset, purity, snapshots."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from astrape.blocks import Signal, State, Stream, StreamBlock
from tests.testing.sound_blocks import Convolution, Delay, Memory
from tests.testing.zoo.registry import breaks


@breaks("declarations")
class FloatLatency(Memory):
    """Says its latency as a float."""

    @property
    def latency(self) -> Any:
        return 0.001


@breaks("declarations", Stream(44100, 2))
class FractionOfFloat(Delay):
    """Says a latency of seven frames as the fraction that the nearest float is."""

    @property
    def latency(self) -> Fraction:
        return Fraction(self.frames / float(self.rate_in))


@breaks("declarations", Stream(22050, 1))
class FieldOfDigits(Convolution):
    """Says a receptive field by the digits of a float."""

    @property
    def receptive_field(self) -> Fraction | None:
        return Fraction(str(self.kernel / 22050))


@breaks("declarations")
class WrongChannels(StreamBlock):
    """Declares four channels and returns two."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source, channels=4)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x.clone(), state


@breaks("declarations")
class WrongFrames(StreamBlock):
    """Declares half the frames and returns them all."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source, quantum=2, ratio=Fraction(1, 2))

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x.clone(), state


@breaks("declarations")
class LostLastFrame(Convolution):
    """A stride whose state is one frame short: the last window of every chunk is lost."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source, kernel=4, stride=2)

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return super().init_state(batch_size, device, dtype)[..., 1:].clone()


@breaks("declarations")
class NoStep(StreamBlock):
    """Declares look-ahead 0, and can only run on whole sequences."""

    def forward(self, x: Signal, **controls: Any) -> Signal:
        return x.clone()


@breaks("state")
class GrowingState(Memory):
    """Keeps everything it ever heard."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        heard = torch.cat([state, x], dim=-1)
        return heard[..., heard.shape[-1] - x.shape[-1] :].clone(), heard


@breaks("state")
class ViewState(Memory):
    """Hands out the end of a longer tensor, and keeps all of it alive."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        heard = torch.cat([state, x], dim=-1)
        return (heard[..., 1:] + heard[..., :-1]) / 2, heard[..., -1:]


@breaks("state")
class StateIsOutput(Memory):
    """Hands out its state as output: whoever scales the output in place scales the memory too."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        if x.shape[-1] == 0:
            return x, state
        after = (x[..., -1:] + state).clone(memory_format=torch.contiguous_format)
        return after if x.shape[-1] == 1 else torch.cat([x[..., :-1], after], dim=-1), after


@breaks("state")
class StateShrinksWithChunk(Memory):
    """A state as long as the last chunk."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        return x.clone(), x.clone()


@breaks("state")
class StateTurnsDouble(Memory):
    """Sums in float64 from the first step on, and starts in the dtype asked for: compiled runs would break."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=torch.float32)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state.to(x.dtype), controls)
        return y, after.double()


@breaks("state")
class LayersFirst(StreamBlock):
    """A GRU's state as torch has it: layers first, and the batch second."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        self.rnn = nn.GRU(source.channels, source.channels, num_layers=2, batch_first=True)

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(2, batch_size, self.channels_in, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, state = self.rnn(x.mT, state)
        return y.mT, state


@breaks("state")
class NumberInState(Memory):
    """Counts in a Python number, which no snapshot, compiler or device sees."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return {"last": super().init_state(batch_size, device, dtype), "count": 0}

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        y, last = super().step(x, state["last"], controls)
        return y, {"last": last, "count": state["count"] + x.shape[-1]}


@breaks("state")
class DtypeNotAsked(Memory):
    """Starts in float16, whatever is asked for."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=torch.float16)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state.to(x.dtype), controls)
        return y, after.half()


@breaks("reset")
class StaleReset(Memory):
    """Starts a new stream where the last one ended, from a state kept on itself."""

    kept: Tensor | None = None

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        if self.kept is not None and self.kept.shape[0] == batch_size and device != "meta":
            return self.kept.to(device=device, dtype=dtype, copy=True)
        return super().init_state(batch_size, device, dtype)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        self.kept = after.clone()
        return y, after


@breaks("reset")
class UnevenRows(Memory):
    """Starts every row of a batch elsewhere, so that a row cannot be reset on its own."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        rows = torch.arange(batch_size, device=device, dtype=dtype).reshape(-1, 1, 1)
        return rows.expand(-1, self.channels_in, 1).clone(memory_format=torch.contiguous_format)


@breaks("reset")
class AgeOfTheFirstRow(StreamBlock):
    """Fades in by the age of the first row, so that a row that is reset later does not fade in again."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(batch_size, 1, dtype=torch.int64, device=device)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        frames = torch.arange(x.shape[-1], device=x.device)
        gain = torch.clamp((state[0, 0] + frames + 1) / 4, max=1).to(x.dtype)
        return x * gain, torch.clamp(state + x.shape[-1], max=4)


@breaks("purity")
class HiddenState(StreamBlock):
    """Keeps its memory on itself and passes an empty state on."""

    last: Tensor | None = None

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        last = self.last if self.last is not None and len(self.last) == len(x) else torch.zeros_like(x[..., :1])
        if x.shape[-1]:
            self.last = x[..., -1:].detach().clone()
        return torch.cat([last, x], dim=-1)[..., : x.shape[-1]] + x, state


@breaks("purity")
class HiddenCounter(Memory):
    """Counts its own calls; its output does not even show it yet."""

    calls = 0

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        self.calls += 1
        return super().step(x, state, controls)


@breaks("purity")
class CountsCalls(Memory):
    """Fades in over its first hundred calls, counted on itself."""

    calls = 0

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        self.calls += 1
        y, after = super().step(x, state, controls)
        return y * min(1.0, self.calls / 100), after


@breaks("purity")
class MutatesInput(Memory):
    """Scales its input in place."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        return super().step(x.mul_(0.5), state, controls)


@breaks("purity")
class MutatesState(Memory):
    """Writes the new state over the old one, so that no snapshot keeps it."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y, state.copy_(after)


@breaks("purity")
class UpdatesBuffer(Memory):
    """Learns the input's level into a buffer while it runs."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        self.register_buffer("level", torch.ones(1))

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        if x.shape[-1]:
            self.level.lerp_(x.detach().abs().mean().to(self.level.dtype), 0.01)
        return super().step(x, state, controls)


@breaks("purity")
class Noisy(Memory):
    """Adds noise from the global generator, so that no two runs agree."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y + 1e-3 * torch.randn_like(y), after


@breaks("snapshot")
class HiddenOnTensor(Memory):
    """Hangs more memory on the state tensor as a Python attribute, where no copy takes it along."""

    def step(self, x: Tensor, state: Any, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        after.heard = getattr(state, "heard", 0.0) + float(x.shape[-1])
        return y * (1.0 + 0.1 * (after.heard > 4)), after
