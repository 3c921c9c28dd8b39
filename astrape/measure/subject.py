"""A block under test: its copy in one dtype, signals and control values to feed it, and the two ways to run it.

Inside the checks every signal is a dict by port, whatever face the block itself has.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import State, Stream, StreamBlock
from astrape.blocks.state import state_leaves

__all__ = ["LEVELS", "ControlValues", "Draw", "Ports", "Subject", "concatenate", "draw_noise"]

Ports = dict[str, Tensor]
"""Signals by port, each ``(batch, channels, frames)``."""

Draw = Callable[[Stream, int, int, torch.Generator], Tensor]
"""Makes test input: ``(stream, frames, batch, generator) -> (batch, channels, frames)`` in float64."""

ControlValues = Mapping[str, Any]
"""A value for each control: a number, ``(channels,)`` or ``(1, channels)``."""

LEVELS = (1.0, 0.1, 4.0)
"""Gains of the rows of a test signal: gates open and close, saturations bend, quantizers move and stand still."""

BATCH = 3

MOST_GIVEN = 1 << 19
"""Output frames that the quanta of a memory may come to: 12 s of audio, be it made of 300 numbers."""

MOST_WORK = 1 << 33
"""Parameters times quanta of a memory: 400 quanta of 20 million, since a graph as large is as wide inside."""


def draw_noise(stream: Stream, frames: int, batch: int, generator: torch.Generator) -> Tensor:
    """Gaussian noise, float64, with another level in each row."""
    noise = torch.randn(batch, stream.channels, frames, generator=generator, dtype=torch.float64)
    levels = torch.tensor([LEVELS[row % len(LEVELS)] for row in range(batch)], dtype=torch.float64)
    return noise * levels.reshape(-1, 1, 1)


def concatenate(parts: Sequence[Ports]) -> Ports:
    """Signals one after the other in time."""
    return {port: torch.cat([part[port] for part in parts], dim=-1) for port in parts[0]}


class Subject:
    """A private copy of a block in evaluation mode and one dtype, and what is needed to run it.

    Parameters of the copy that are all zero are given small random values: a layer that starts at zero, as AdaLN does,
    depends on nothing yet and would hide what it will depend on once it has learned.

    Args:
        block: the block or graph under test. It is copied, so the checks leave the caller's untouched.
        controls: one setting of its controls, or several; made up from noise when left out.
        draw: makes the test input; noise when left out.
        tolerance: how far equal things may differ, relative to the larger of 1 and the greatest value.
        dtype: of parameters, signals and states.
        device: where to run.
    """

    def __init__(
        self,
        block: StreamBlock,
        *,
        controls: ControlValues | Sequence[ControlValues] | None = None,
        draw: Draw | None = None,
        tolerance: float = 1e-10,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> None:
        self.original = block
        self.block: StreamBlock = _stirred(_copied(block)).to(device=device, dtype=dtype).eval()
        self.settings: tuple[ControlValues, ...] = (
            () if controls is None else (controls,) if isinstance(controls, Mapping) else tuple(controls)
        )
        self.draw: Draw = draw_noise if draw is None else draw
        self.tolerance = tolerance
        self.dtype = dtype
        self.device = device
        self.name = type(block).__name__

    def again(self, *, dtype: torch.dtype | None = None, device: str | None = None) -> Subject:
        """The same block from the start: another copy, in another dtype or on another device."""
        return Subject(
            self.original,
            controls=self.settings or None,
            draw=self.draw,
            tolerance=self.tolerance,
            dtype=self.dtype if dtype is None else dtype,
            device=self.device if device is None else device,
        )

    @property
    def streams(self) -> bool:
        """False for a block that runs in training only: it says that it looks ahead, and ``step`` is not for it."""
        return self.block.lookahead == 0

    @property
    def takes_dict(self) -> bool:
        """Whether the block wants its input as a dict by port."""
        return self.block.variadic or len(self.block.inputs) > 1

    def signal(self, quanta: int, *, batch: int = BATCH, seed: int = 0) -> Ports:
        """Test input of a number of quanta."""
        generator = torch.Generator().manual_seed(seed)
        counts = self.block.consumes
        return {
            port: self.draw(stream, quanta * counts[port], batch, generator).to(self.device, self.dtype)
            for port, stream in self.block.inputs.items()
        }

    def values(self, batch: int = BATCH, setting: int = 0) -> Ports:
        """Control values ``(batch, channels)`` of one of two settings; rows differ where the values are made up."""
        generator = torch.Generator().manual_seed(1000 + setting)
        made = {}
        for name, channels in self.block.controls.items():
            if self.settings:
                given = self.settings[min(setting, len(self.settings) - 1)][name]
                value = torch.as_tensor(given, dtype=torch.float64).reshape(1, -1).expand(batch, channels)
                if setting >= len(self.settings):
                    value = value * 0.75
            elif channels == 1:
                value = 0.2 + 0.6 * torch.rand(batch, 1, generator=generator, dtype=torch.float64)
            else:
                value = torch.randn(batch, channels, generator=generator, dtype=torch.float64)
            made[name] = value.to(self.device, self.dtype)
        return made

    def prepared(self, batch: int = BATCH, setting: int = 0) -> Any:
        """The prepared controls of a setting."""
        values = self.values(batch, setting)
        return self.block.prepare(values)

    def given(self, x: Ports) -> Any:
        """Input in the form in which the block takes it."""
        return x if self.takes_dict else next(iter(x.values()))

    def by_port(self, y: Any) -> Ports:
        """Output by port, whatever form it came in."""
        return dict(y) if isinstance(y, Mapping) else {next(iter(self.block.outputs)): y}

    def forward(self, x: Ports, setting: int = 0) -> Ports:
        """The full-sequence pass."""
        batch = len(next(iter(x.values())))
        return self.by_port(self.block(self.given(x), **self.values(batch, setting)))

    def fresh(self, batch: int = BATCH) -> State:
        """The state at time zero."""
        return self.block.init_state(batch, self.device, self.dtype)

    def step(self, x: Ports, state: State, prepared: Any) -> tuple[Ports, State]:
        """One call of ``step``."""
        y, state = self.block.step(self.given(x), state, prepared)
        return self.by_port(y), state

    def run(self, x: Ports, chunks: Sequence[int], state: State, prepared: Any, start: int = 0) -> tuple[Ports, State]:
        """Step by step over chunks of that many quanta, from quantum ``start`` of ``x``."""
        parts = []
        for quanta in chunks:
            y, state = self.step(self.cut(x, start, start + quanta), state, prepared)
            parts.append(y)
            start += quanta
        return concatenate(parts), state

    def cut(self, x: Ports, start: int, stop: int) -> Ports:
        """Quanta ``start`` to ``stop`` of an input."""
        return {port: x[port][..., start * count : stop * count] for port, count in self.block.consumes.items()}

    def cut_output(self, y: Ports, start: int, stop: int) -> Ports:
        """The output of quanta ``start`` to ``stop``."""
        return {port: y[port][..., start * count : stop * count] for port, count in self.block.produces.items()}

    def memory(self, limit: int = 1 << 14) -> int:
        """Quanta that the state seems to hold: the elements of its longest tensor, a channel, taken for input frames.

        For blocks without a bound this is what has to pass before a delay line or a ring has gone round once. It is an
        upper bound, and a loose one where a state is wider than the input, as the keys and values of an attention over
        codes are, so it ends where the input has ``limit`` frames, the output ``MOST_GIVEN``, or running through it
        takes ``MOST_WORK``.
        """
        with torch.no_grad():
            sizes = [leaf.numel() for _, leaf in state_leaves(self.fresh(1))]
        narrowest = min(stream.channels for stream in self.block.inputs.values())
        held = max(sizes, default=0) // narrowest // max(self.block.consumes.values())
        weights = sum(parameter.numel() for parameter in self.block.parameters())
        most = min(MOST_GIVEN // max(self.block.produces.values()), max(64, MOST_WORK // max(1, weights)))
        return min(held, limit // max(self.block.consumes.values()), most)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Gradients to the input alone: nothing is kept for those to the parameters, or of what no input reaches."""
        learned = [parameter for parameter in self.block.parameters() if parameter.requires_grad]
        try:
            for parameter in learned:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Inference mode, in which sessions run, on another copy of the block: small steps take a fifth less time.

        What a block lays by meanwhile, such as a table for a length, is closed to gradients, so it goes with the copy.
        """
        own = self.block
        self.block = self.again().block
        try:
            with torch.inference_mode():
                yield
        finally:
            self.block = own

    def reach(self, limit: int = 1 << 16) -> int | None:
        """Quanta that the declared receptive field spans, rounded up; ``None`` without one or over ``limit`` frames."""
        span = self.block.receptive_field
        if span is None:
            return None
        quanta = max(-((-span * self.block.inputs[port].rate) // count) for port, count in self.block.consumes.items())
        widest = max(self.block.consumes.values())
        return int(quanta) if quanta * widest <= limit else None


def _copied(block: StreamBlock) -> StreamBlock:
    """A copy whose parameters are leaves, as those of the block are; ``deepcopy`` computes TorchScript's anew."""
    copied = copy.deepcopy(block)
    for parameter, original in zip(copied.parameters(), block.parameters(), strict=True):
        if not parameter.is_leaf:
            parameter.detach_().requires_grad_(original.requires_grad)
    return copied


def _stirred(block: StreamBlock) -> StreamBlock:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in block.parameters():
            if parameter.is_floating_point() and not bool(parameter.any()):
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(0.3 * noise)
    return block
