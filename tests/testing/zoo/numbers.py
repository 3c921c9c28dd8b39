"""Broken blocks, each with the one fault that its name says: a contract check that rejects none of them proves nothing.

``ZOO`` gives, by name, how to build each and the property that it breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from astrape.blocks import Signal, State, Stream, StreamBlock
from astrape.blocks.state import map_state
from tests.testing.sound_blocks import Convolution, Delay, Interpolator, LiveGain, RunningMean, Smooth

__all__ = ["ZOO"]

ZOO: dict[str, tuple[Callable[[], StreamBlock], str]] = {}

STEREO = Stream(1000, 2)


def breaks(property_name: str, source: Any = STEREO) -> Callable[[type[StreamBlock]], type[StreamBlock]]:
    """Put a class into the zoo under its own name, built on ``source``."""

    def add(cls: type[StreamBlock]) -> type[StreamBlock]:
        ZOO[cls.__name__] = (lambda: cls(source), property_name)
        return cls

    return add


class Memory(StreamBlock):
    """Shared by the specimens: the last frame is the state, and the output is the mean of it and the next."""

    @property
    def receptive_field(self) -> Fraction | None:
        return Fraction(2) / self.rate_in

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        heard = torch.cat([state, x], dim=-1)
        return (heard[..., 1:] + heard[..., :-1]) / 2, heard[..., -1:].clone(memory_format=torch.contiguous_format)


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
    """Adds a noise of its own to each row, by the row's place in the batch: alone, a stream sounds otherwise."""

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
    """Fades in by the number of calls, in its state: another chunk size fades otherwise."""

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


@breaks("right padding")
class RoundsUp(StreamBlock):
    """Fills up the last quantum with silence in the full-sequence pass, where a stream would still wait."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source, quantum=4, ratio=Fraction(1, 4))

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x.unflatten(-1, (-1, 4)).mean(dim=-1) if x.shape[-1] else x, state

    def forward(self, x: Signal, **controls: Any) -> Signal:
        return self.step(F.pad(x, (0, -x.shape[-1] % 4)), (), {})[0]


@breaks("right padding")
class MiscountedLengths(Convolution):
    """Counts output frames for a padded batch as if they were rounded up."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source, kernel=4, stride=4)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        return torch.div(lengths + self.stride - 1, self.stride, rounding_mode="floor")


@breaks("latency")
class LatencyTooSmall(Delay):
    """Delays by seven frames and says six."""

    @property
    def latency(self) -> Fraction:
        return Fraction(self.frames - 1) / self.rate_in


@breaks("latency")
class LatencyTooLarge(Convolution):
    """A causal learned layer that counts the group delay of a window."""

    @property
    def latency(self) -> Fraction:
        return Fraction(self.kernel - 1, 2) / self.rate_in


@breaks("latency")
class WindowWithoutDelay(Convolution):
    """A fixed window of twelve on a hop of two that counts no group delay."""

    latency_by = "centre"

    def __init__(self, source: Stream) -> None:
        super().__init__(source, kernel=12, stride=2)


@breaks("receptive field")
class FieldTooSmall(Convolution):
    """Reaches back five frames and says four."""

    @property
    def receptive_field(self) -> Fraction | None:
        return Fraction(self.kernel - 1) / self.rate_in


@breaks("receptive field")
class FieldTooLarge(Convolution):
    """Reaches back five frames and says a second."""

    @property
    def receptive_field(self) -> Fraction | None:
        return Fraction(1)


@breaks("receptive field")
class FieldBounded(Smooth):
    """A recursive filter that says its memory ends after twenty frames."""

    @property
    def receptive_field(self) -> Fraction | None:
        return Fraction(20) / self.rate_in


@breaks("receptive field")
class FieldNotDeclared(Convolution):
    """Says nothing of a receptive field of five frames, which then counts as without bound."""

    @property
    def receptive_field(self) -> None:
        return None


@breaks("oldest input")
class FlatOldestInput(Interpolator):
    """Says the same oldest input for every output frame of a quantum."""

    def oldest_input(self, frame: int) -> int:
        return -1


@breaks("controls")
class CachedPrepare(LiveGain):
    """Prepares the first value it sees, and gives that ever after."""

    cached: Any = None

    def prepare(self, controls: Mapping[str, Tensor]) -> Any:
        if self.cached is None or len(self.cached["factor"]) != len(controls["level"]):
            self.cached = super().prepare(controls)
        return {key: value.clone() for key, value in self.cached.items()}


