"""The block: one function on streams, with exact numbers for its time behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from astrape.blocks.parameters import exact_number
from astrape.errors import CausalityError, RateError, StreamError

__all__ = ["Signal", "State", "Stream", "StreamBlock"]

State = Any
"""A tree of tensors: a tensor, or a dict, list or tuple of states. Dimension 0 of every tensor is the batch."""

Signal = Any
"""The value at a port: a tensor ``(batch, channels, frames)``, or a dict of them by port name where a block has
several inputs or outputs."""


@dataclass(frozen=True)
class Stream:
    """The type of a stream: an exact rate and a number of channels, known before its first frame.

    Args:
        rate: frames per second, Hz. An ``int``, a ``Fraction`` or a string such as ``"200/3"``; never a float, since
            0.1 is not a tenth.
        channels: length of a frame's vector.

    Raises:
        RateError: for a rate that is not positive or not exact, or fewer than one channel.

    >>> Stream(44100, 1)
    Stream(rate=44100 Hz, channels=1)
    """

    rate: Fraction
    channels: int

    def __init__(self, rate: Fraction | int | str, channels: int) -> None:
        if isinstance(rate, float):
            raise RateError(f"a rate must be exact, and {rate!r} is a float: write an int, a Fraction or a string")
        try:
            exact = exact_number("a rate", rate)
        except ValueError as error:
            raise RateError(str(error)) from None
        if exact <= 0:
            raise RateError(f"a rate must be positive, not {exact} Hz")
        if exact.denominator > 1 << 32 and exact.denominator.bit_count() == 1:
            near = exact.limit_denominator(10_000)
            raise RateError(f"a rate must be exact, and {exact} was made of a float: write Fraction({str(near)!r})")
        if channels < 1:
            raise RateError(f"a stream has at least one channel, not {channels}")
        object.__setattr__(self, "rate", exact)
        object.__setattr__(self, "channels", int(channels))

    def __repr__(self) -> str:
        return f"Stream(rate={self.rate} Hz, channels={self.channels})"


class StreamBlock(nn.Module):
    """A causal block: ``step`` on whole quanta, with state passed in and handed back.

    **The invariant.** However a stream is cut at quanta, the pieces give what the whole gives::

        state, parts = block.init_state(batch_size=len(x)), []
        for piece in x.split(block.quantum, dim=-1):
            y, state = block.step(piece, state, block.prepare(controls))
            parts.append(y)
        assert torch.allclose(torch.cat(parts, dim=-1), block(x, **controls))

    A block is built *on* its input stream, so its rates are known from the start and all its numbers are exact. A
    subclass calls ``super().__init__``, then implements ``step`` (and ``init_state``, if it remembers anything)::

        @register("smooth")
        class Smooth(StreamBlock):
            '''y[n] = y[n-1] + a (x[n] - y[n-1])'''

            def __init__(self, source: Stream, *, a: float = 0.1) -> None:
                super().__init__(source)
                self.a = a

            def init_state(self, batch_size, device=None, dtype=None):
                return torch.zeros(batch_size, self.channels_in, 1, device=device, dtype=dtype)

            def step(self, x, state, controls):
                frames = []
                for frame in x.split(1, dim=-1):
                    state = state + self.a * (frame - state)
                    frames.append(state)
                return torch.cat(frames, dim=-1), state

    Args:
        source: the input stream; a mapping from port name to stream for a block with several inputs (``variadic``).
        quantum: input frames that make one step, the same for every input.
        ratio: output frames per input frame; ``quantum * ratio`` must be a whole number.
        channels: output channels; as many as the (first) input has, when left out.
        outputs: names and channel counts of the outputs of a block that has several. All run at
            ``rate_in * ratio``.

    Attributes:
        inputs, outputs: ``dict`` from port name to ``Stream``. A lone input is called ``in``, a lone output ``out``.
        controls: ``dict`` from the name of each control the block listens to, to the number of its channels.
        latency_by: how the declared latency is to be measured. ``"newest"``, for learned layers: the age of the newest
            input that an output frame depends on. ``"centre"``, for fixed windows and filters: the age of the centre
            of the input that it depends on, which for a symmetric impulse response is the group delay. ``"declared"``:
            not at all, for a block whose lateness is an effect and no latency, such as an echo; contract checks take
            the declared number as it stands.

    Raises:
        RateError: for inputs at different rates, or a quantum that does not yield a whole number of output frames.
    """

    variadic: ClassVar[bool] = False
    """True for a block that takes several inputs: it is built on a mapping of streams and steps on dicts of tensors."""

    latency_by: Literal["newest", "centre", "declared"] = "newest"

    def __init__(
        self,
        source: Stream | Mapping[str, Stream],
        *,
        quantum: int = 1,
        ratio: Fraction | int = 1,
        channels: int | None = None,
        outputs: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.inputs: dict[str, Stream] = {"in": source} if isinstance(source, Stream) else dict(source)
        if not self.inputs:
            raise RateError(f"{type(self).__name__} needs at least one input")
        rates = {stream.rate for stream in self.inputs.values()}
        if len(rates) > 1:
            listed = ", ".join(f"'{name}' {stream.rate} Hz" for name, stream in self.inputs.items())
            raise RateError(f"{type(self).__name__} needs inputs at one rate, not {listed}: resample all but one")
        self.quantum = int(quantum)
        self.ratio = Fraction(ratio)
        if self.quantum < 1 or self.ratio <= 0 or (self.quantum * self.ratio).denominator != 1:
            raise RateError(
                f"{type(self).__name__}: a quantum of {self.quantum} frames times a ratio of {self.ratio} "
                f"is not a whole number of output frames: make the quantum a multiple of {self.ratio.denominator}"
            )
        if outputs is None:
            outputs = {"out": next(iter(self.inputs.values())).channels if channels is None else channels}
        rate_out = next(iter(rates)) * self.ratio
        self.outputs: dict[str, Stream] = {name: Stream(rate_out, count) for name, count in outputs.items()}
        self.controls: dict[str, int] = {}

    @property
    def rate_in(self) -> Fraction:
        """Rate of the (first) input, Hz."""
        return next(iter(self.inputs.values())).rate

    @property
    def rate_out(self) -> Fraction:
        """Rate of the (first) output, Hz."""
        return next(iter(self.outputs.values())).rate

    @property
    def channels_in(self) -> int:
        """Channels of the (first) input."""
        return next(iter(self.inputs.values())).channels

    @property
    def channels_out(self) -> int:
        """Channels of the (first) output."""
        return next(iter(self.outputs.values())).channels

    @property
    def output(self) -> Stream:
        """The (first) output stream: what the next block is built on."""
        return next(iter(self.outputs.values()))

    @property
    def consumes(self) -> dict[str, int]:
        """Input frames that one step takes, by port."""
        return dict.fromkeys(self.inputs, self.quantum)

    @property
    def produces(self) -> dict[str, int]:
        """Output frames that one step yields, by port."""
        return dict.fromkeys(self.outputs, int(self.quantum * self.ratio))

    @property
    def lookahead(self) -> Fraction | None:
        """Seconds past the end of its own quantum that an output may reach; ``None``: without bound. 0 when causal."""
        return Fraction(0)

    @property
    def latency(self) -> Fraction:
        """Algorithmic latency, seconds: how old the signal is that an output frame represents."""
        return Fraction(0)

    @property
    def latencies(self) -> dict[str, Fraction]:
        """Algorithmic latency by output port, seconds."""
        return dict.fromkeys(self.outputs, self.latency)

    @property
    def receptive_field(self) -> Fraction | None:
        """Seconds from the start of the oldest input frame an output depends on to the end of its quantum.

        ``None``: without bound. As long as a block says nothing, a block without state reaches back over its own
        quantum and one with state without bound.
        """
        if type(self).init_state is StreamBlock.init_state:
            return Fraction(self.quantum) / self.rate_in
        return None

    def oldest_input(self, frame: int) -> int | None:
        """Oldest input frame that output ``frame`` (0 to ``quantum * ratio - 1``) depends on; ``None``: no bound.

        Counted from the start of the quantum, so frames of earlier quanta are negative. The compiler combines these
        into the graph's receptive field. A block whose output frames reach back differently overrides it.
        """
        span = self.receptive_field
        return None if span is None else self.quantum - int(span * self.rate_in)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """The state at time zero: a tree of tensors whose shapes never change, batch first. Empty by default."""
        return ()

    def prepare(self, controls: Mapping[str, Tensor]) -> Any:
        """Derive from the controls whatever ``step`` needs, once per change and not once per step.

        Args:
            controls: the block's own controls by name, each ``(batch, channels)``.

        Returns:
            Anything; it is what ``step`` gets as ``controls``. The controls themselves by default.
        """
        return controls

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Signal, State]:
        """The block's one implementation, on any whole number of quanta at once.

        Args:
            x: ``(batch, channels_in, k * quantum)``, or a dict of those by input port.
            state: as ``init_state`` or the last step returned it. It is not changed.
            controls: what ``prepare`` returned.

        Returns:
            ``y`` of ``(batch, channels_out, k * quantum * ratio)``, or a dict by output port, and the next state.
        """
        raise CausalityError(f"{type(self).__name__} has no step: it looks ahead and runs in training only")

    def forward(self, x: Signal, **controls: Tensor | float) -> Signal:
        """The whole sequence from a fresh state: ``step`` on all of it.

        Frames after the last whole quantum yield nothing, as in a stream, where they would still be waiting.
        """
        x = self.whole_quanta(x)
        lead = x if isinstance(x, Tensor) else next(iter(x.values()))
        prepared = self.prepare(self.read_controls(controls, lead))
        if lead.shape[-1] == 0:
            empty = {port: lead.new_zeros(len(lead), out.channels, 0) for port, out in self.outputs.items()}
            return empty["out"] if list(empty) == ["out"] else empty
        return self.step(x, self.init_state(lead.shape[0], lead.device, lead.dtype), prepared)[0]

    def read_controls(self, given: Mapping[str, Tensor | float], like: Tensor) -> dict[str, Tensor]:
        """Check the values of all controls and spread them to ``(batch, channels)``, as ``like`` in batch and dtype.

        Raises:
            StreamError: for a control that is missing, unknown, or of the wrong shape.
        """
        unknown = sorted(set(given) - set(self.controls))
        if unknown:
            known = ", ".join(sorted(self.controls)) or "none"
            raise StreamError(f"unknown control '{unknown[0]}' (choose from: {known})")
        missing = sorted(set(self.controls) - set(given))
        if missing:
            raise StreamError(f"control '{missing[0]}' ({self.controls[missing[0]]} channels) has no value: give one")
        return {name: spread_control(name, given[name], count, like) for name, count in self.controls.items()}

    def live(self, value: float | str, channels: int = 1) -> float | str:
        """Take a parameter that is a number, or the name of a control that sets it live; the latter is listened to."""
        if isinstance(value, str):
            self.controls[value] = channels
            return value
        return float(value)

    def extra_repr(self) -> str:
        """Rates, channels and latency, for ``print``: ``44100 Hz x 1 -> 100 Hz x 514, latency 14.966 ms``."""
        if "outputs" not in self.__dict__:
            return ""
        ends = (
            ", ".join(f"{float(stream.rate):.10g} Hz x {stream.channels}" for stream in ports.values())
            for ports in (self.inputs, self.outputs)
        )
        return " -> ".join(ends) + (f", latency {float(self.latency * 1000):.3f} ms" if self.latency else "")

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Output frames that belong to inputs of these lengths, whatever padding follows them on the right."""
        return torch.div(lengths, self.quantum, rounding_mode="floor") * int(self.quantum * self.ratio)

    def whole_quanta(self, x: Signal) -> Signal:
        """Check the inputs and cut them after the last quantum that all of them fill."""
        if isinstance(x, Tensor):
            if len(self.inputs) != 1:
                raise StreamError(f"{type(self).__name__} takes a dict of inputs: {', '.join(self.inputs)}")
            ((port, stream),) = self.inputs.items()
            whole = check_signal(x, stream, port).shape[-1] // self.consumes[port] * self.consumes[port]
            return x[..., :whole] if not self.variadic else {port: x[..., :whole]}
        if set(x) != set(self.inputs):
            raise StreamError(f"{type(self).__name__} takes inputs {', '.join(self.inputs)}, not {', '.join(x)}")
        frames = {port: check_signal(x[port], stream, port).shape[-1] for port, stream in self.inputs.items()}
        firings = min(frames[port] // count for port, count in self.consumes.items())
        cut = {port: x[port][..., : firings * count] for port, count in self.consumes.items()}
        return cut if self.variadic else next(iter(cut.values()))


def check_signal(x: Tensor, stream: Stream, name: str) -> Tensor:
    """Return ``x`` if it is ``(batch, channels, frames)`` as ``stream`` says; raise a ``StreamError`` if not."""
    if x.dim() != 3 or x.shape[1] != stream.channels:
        raise StreamError(
            f"'{name}' takes (batch, {stream.channels}, frames), not {tuple(x.shape)}"
            + (": add the missing dimension with unsqueeze" if x.dim() < 3 else "")
        )
    if x.shape[0] == 0:
        raise StreamError(f"'{name}' has no rows, {tuple(x.shape)}: give a batch of at least 1")
    if not x.is_floating_point():
        raise StreamError(f"'{name}' takes floating-point frames, not {x.dtype}: scale PCM to -1..1 first")
    return x


def spread_control(name: str, value: Tensor | float, channels: int, like: Tensor) -> Tensor:
    """Bring a control to ``(batch, channels)``: a number, ``(channels,)``, ``(1, channels)`` or the full shape."""
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    if tensor.dim() < 2:
        tensor = tensor.reshape(1, -1)
    if tensor.dim() != 2 or tensor.shape[0] not in (1, like.shape[0]) or tensor.shape[1] not in (1, channels):
        raise StreamError(
            f"control '{name}' takes ({like.shape[0]}, {channels}) or ({channels},), not {tuple(tensor.shape)}"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise StreamError(f"control '{name}' is not finite")
    return tensor.expand(like.shape[0], channels)
