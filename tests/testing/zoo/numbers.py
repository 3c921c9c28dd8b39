"""Blocks whose numbers are wrong: lengths, latency, receptive field; controls, gradients, precision, and long runs."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from astrape.blocks import Signal, State, Stream, StreamBlock
from astrape.blocks.state import map_state
from tests.testing.sound_blocks import Convolution, Delay, Interpolator, LiveGain, Memory, RunningMean, Smooth
from tests.testing.zoo.registry import breaks


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