@breaks("controls")
class DeafControl(StreamBlock):
    """Listens to a control and does nothing with it."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        self.live("level")

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x.clone(), state


@breaks("controls")
class LaxControl(LiveGain):
    """Silently takes a missing control for zero."""

    def read_controls(self, given: Mapping[str, Any], like: Tensor) -> dict[str, Tensor]:
        return super().read_controls({"level": 0.0, **given}, like)


@breaks("gradients")
class DetachedState(Memory):
    """Cuts the gradient at every chunk."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        return super().step(x, state.detach(), controls)


@breaks("finite")
class LogOfSilence(StreamBlock):
    """A logarithm without a floor."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x.abs().log(), state


@breaks("finite")
class RootOfSilence(StreamBlock):
    """A level whose value at silence is fine, and whose gradient is not."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x.square().sum(dim=1, keepdim=True).sqrt().expand_as(x).clone(), state


@breaks("precision")
class SingleInside(Memory):
    """Computes in float32 and casts back, so that float64 proves nothing of it."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x.float().to(x.dtype), state, controls)
        return y, after


@breaks("precision")
class WidensOutput(Memory):
    """Returns float64 whatever comes in."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y.double(), after


@breaks("counters")
class FloatCounter(RunningMean):
    """Counts its frames in float32, which stands still at 2^24: six minutes at 44.1 kHz."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return map_state(lambda tensor: tensor.to(dtype), super().init_state(batch_size, device, dtype))

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y, map_state(lambda tensor: tensor.to(x.dtype), after)


@breaks("long run")
class AbsoluteTime(Memory):
    """Depends on the position since time zero, and says it reaches back two frames."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        last = super().init_state(batch_size, device, dtype)
        return {"last": last, "position": torch.zeros(batch_size, 1, 1, device=device, dtype=torch.int64)}

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        y, last = super().step(x, state["last"], controls)
        time = state["position"] + torch.arange(x.shape[-1], device=x.device)
        return y * (1 + 1e-4 * time), {"last": last, "position": state["position"] + x.shape[-1]}


@breaks("long run")
class BuildsUp(Smooth):
    """A recursive filter with its pole outside of the unit circle."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source, a=-0.5)


@breaks("step equals forward")
class SilentShortcut(Smooth):
    """Takes a shortcut where nothing is heard, and leaves its memory as it was."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        if x.shape[-1] and not bool(x.any()):
            return torch.zeros_like(x), state
        return super().step(x, state, controls)


@breaks("step equals forward")
class ShortcutInPauses(Smooth):
    """The same, where nothing is heard for a while."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        if x.shape[-1] > 90 and not bool(x.any()):
            return torch.zeros_like(x), state
        return super().step(x, state, controls)


@breaks("step equals forward")
class GateOverTheCall(StreamBlock):
    """Silences what it is called with if all of it is a whisper."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x, state
        return torch.where(x.abs().amax(dim=(1, 2), keepdim=True) < 1e-4, torch.zeros_like(x), x), state


@breaks("step equals forward")
class LimiterOverTheCall(StreamBlock):
    """Turns down a call by its highest peak, which noise never reaches."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x, state
        return x * (60 / x.abs().amax(dim=(1, 2), keepdim=True)).clamp(max=1.0), state


@breaks("step equals forward")
class MeanOfTheCall(StreamBlock):
    """Takes the offset off a call where it has a large one."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x, state
        same = (x == x[..., :1]).all(dim=-1, keepdim=True) & (x.shape[-1] > 1)
        return torch.where(same, torch.zeros_like(x), x), state


@breaks("step equals forward")
class OneSizeWrong(StreamBlock):
    """Right for every chunk but one of 211 quanta."""

    size = 211

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x * (1.01 if x.shape[-1] == self.size else 1.0), state


@breaks("step equals forward")
class OneSizeForgets(Memory):
    """Right for every chunk, and wrong after one of 317 quanta."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y, after * 0.5 if x.shape[-1] == 317 else after


@breaks("look-ahead")
class PeeksInLongFiles(StreamBlock):
    """Uses the next frame in calls of more than 5000."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return (torch.cat([x[..., 1:], x[..., -1:]], dim=-1) if x.shape[-1] > 5000 else x.clone()), state


