"""Many streams through one graph, a row of a batch each, that come and go while the others go on."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import spread_control
from astrape.errors import StreamError
from astrape.graph.graph import Graph
from astrape.graph.recipe.node import Control
from astrape.graph.subgraph import subgraph
from astrape.runtime.ports import audio_ports

__all__ = ["PooledStream", "StreamPool"]

TICK = 0.01
"""Seconds of a tick where none is named: what one-frame graphs of speech take in at a time."""


class PooledStream:
    """One of many: what one speaker says, and what comes of it. :meth:`StreamPool.join` makes it.

    It begins with the first tick that finds ``ahead`` ticks of its input there. From then on every tick takes as many
    frames as it has: where they have not come, silence is heard in their place, and where too many have come, the
    oldest are left out, so that its delay never grows. Both are counted.

    Attributes:
        row: of the batch.
        starved: frames of silence that were heard because its own were not there.
        dropped: frames that were left out because more than ``most`` ticks waited.
        ticks: that it has taken part in.
    """

    def __init__(self, pool: StreamPool, row: int) -> None:
        self.row = row
        self.starved = self.dropped = self.ticks = 0
        self._pool: StreamPool | None = pool
        self._waiting: deque[Tensor] = deque()
        self._count = 0
        self._ready: list[Tensor] = []

    def write(self, x: Tensor) -> None:
        """Say ``(channels, frames)``, any number of frames.

        Raises:
            StreamError: for another shape, and for a stream that has left.
        """
        pool = self._of()
        channels = pool.channels_in
        if x.ndim != 2 or x.shape[0] != channels or not x.is_floating_point():
            raise StreamError(f"a stream takes ({channels}, frames) of floats, not {tuple(x.shape)} of {x.dtype}")
        if x.shape[1] == 0:
            return
        self._waiting.append(x.detach().to(torch.float32, copy=True))
        self._count += x.shape[1]
        beyond = self._count - pool.most * pool.tick_frames
        if beyond > 0:
            self._take(beyond)
            self.dropped += beyond

    def read(self) -> Tensor:
        """The frames that have come out since the last call, ``(channels, frames)``; each tick adds its own."""
        made, self._ready = self._ready, []
        return torch.cat(made, dim=-1) if made else torch.zeros(self._of().channels, 0)

    def set(self, **controls: Tensor | float) -> None:
        """Controls from the next tick on, each a number or one a channel.

        Raises:
            StreamError: for one that is unknown or out of range; then none is taken.
        """
        self._of()._set(self.row, controls)

    def leave(self) -> None:
        """Make room for another. What was made and not read is gone."""
        if self._pool is not None:
            self._pool._leave(self)
            self._pool = None

    @property
    def faulted(self) -> bool:
        """Whether something that it said or that came of it was not finite: from there on it is silent."""
        return any(fault.row == self.row for fault in self._of()._session.faults)

    def _of(self) -> StreamPool:
        if self._pool is None:
            raise StreamError("this stream has left: hint: join anew")
        return self._pool

    def _take(self, frames: int) -> Tensor:
        """The oldest frames that wait, at most so many."""
        taken: list[Tensor] = []
        while frames and self._waiting:
            first = self._waiting.popleft()
            if first.shape[1] > frames:
                self._waiting.appendleft(first[:, frames:])
                first = first[:, :frames]
            taken.append(first)
            frames -= first.shape[1]
            self._count -= first.shape[1]
        return torch.cat(taken, dim=1) if taken else torch.zeros(self._of().channels_in, 0)


class StreamPool:
    """A graph for many speakers at once, on one core: each is a row of a batch, and one tick computes all of them.

    One step of sixteen rows reads every weight once, so it takes far less than sixteen steps. Rows join, leave and
    change their controls unnoticed by the others; a row that has joined is a stream that began with its first
    tick, the same as one in a session of its own. Its output is ``host_samples`` late, behind what it waits to begin::

        pool = StreamPool(graph, rows=16)
        mine = pool.join(speaker=embedding, register=200.0)
        while True:                                # every pool.tick_seconds
            mine.write(frames)
            pool.tick()
            send(mine.read())

    Nothing here waits or reads a clock: whoever calls :meth:`tick` does.

    Args:
        graph: with one audio input, and one output of its rate (``output``, where there are several).
        rows: the most that take part at a time. Each takes its memory and its time whether somebody is there or not.
        tick: frames of the input in a tick, whole periods of the graph; those nearest to 10 ms when left out.
        ahead: ticks of input that a stream has to have before it begins: what its network may be late by.
        most: ticks of input that may wait; what is older is left out.
        output: name of the output.
        backend: of the session.

    Attributes:
        tick_frames, tick_seconds: of a tick.
        channels_in, channels: of input and output.
        host_samples: latency of a row, in frames.

    Raises:
        StreamError: for sizes that do not fit.
    """

    def __init__(
        self,
        graph: Graph[Any],
        rows: int,
        *,
        tick: int | None = None,
        ahead: int = 1,
        most: int = 10,
        output: str | None = None,
        backend: str | None = None,
    ) -> None:
        source, self._output = audio_ports(graph, output)
        graph = subgraph(graph, [self._output])
        heard, made = graph.inputs[source], graph.outputs[self._output]
        period = graph.consumes[source]
        frames = period * max(1, round(TICK * heard.rate / period)) if tick is None else tick
        if rows < 1:
            raise StreamError(f"rows must be at least 1, not {rows}")
        if frames < 1 or frames % period:
            near = period * max(1, round(frames / period))
            raise StreamError(f"a tick of {frames} frames is not whole periods of {period}: hint: take {near}")
        if not 1 <= ahead <= most:
            raise StreamError(f"ahead must be 1 to most ({most}), not {ahead}")
        self.graph, self.rows, self.ahead, self.most = graph, rows, ahead, most
        self.tick_frames, self.tick_seconds = frames, float(frames / heard.rate)
        self.channels_in, self.channels = heard.channels, made.channels
        self.host_samples = graph.host_latencies[self._output]
        self._session = graph.stream(batch_size=rows, constant_latency=True, chunk=frames, backend=backend)
        self._first = {name: _first(spec) for name, spec in graph.control_specs.items()}
        self._values = {name: value.repeat(rows, 1) for name, value in self._first.items()}
        self._changed = set(self._values)
        self._taken: dict[int, PooledStream] = {}

    @property
    def streams(self) -> tuple[PooledStream, ...]:
        """The streams that take part."""
        return tuple(self._taken.values())

    @property
    def free(self) -> int:
        """The number of rows that are not taken."""
        return self.rows - len(self._taken)

    @property
    def fed(self) -> bool:
        """Whether every stream that has begun has input for the next tick."""
        return all(stream._count >= self.tick_frames for stream in self._taken.values() if stream.ticks)

    def join(self, **controls: Tensor | float) -> PooledStream:
        """Take a row.

        Args:
            controls: values to begin with; one without a default must be among them.

        Raises:
            StreamError: when all rows are taken, and for controls that are missing, unknown or out of range.
        """
        row = next((row for row in range(self.rows) if row not in self._taken), None)
        if row is None:
            raise StreamError(f"all {self.rows} rows are taken: hint: wait until one leaves, or make more rows")
        for name, spec in self.graph.control_specs.items():
            if spec.default is None and name not in controls:
                raise StreamError(f"control '{name}' ({spec.channels} channels) has no value: give one")
        self._set(row, {**self._first, **controls})
        stream = self._taken[row] = PooledStream(self, row)
        return stream

    def tick(self) -> None:
        """Compute one tick of every row."""
        beginning = [
            stream.row
            for stream in self._taken.values()
            if not stream.ticks and stream._count >= self.ahead * self.tick_frames
        ]
        if beginning:
            self._session.reset(rows=beginning)
        x = torch.zeros(self.rows, self.channels_in, self.tick_frames)
        for stream in self._taken.values():
            if stream.ticks or stream.row in beginning:
                taken = stream._take(self.tick_frames)
                x[stream.row, :, : taken.shape[1]] = taken
                stream.starved += self.tick_frames - taken.shape[1]
                stream.ticks += 1
        made = self._session.push(x, **{name: self._values[name] for name in self._changed})
        self._changed.clear()
        y = made if isinstance(made, Tensor) else made[self._output]
        for stream in self._taken.values():
            if stream.ticks:
                stream._ready.append(y[stream.row].clone())

    def _set(self, row: int, controls: dict[str, Tensor | float]) -> None:
        new = {}
        for name, value in controls.items():
            self.graph.check_control(name, value)
            new[name] = spread_control(name, value, self.graph.controls[name], torch.zeros(1))[0]
        for name, value in new.items():
            if not torch.equal(self._values[name][row], value):
                # A session may still hold the tensor that it was given: it is not overwritten.
                self._values[name] = self._values[name].clone()
                self._values[name][row] = value
                self._changed.add(name)

    def _leave(self, stream: PooledStream) -> None:
        del self._taken[stream.row]


def _first(spec: Control) -> Tensor:
    """A control's value in an unused row: its default, or the value nearest to 0 within its bounds."""
    if spec.default is not None:
        return torch.tensor(spec.default)
    low, high = spec.minimum, spec.maximum
    idle = max(0.0, low if low is not None else 0.0)
    return torch.full((spec.channels,), idle if high is None else min(idle, high))
