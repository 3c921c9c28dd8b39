"""Lanes of a live stream: the graph that runs, and how another takes over, side by side and with a fade."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from astrape.graph.backends.native import quickest
from astrape.graph.graph import Graph
from astrape.graph.session import Session
from astrape.graph.subgraph import subgraph
from astrape.runtime.ports import audio_ports
from astrape.runtime.rings import Frames

__all__ = ["Controls", "Lane", "Lanes"]

Controls = Mapping[str, Tensor | float]

SHORTEST_FADE = 0.01
"""Seconds. A fade lasts a quantum of the graph, and at least this: a filter's quantum is one sample."""

SETTLING = 0.3
"""Seconds that a new graph runs along before it is heard: its filters and memories have to fill."""


class Lane:
    """A session over a live stream, with its output that has not been taken yet.

    Args:
        graph: with one audio input and ``output``, both at the host's rate.
        slice_frames: frames of each push, for which the session is prepared; ``None``: not prepared, quickly made.
        controls: values to begin with.

    Attributes:
        age: frames by which its output is late by algorithm, rounded up.
        first: number of the first pending frame in the live output.
        repaired: how often input that was not finite was taken as silence, or a spoiled state was reset.
    """

    def __init__(self, graph: Graph, output: str, slice_frames: int | None, controls: Controls) -> None:
        self.graph = graph
        self.output = output
        self.age = math.ceil(graph.latencies[output] * graph.outputs[output].rate)
        self.channels_in = next(iter(graph.inputs.values())).channels
        self.channels = graph.outputs[output].channels
        self.rate = graph.outputs[output].rate
        prepared = None if slice_frames is None else quickest(graph)
        self.session: Session[Tensor] = graph.stream(chunk=slice_frames, backend=prepared)
        self.first = 0
        self.pending = np.zeros((self.channels, 0), np.float32)
        self.repaired = 0
        self._fresh = dict(controls)
        self.push(np.zeros((self.channels_in, 0), np.float32))

    @classmethod
    def of(
        cls, graph: Graph, rate: Fraction | int, slice_frames: int, controls: Controls, output: str | None = None
    ) -> Lane:
        """A lane for a host at ``rate`` Hz, with only the nodes that the output needs.

        Raises:
            AstrapeError: for a graph with other than one audio input and one such output, and for controls that do not
                fit.
        """
        _, name = audio_ports(graph, output)
        return cls(subgraph(graph, [name]).hosted(rate), name, slice_frames, controls)

    @property
    def end(self) -> int:
        """Number of the frame behind the last pending one."""
        return self.first + self.pending.shape[1]

    def set(self, controls: Controls) -> None:
        """Take other values with the next push."""
        for name, value in controls.items():
            self.graph.check_control(name, value)
        self._fresh.update(controls)

    def push(self, x: Frames) -> None:
        """Run the graph on new frames. What is not finite in them is heard as silence, and stays in no state."""
        if x.size and not np.isfinite(x).all():
            x = np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)
            self.repaired += 1
        y = self.session.push(torch.from_numpy(x)[None], **self._fresh)
        self._fresh = {}
        if self.session.faults:
            # An output that is not finite: what the graph remembers is spoiled. It begins anew, on the same clock.
            self.session.reset(rows=[0])
            self.repaired += 1
        if y.shape[-1]:
            made = y[0].numpy().astype(np.float32, copy=False)
            self.pending = made if not self.pending.shape[1] else np.concatenate((self.pending, made), axis=1)

    def skip(self, frames: int) -> None:
        """Leave out whole periods of the input: the frames that they would have given are missing."""
        self.first = self.end + frames
        self.pending = self.pending[:, :0]

    def take(self, until: int) -> Frames:
        """Hand out the pending frames before number ``until``."""
        count = max(0, min(until - self.first, self.pending.shape[1]))
        taken, self.pending = self.pending[:, :count], self.pending[:, count:]
        self.first += count
        return taken

    def follow(self, other: Lane) -> None:
        """Stand where another lane of the same graph stands, with its controls."""
        self.session.restore(other.session.snapshot())
        self.first, self.pending = other.first, other.pending


class Lanes:
    """The lane that is heard, and for the length of a fade the one that it takes over from.

    Controls change without a click: the stream goes on as it was in a second session, restored from a snapshot, while
    the first takes the new values, and the output fades from one to the other within a quantum. A new graph is treated
    alike: it runs along until it has settled, and fades in.

    Args:
        lane: what is heard first.
        late: frames from an instant of the input to its frame in the live output. Every lane is put where that holds,
            so that two of them that are mixed speak of the same instant.
        spare: a lane of the same graph for the old values to run along in during a fade. It takes twice the time for a
            quantum; without it controls change at once.
    """

    def __init__(self, lane: Lane, late: int, spare: Lane | None = None) -> None:
        self.lane = lane
        self.late = late
        self.spare = spare
        self.lane.first = late - lane.age
        self._leaving: Lane | None = None
        self._from = self._until = 0

    @property
    def fading(self) -> bool:
        return self._leaving is not None

    @property
    def position(self) -> int:
        """Number of the next frame of the output."""
        return self.lane.first if self._leaving is None else self._leaving.first

    def change(self, controls: Controls) -> None:
        """Take other values from the next slice on. Not during a fade."""
        assert self._leaving is None
        if self.spare is not None:
            self.spare.follow(self.lane)
            self._fade(self.spare, self.lane.end)
        self.lane.set(controls)

    def switch(self, lane: Lane, spare: Lane | None, heard: int) -> None:
        """Let another graph take over, from frame ``heard`` of the input on. Not during a fade."""
        assert self._leaving is None
        old, self.lane, self.spare = self.lane, lane, spare
        lane.first = heard + self.late - lane.age
        self._fade(old, max(old.end, lane.first + lane.age + int(SETTLING * lane.rate)))

    def push(self, x: Frames) -> Frames:
        """Run what is heard on a slice, and return the next frames of the output."""
        lane, old = self.lane, self._leaving
        lane.push(x)
        if old is None:
            return lane.take(lane.end)
        old.push(x)
        # Until the fade begins it is the old lane alone; within it both; behind it the new one.
        before = old.take(self._from)
        lane.take(min(old.first, self._from))
        if old.first < self._from:
            return before
        ready = min(lane.end, old.end, self._until)
        place, count = old.first - self._from, max(0, ready - old.first)
        gain = np.arange(place + 1, place + count + 1, dtype=np.float32) * np.float32(1 / (self._until - self._from))
        gone = old.take(ready)
        faded = (gone + (lane.take(ready) - gone) * gain).astype(np.float32)
        if old.first < self._until:
            return np.concatenate((before, faded), axis=1)
        self._leaving = None
        return np.concatenate((before, faded, lane.take(lane.end)), axis=1)

    def skip(self, frames: int) -> None:
        """Leave out whole periods of the input; a fade ends."""
        self._leaving = None
        self.lane.skip(frames)

    def _fade(self, old: Lane, begin: int) -> None:
        length = max(SHORTEST_FADE, float(self.lane.graph.framings[self.lane.output].seconds))
        self._leaving, self._from = old, begin
        self._until = begin + round(length * float(self.lane.rate))