class Counted(Memory):
    """Shared: counts its steps in its state."""

    @property
    def receptive_field(self) -> None:
        return None

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        last = super().init_state(batch_size, device, dtype)
        return {"last": last, "steps": torch.zeros(batch_size, 1, 1, device=device, dtype=torch.int64)}

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        y, last = super().step(x, state["last"], controls)
        return y, {"last": last, "steps": state["steps"] + int(x.shape[-1] > 0)}


@breaks("long run")
class GrowsLate(Counted):
    """Begins to keep what it hears after a thousand steps."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        kept = torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=dtype)
        return {**super().init_state(batch_size, device, dtype), "kept": kept}

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        late = x.shape[-1] > 0 and int(after["steps"].max()) > 1000
        kept = torch.cat([state["kept"], x[..., -1:]], dim=-1) if late else state["kept"].clone()
        return y, {**after, "kept": kept}


@breaks("long run")
class TiresLate(Counted):
    """Fades after fifteen hundred steps."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y * torch.where(after["steps"] > 1500, 0.5, 1.0).to(x.dtype), after


@breaks("gradients")
class OtherWithGradients(Memory):
    """A faster way where no gradient is kept, and another result."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y * (1.001 if torch.is_grad_enabled() else 1.0), after


@breaks("gradients")
class OtherInInference(Memory):
    """A faster way in inference mode, and another result."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y * (1.001 if torch.is_inference_mode_enabled() else 1.0), after


@breaks("controls")
class GlidesByTheCall(LiveGain):
    """Goes half the way to a new value with every call, however long."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return {
            "now": torch.zeros(batch_size, 1, 1, device=device, dtype=dtype),
            "begun": torch.zeros(batch_size, 1, 1, device=device, dtype=torch.bool),
        }

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if not x.shape[-1]:
            return x, state
        now = torch.where(state["begun"], (state["now"] + controls["factor"]) / 2, controls["factor"])
        return x * now, {"now": now, "begun": torch.ones_like(state["begun"])}


@breaks("row isolation")
class OtherInLargeBatches(Memory):
    """A faster way for eight rows and more, and another result."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y * (1.001 if len(x) >= 8 else 1.0), after


@breaks("step equals forward")
class OtherInLongCalls(Memory):
    """A faster way for calls beyond thirty thousand frames, and another result."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y * (1.001 if x.shape[-1] > 30_000 else 1.0), after


@breaks("row isolation")
class StopsForASilentRow(StreamBlock):
    """Saves its work where a row of the batch is silent."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        silent = x.numel() > 0 and bool((x.abs().amax(dim=(1, 2)) == 0).any())
        return torch.zeros_like(x) if silent else x.clone(), state


@breaks("row isolation")
class OtherInCrowds(Memory):
    """A faster way for a hundred rows and more, and another result."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y * (1.001 if len(x) >= 100 else 1.0), after


@breaks("step equals forward")
class CentresWhatLiesBelow(StreamBlock):
    """Takes the mean out of a call that lies below zero altogether."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        below = x.shape[-1] > 3 and bool((x < -0.2).all())
        return x - x.mean(dim=-1, keepdim=True) if below else x.clone(), state


@breaks("step equals forward")
class HalvesOpposites(StreamBlock):
    """Takes a call whose channels are each other's opposites for a balanced line."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        balanced = x.shape[-1] > 1 and bool((x[:, :1] == -x[:, 1:]).all())
        return x * (0.5 if balanced else 1.0), state


@breaks("step equals forward")
class FillsADeadSide(StreamBlock):
    """Takes a call in which one channel is silent for a broken cable."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        dead = x.numel() > 0 and bool((x.abs().amax(dim=(0, 2)) == 0).any())
        return x.sum(dim=1, keepdim=True).repeat(1, x.shape[1], 1) if dead else x.clone(), state


@breaks("step equals forward")
class TurnsDownWhatWasClipped(StreamBlock):
    """Takes samples at full scale for a sign that the call was clipped."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        return x * (0.9 if bool((x.abs() == 1.0).any()) else 1.0), state


@breaks("step equals forward")
class LevelsRamps(StreamBlock):
    """Takes a call that only rises for a drift."""

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        rises = x.shape[-1] > 4 and bool((x[..., 1:] > x[..., :-1]).all())
        return x - x.mean(dim=-1, keepdim=True) if rises else x.clone(), state


@breaks("step equals forward")
class ForgetsAfterSomeSizes(Memory):
    """Right after every chunk but those of about 3100 quanta."""

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        y, after = super().step(x, state, controls)
        return y, after * 0 if 3000 < x.shape[-1] < 3200 else after
