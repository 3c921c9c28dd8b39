"""Blocks that move signals and shape nothing: delay, gain, add, multiply, mix, concat, split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.ops.history import empty_history, join_history
from astrape.blocks.parameters import LARGEST_COUNT, bounded, check_real, exact_number
from astrape.blocks.registry import register
from astrape.errors import RateError

__all__ = ["Add", "Concat", "Delay", "Gain", "Mix", "Multiply", "Split"]

LONGEST_DELAY = 1 << 24
"""Frames; over six minutes at 44.1 kHz."""


@register("delay")
class Delay(StreamBlock):
    """``y[n] = x[n - frames]``, with zeros before time zero.

    ``(batch, channels, n)`` to the same shape. A delay that is there to line paths up makes the signal late, and
    counts as latency; one that is an effect (an echo, a feedback path) does not::

        echo: {use: delay, ms: 250, compensate: false}

    Args:
        source: the input stream.
        frames: length in frames, 0 to 2^24. Either this or ``ms``.
        ms: length in milliseconds, exact: a whole number, a fraction such as ``"20/441"``, or a decimal, which counts
            as it is written (0.1 is a tenth).
        compensate: whether the delay counts as algorithmic latency, which the compiler then makes up for on the
            paths that meet it. ``False`` declares a latency of 0, which no measurement can confirm, so
            ``latency_by`` is then ``"declared"``.
        rate: the rate the input must have, Hz; states what a feedback loop runs at before it is closed.
        channels: the channel count the input must have, for the same reason.

    Raises:
        ValueError: for a length out of range, none or two of them, or one that is not a whole number of frames.
        RateError: for an input that is not as ``rate`` and ``channels`` say.

    >>> Delay(Stream(16000, 1), ms="5/2").frames
    40
    """

    def __init__(
        self,
        source: Stream,
        *,
        frames: int | None = None,
        ms: int | float | Fraction | str | None = None,
        compensate: bool = True,
        rate: Fraction | int | str | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__(source)
        if (frames is None) == (ms is None):
            raise ValueError("a delay needs either frames or ms: give one of them")
        asserted = Stream(source.rate if rate is None else rate, source.channels if channels is None else channels)
        if asserted != source:
            raise RateError(f"this delay is meant for {asserted}, and its input is {source}: change one of the two")
        if ms is not None:
            frames = whole_frames(ms, source.rate)
        self.frames = bounded("frames", frames, 0, LONGEST_DELAY)
        self.compensate = bool(compensate)
        self.latency_by = "centre" if self.compensate else "declared"

    @property
    def latency(self) -> Fraction:
        return self.frames / self.rate_in if self.compensate else Fraction(0)

    @property
    def receptive_field(self) -> Fraction:
        return (self.frames + 1) / self.rate_in

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return empty_history(batch_size, self.channels_in, self.frames, device, dtype)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        joined, state = join_history(state, x)
        return joined[..., : x.shape[-1]], state


def whole_frames(ms: int | float | Fraction | str, rate: Fraction) -> int:
    """Frames in ``ms`` milliseconds at ``rate`` Hz, if they are a whole number.

    Raises:
        ValueError: if not, naming the nearest two lengths that are.
    """
    exact = Fraction(repr(check_real("ms", ms, 0, 1e9))) if isinstance(ms, float) else exact_number("ms", ms)
    frames = exact * rate / 1000
    if frames.denominator != 1:
        below, above = math.floor(frames), math.ceil(frames)
        raise ValueError(
            f"ms must be a whole number of frames, and {exact} ms is {float(frames):.6g} frames at {rate} Hz: "
            f"choose frames {below} (ms '{1000 * below / rate}') or {above} (ms '{1000 * above / rate}')"
        )
    return int(frames)


class Glide:
    """A live value that moves to what it is set to as a one-pole filter does, so that a change makes no click.

    ``g[n] = g[n-1] + (1 - p)(target - g[n-1])`` with ``p = exp(-1 / (seconds * rate))``, begun at the first target.
    Within a step the target stands still, so the recursion has the closed form
    ``g[n] = target + (g[-1] - target) p^(n+1)``: it depends on the stream position of each change and on nothing else.

    Args:
        smooth_ms: time constant in milliseconds; 0 jumps.
        rate: frames per second.
    """

    def __init__(self, smooth_ms: float, rate: Fraction) -> None:
        seconds = check_real("smooth_ms", smooth_ms, 0, 60000) / 1000
        self.log_pole = -math.inf if seconds == 0 else -1 / (seconds * float(rate))

    def init_state(self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None) -> State:
        return {
            "value": torch.zeros(batch_size, 1, 1, device=device, dtype=dtype),
            "started": torch.zeros(batch_size, 1, 1, device=device, dtype=torch.int64),
        }

    def step(self, target: Tensor, frames: int, state: State) -> tuple[Tensor, State]:
        """The value at each of ``frames``, one or more: ``(batch, 1, frames)`` for a ``target`` of ``(batch, 1)``."""
        aim = target.unsqueeze(-1)
        start = torch.where(state["started"] > 0, state["value"], aim)
        counted = torch.arange(1, frames + 1, device=aim.device, dtype=aim.dtype)
        value = aim + (start - aim) * torch.exp(self.log_pole * counted)
        return value, {"value": value[..., -1:].clone(), "started": torch.ones_like(state["started"])}


@register("gain")
class Gain(StreamBlock):
    """``y = gain * x``, with a gain that may be live.

    ``(batch, channels, n)`` to the same shape. A live gain begins at the first value it is given (no fade from
    silence) and then follows changes with a time constant of ``smooth_ms``: after a change it has covered 63 % of the
    way in 5 ms, 99.3 % in 25 ms.

    Args:
        source: the input stream.
        gain: linear factor, or the name of a control of one channel that sets it.
        smooth_ms: time constant for changes of a live gain, milliseconds, 0 to 60000; 0 jumps. 5 ms by default: a
            step spread over that has no audible click and still feels immediate under a hand.

    Raises:
        ValueError: for a gain that is not a finite number, or a time out of range.
    """

    def __init__(self, source: Stream, *, gain: float | str, smooth_ms: float = 5.0) -> None:
        super().__init__(source)
        self.weights = _Weights(self, [gain], smooth_ms)

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return self.weights.init_state(batch_size, device, dtype)

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[Tensor, State]:
        if x.shape[-1] == 0:
            return x, state
        (weight,), state = self.weights.step(controls, x.shape[-1], state)
        return weight * x, state


class _Weights:
    """Linear weights of which some are fixed and some live, each live control with one glide."""

    def __init__(self, block: StreamBlock, weights: Sequence[float | str], smooth_ms: float) -> None:
        for weight in weights:
            if not isinstance(weight, str):
                check_real("gain", weight, -1e9, 1e9)
        self.weights = [block.live(weight) for weight in weights]
        self.names = sorted({weight for weight in self.weights if isinstance(weight, str)})
        self.glide = Glide(smooth_ms, block.rate_in)

    def init_state(self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None) -> State:
        return {name: self.glide.init_state(batch_size, device, dtype) for name in self.names}

    def step(self, controls: Mapping[str, Tensor], frames: int, state: State) -> tuple[list[Any], State]:
        values, following = {}, {}
        for name in self.names:
            values[name], following[name] = self.glide.step(controls[name], frames, state[name])
        return [values[weight] if isinstance(weight, str) else weight for weight in self.weights], following


class _Joining(StreamBlock):
    """Several inputs, one output, each output frame made of the input frames at its own time."""

    variadic = True

    @property
    def receptive_field(self) -> Fraction:
        return 1 / self.rate_in


def _check_same_channels(name: str, sources: Mapping[str, Stream]) -> None:
    if len({stream.channels for stream in sources.values()}) > 1:
        listed = ", ".join(f"'{port}' {stream.channels}" for port, stream in sources.items())
        raise RateError(f"{name} needs inputs of the same channel count, not {listed}: bring them to one with linear")


@register("add")
class Add(_Joining):
    """The sum of all inputs, ``(batch, channels, n)`` each, summed in the order they are listed.

    Args:
        sources: input streams by port, all of one rate and channel count.

    Raises:
        RateError: for inputs that differ in rate or channels.
    """

    def __init__(self, sources: Mapping[str, Stream]) -> None:
        super().__init__(sources)
        _check_same_channels("add", self.inputs)

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        first, *others = (x[port] for port in self.inputs)
        for other in others:
            first = first + other
        return first, state


@register("multiply")
class Multiply(_Joining):
    """The product of all inputs, value by value, in the order they are listed.

    ``(batch, channels, n)`` each, to the same shape. An input of one channel is spread over all of them, as the gain of
    an envelope over a stereo signal is. A mask of ``bins`` on the ``2 * bins`` channels of a spectrum is the work of
    ``spectral_product``.

    Args:
        sources: input streams by port, all of one rate, each of one channel or of as many as the widest.

    Raises:
        RateError: for inputs that differ in rate, or in channels where neither has one.
    """

    def __init__(self, sources: Mapping[str, Stream]) -> None:
        channels = max((stream.channels for stream in sources.values()), default=1)
        super().__init__(sources, channels=channels)
        _check_same_channels("multiply", {name: s for name, s in self.inputs.items() if s.channels > 1} or self.inputs)

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        first, *others = (x[port] for port in self.inputs)
        for other in others:
            first = first * other
        return first, state


@register("mix")
class Mix(_Joining):
    """The weighted sum of all inputs, with weights that may be live.

    Either a weight for each input, or one ``wet`` share for two inputs, the first dry and the second wet:
    ``y = (1 - wet) dry + wet processed``. At 0 only the dry one is heard, at 1 only the wet one::

        out: {use: mix, from: [mic, converted], wet: amount}

    Args:
        sources: input streams by port, all of one rate and channel count.
        weights: a linear weight for each input in order, each a number or a control's name.
        wet: share of the second of two inputs, a number or a control's name. Either this or ``weights``.
        smooth_ms: time constant for changes of live weights, as in :class:`Gain`.

    Raises:
        ValueError: for both or neither of ``weights`` and ``wet``, or a count that does not match the inputs.
        RateError: for inputs that differ in rate or channels.
    """

    def __init__(
        self,
        sources: Mapping[str, Stream],
        *,
        weights: Sequence[float | str] | None = None,
        wet: float | str | None = None,
        smooth_ms: float = 5.0,
    ) -> None:
        super().__init__(sources)
        _check_same_channels("mix", self.inputs)
        if (weights is None) == (wet is None):
            raise ValueError("mix needs either weights or wet: give one of them")
        if wet is not None and len(self.inputs) != 2:
            raise ValueError(f"wet takes two inputs, a dry and a wet one, not {len(self.inputs)}: use weights")
        if weights is not None and (isinstance(weights, str) or len(weights) != len(self.inputs)):
            raise ValueError(f"weights must be a list of {len(self.inputs)}, one for each input, not {weights!r}")
        self.crossfade = wet is not None
        self.weights = _Weights(self, [wet] if wet is not None else list(weights or ()), smooth_ms)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return self.weights.init_state(batch_size, device, dtype)

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        signals = [x[port] for port in self.inputs]
        frames = signals[0].shape[-1]
        if frames == 0:
            return signals[0], state
        weights, state = self.weights.step(controls, frames, state)
        if self.crossfade:
            weights = [1 - weights[0], weights[0]]
        total = weights[0] * signals[0]
        for weight, signal in zip(weights[1:], signals[1:], strict=True):
            total = total + weight * signal
        return total, state


@register("concat")
class Concat(_Joining):
    """All inputs' channels one after another, in the order the inputs are listed.

    ``(batch, c1, n)``, ``(batch, c2, n)``, ... to ``(batch, c1 + c2 + ..., n)``.

    Args:
        sources: input streams by port, all of one rate.

    Raises:
        RateError: for inputs that differ in rate.
    """

    def __init__(self, sources: Mapping[str, Stream]) -> None:
        super().__init__(sources, channels=sum(stream.channels for stream in sources.values()))

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        return torch.cat([x[port] for port in self.inputs], dim=1), state


@register("split")
class Split(StreamBlock):
    """Cut the channels into runs, each an output of its own named ``"0"``, ``"1"``, ...

    ``(batch, sum(parts), n)`` to a dict of ``(batch, parts[i], n)``.

    Args:
        source: the input stream.
        parts: channels of each output in order; they add up to the input's.

    Raises:
        ValueError: for parts that do not add up.
    """

    def __init__(self, source: Stream, *, parts: Sequence[int]) -> None:
        if isinstance(parts, (str, int)) or not parts:
            raise ValueError(f"parts must be a list of channel counts, such as [1, {source.channels}], not {parts!r}")
        counts = [bounded(f"parts[{index}]", part, 1, LARGEST_COUNT) for index, part in enumerate(parts)]
        if sum(counts) != source.channels:
            raise ValueError(
                f"parts must add up to the input's {source.channels} channels, and {counts} makes {sum(counts)}"
            )
        super().__init__(source, outputs={str(index): part for index, part in enumerate(counts)})

    def step(self, x: Tensor, state: State, controls: Any) -> tuple[dict[str, Tensor], State]:
        counts = [stream.channels for stream in self.outputs.values()]
        return dict(zip(self.outputs, torch.split(x, counts, dim=1), strict=True)), state
