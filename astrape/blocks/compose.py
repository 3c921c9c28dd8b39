"""Blocks made of blocks, in Python: one after the other, around a residual, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor

from astrape.blocks.base import Signal, State, Stream, StreamBlock
from astrape.blocks.parameters import check_choice
from astrape.errors import AlignmentError, CausalityError, RateError

__all__ = ["Parallel", "Residual", "Sequential"]


class Composed(StreamBlock):
    """Named blocks as children, whose states, controls and prepared values go by their names.

    Weights are called as those of ``nn.Sequential``: ``0.weight``, or by the given names, ``norm.weight``. Only blocks
    that remember something have a place in the state.
    """

    def __init__(
        self, source: Stream, blocks: Mapping[str, StreamBlock], quantum: int, ratio: Fraction, channels: int
    ) -> None:
        super().__init__(source, quantum=quantum, ratio=ratio, channels=channels)
        for name, block in blocks.items():
            if block.lookahead != 0:
                raise CausalityError(f"'{name}' looks ahead: a block made of blocks is causal")
            for control, count in block.controls.items():
                if self.controls.setdefault(control, count) != count:
                    known = self.controls[control]
                    raise ValueError(f"control '{control}' has {known} channels, and {count} for '{name}'")
            self.add_module(name, block)
        self._names = tuple(blocks)
        # Blocks without memory neither delay nor spread. Ages of two kinds have no common measure: each child has one.
        aged = [one for one in blocks.values() if one.latency or one.receptive_field != 1 / one.rate_in]
        kinds = {one.latency_by for one in aged} or {"newest"}
        self.latency_by = kinds.pop() if len(kinds) == 1 else "declared"

    @property
    def blocks(self) -> dict[str, StreamBlock]:
        """The children by name, in order."""
        found = {name: self._modules[name] for name in self._names}
        return {name: block for name, block in found.items() if isinstance(block, StreamBlock)}

    @property
    def receptive_field(self) -> Fraction | None:
        oldest = [self.oldest_input(frame) for frame in range(int(self.quantum * self.ratio))]
        known = [frame for frame in oldest if frame is not None]
        return (self.quantum - min(known)) / self.rate_in if len(known) == len(oldest) else None

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[StreamBlock]:
        return iter(self.blocks.values())

    def __getitem__(self, index: int) -> StreamBlock:
        return list(self)[index]

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """The states of the children that have one, by name."""
        states = {name: block.init_state(batch_size, device, dtype) for name, block in self.blocks.items()}
        return {name: state for name, state in states.items() if isinstance(state, Tensor) or len(state)}

    def prepare(self, controls: Mapping[str, Tensor]) -> dict[str, Any]:
        """The prepared values of each child, from its own controls, by name."""
        return {
            name: block.prepare({control: controls[control] for control in block.controls})
            for name, block in self.blocks.items()
        }


class Sequential(Composed):
    """Blocks one after the other, each built on what the one before it gives.

    Rates may change on the way: the quantum is the least that fills a whole number of quanta of every block, and the
    latencies add up. Usable without a recipe::

        >>> from astrape.blocks import Activation, Conv, Stream
        >>> mic = Stream(16000, 1)
        >>> conv = Conv(mic, channels=8, kernel=4, stride=2)
        >>> encoder = Sequential(conv, Activation(conv.output, kind="silu"))
        >>> encoder.output, encoder.quantum
        (Stream(rate=8000 Hz, channels=8), 2)

    Args:
        blocks: at least one; or one mapping of them by name, which are the names of their weights.

    Raises:
        RateError: for a block that is built on another stream than the one before it gives.
        CausalityError: for a block that looks ahead.
        ValueError: for no block, blocks of several ports, and controls of one name and several widths.
    """

    def __init__(self, *blocks: StreamBlock | Mapping[str, StreamBlock]) -> None:
        named = _named(blocks)
        first = next(iter(named.values()))
        stream, ratio, quanta = first.inputs[next(iter(first.inputs))], Fraction(1), []
        source = stream
        for name, block in named.items():
            own = next(iter(block.inputs.values()))
            if own != stream:
                raise RateError(f"'{name}' is built on {own} and gets {stream}: build it on the output before it")
            quanta.append((ratio / block.quantum).denominator)
            ratio *= block.ratio
            stream = block.output
        super().__init__(source, named, math.lcm(*quanta), ratio, stream.channels)

    @property
    def latency(self) -> Fraction:
        return sum((block.latency for block in self), Fraction(0))

    def oldest_input(self, frame: int) -> int | None:
        """Oldest input frame of an output frame: block by block from the last to the first."""
        for block in reversed(list(self)):
            period = int(block.quantum * block.ratio)
            reached = [_oldest(block, period, later) for later in range(frame, frame + period)]
            if any(oldest is None for oldest in reached):
                return None
            frame = min(oldest for oldest in reached if oldest is not None)
        return frame

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Any, State]:
        held, given, after = dict(state), dict(controls), {}
        for name, block in self.blocks.items():
            x, own = block.step(x, held.get(name, ()), given.get(name, {}))
            if name in held:
                after[name] = own
        return x, after


class Residual(Sequential):
    """``x + body(x)``, the body being blocks one after the other.

    Args:
        blocks: as :class:`Sequential` takes them. They keep rate and channels, and have no latency, since the input
            that is added to what they give would be younger.

    Raises:
        AlignmentError: for a body with latency.
        RateError: for a body that changes rate or channels; besides as :class:`Sequential`.
    """

    def __init__(self, *blocks: StreamBlock | Mapping[str, StreamBlock]) -> None:
        super().__init__(*blocks)
        if self.output != next(iter(self.inputs.values())):
            raise RateError(f"a residual adds its input {self.inputs['in']} to {self.output}: keep rate and channels")
        if self.latency:
            late = f"{float(self.latency * 1000):.6g} ms"
            raise AlignmentError(f"the body of a residual is {late} late: use a recipe, which delays the other path")

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Any, State]:
        y, state = super().step(x, state, controls)
        return x + y, state


class Parallel(Composed):
    """Blocks on one input, side by side; what they give is added up or put together.

    Args:
        blocks: at least one, or one mapping of them by name, all built on the same stream.
        combine: ``"concat"``, one after the other as channels, or ``"add"``.

    Raises:
        RateError: for blocks on different streams, or whose outputs differ in rate, or with ``"add"`` in channels.
        AlignmentError: for blocks of different latency: what they give stands for different instants.
        CausalityError: for a block that looks ahead.
        ValueError: for no block, blocks of several ports, and controls of one name and several widths.
    """

    def __init__(
        self,
        *blocks: StreamBlock | Mapping[str, StreamBlock],
        combine: Literal["concat", "add"] = "concat",
    ) -> None:
        named = _named(blocks)
        check_choice("combine", combine, ("concat", "add"))
        first_name, first = next(iter(named.items()))
        source = next(iter(first.inputs.values()))
        for name, block in named.items():
            if next(iter(block.inputs.values())) != source:
                raise RateError(f"'{first_name}' and '{name}' are built on different streams: build both on one")
            if block.ratio != first.ratio or (combine == "add" and block.output != first.output):
                raise RateError(f"'{first_name}' gives {first.output} and '{name}' {block.output}: they do not combine")
            if block.latency != first.latency:
                late = abs(block.latency - first.latency)
                raise AlignmentError(
                    f"'{first_name}' and '{name}' differ by {float(late * 1000):.6g} ms in latency: "
                    "put a delay behind the earlier one"
                )
        channels = sum(block.channels_out for block in named.values()) if combine == "concat" else first.channels_out
        quantum = math.lcm(*(block.quantum for block in named.values()))
        super().__init__(source, named, quantum, first.ratio, channels)
        self.combine = combine

    @property
    def latency(self) -> Fraction:
        return self[0].latency

    def oldest_input(self, frame: int) -> int | None:
        reached = [_oldest(block, int(block.quantum * block.ratio), frame) for block in self]
        known = [oldest for oldest in reached if oldest is not None]
        return min(known) if len(known) == len(reached) else None

    def step(self, x: Signal, state: State, controls: Any) -> tuple[Tensor, State]:
        held, given, after = dict(state), dict(controls), {}
        outputs = []
        for name, block in self.blocks.items():
            y, own = block.step(x, held.get(name, ()), given.get(name, {}))
            outputs.append(y)
            if name in held:
                after[name] = own
        if self.combine == "concat":
            return torch.cat(outputs, dim=1), after
        total: Tensor = outputs[0]
        for y in outputs[1:]:
            total = total + y
        return total, after


def _named(blocks: tuple[StreamBlock | Mapping[str, StreamBlock], ...]) -> dict[str, StreamBlock]:
    named: dict[str, StreamBlock] = {}
    for index, given in enumerate(blocks):
        named.update({str(index): given} if isinstance(given, StreamBlock) else given)
    if not named:
        raise ValueError("a block made of blocks takes at least one")
    for name, block in named.items():
        if len(block.inputs) != 1 or len(block.outputs) != 1 or block.variadic:
            raise ValueError(f"'{name}' has several inputs or outputs: join such blocks in a recipe")
    return named


def _oldest(block: StreamBlock, period: int, frame: int) -> int | None:
    """Oldest input frame that any output frame of a block depends on, however far from the first quantum it is."""
    quantum, inside = divmod(frame, period)
    oldest = block.oldest_input(inside)
    return None if oldest is None else quantum * block.quantum + oldest
