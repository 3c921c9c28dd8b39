"""Synchronous dataflow arithmetic: balance equations, framing latency, receptive field. Integers and Fractions only.

A node fires when every input holds what one firing consumes, and then produces a fixed number of frames
(Lee & Messerschmitt 1987, "Synchronous data flow", Proc. IEEE 75:9). Rates are exact, so the balance equations are
solved by periods: a node that consumes 441 frames at 44100 Hz fires every 10 ms, and the graph repeats after the least
common multiple of all periods.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from astrape.blocks.base import Stream, StreamBlock
from astrape.errors import RateError
from astrape.graph.compile.plan import Wire

__all__ = ["Actor", "Edge", "FramingLatency", "TokenCounts", "common_multiple", "frames_in", "hyperperiod", "period_of"]

MOST_FRAMES = 2**22
"""Longest hyperperiod, in frames of the fastest stream: 95 s at 44.1 kHz."""


class Edge(NamedTuple):
    """One input port of an actor: the wire it reads, and the frames one firing takes of it."""

    port: str
    key: str
    """Name of what waits at the port: ``actor.port``."""
    read: Wire
    consumes: int


class Actor:
    """A node, or a whole feedback loop, which fires as one.

    Args:
        sources: for each input port, the wire it reads.
        controls: for each control of the block, the graph's name of it.
        wires: for each output port, the wire that it is in the graph.
    """

    def __init__(
        self,
        name: str,
        block: StreamBlock,
        sources: dict[str, Wire],
        controls: dict[str, str],
        wires: dict[str, Wire],
    ) -> None:
        self.name = name
        self.block = block
        self.sources = sources
        self.controls = controls
        self.wires = wires
        consumes = block.consumes
        self.edges = [Edge(port, f"{name}.{port}", read, consumes[port]) for port, read in sources.items()]
        self.output = next(iter(wires.values()))
        produces = block.produces
        self.produced = [(wire, produces[port]) for port, wire in wires.items()]


def common_multiple(periods: Sequence[Fraction]) -> Fraction:
    """Least common multiple of fractions: 1/16000 and 441/44100 s meet every 10 ms."""
    numerator = math.lcm(*(period.numerator for period in periods))
    return Fraction(numerator, math.gcd(*(period.denominator for period in periods)))


def frames_in(period: Fraction, streams: Mapping[str, Stream]) -> dict[str, int]:
    """Frames that each stream has in a period, which is a whole number of them."""
    return {name: int(period * stream.rate) for name, stream in streams.items()}


def period_of(block: StreamBlock) -> Fraction:
    """Seconds between two firings of a block.

    Raises:
        RateError: when its ports do not agree on it, so that the balance equations have no solution.
    """
    consumes, produces = block.consumes, block.produces
    ports = [(name, consumes[name], stream.rate) for name, stream in block.inputs.items()]
    ports += [(name, produces[name], stream.rate) for name, stream in block.outputs.items()]
    periods = {Fraction(frames) / rate for _, frames, rate in ports}
    if len(periods) != 1:
        listed = ", ".join(f"'{name}' {frames} frames at {rate} Hz" for name, frames, rate in ports)
        raise RateError(f"{type(block).__name__} is out of balance: a firing takes and gives {listed}")
    return periods.pop()


def hyperperiod(actors: Sequence[Actor], inputs: Mapping[str, Stream]) -> Fraction:
    """Seconds after which the schedule of the graph repeats.

    Raises:
        RateError: when that takes more than ``MOST_FRAMES`` frames.
    """
    periods = [1 / stream.rate for stream in inputs.values()] + [period_of(actor.block) for actor in actors]
    period = common_multiple(periods)
    rates = [stream.rate for stream in inputs.values()]
    rates += [stream.rate for actor in actors for stream in actor.block.outputs.values()]
    if period * max(rates) > MOST_FRAMES:
        raise RateError(
            f"the rates and quanta meet only every {float(period):.6g} s, {int(period * max(rates))} frames of the "
            f"fastest stream (at most {MOST_FRAMES}): choose rates and hops with larger common divisors"
        )
    return period


@dataclass(frozen=True)
class FramingLatency:
    """Framing latency of one output.

    Attributes:
        seconds: how much later than the end of its own interval the latest output frame can be computed.
    """

    seconds: Fraction


class TokenCounts:
    """Counts of frames through a graph over one hyperperiod, from which framing and reach follow.

    Args:
        actors: in execution order, without cycles between them.
        inputs: the graph's inputs.
        period: the hyperperiod, seconds.
    """

    def __init__(self, actors: Sequence[Actor], inputs: Mapping[str, Stream], period: Fraction) -> None:
        self._actors = actors
        self._place = {actor.name: index for index, actor in enumerate(actors)}
        self._inputs = inputs
        self._period = period
        self._producer = {Wire(name, "out"): (name, stream.rate, 1) for name, stream in inputs.items()}
        for actor in actors:
            outputs, produces = actor.block.outputs, actor.block.produces
            for port, wire in actor.wires.items():
                self._producer[wire] = (actor.name, outputs[port].rate, produces[port])

    def framing(self, output: Wire) -> FramingLatency:
        """Framing latency of an output.

        Counts go backwards: for firing ``j`` of the output's actor, how many frames must have arrived at every input.
        Frame ``m`` covers ``[m/r, (m+1)/r)`` and is late by the end of the last input frame it needs minus
        ``(m+1)/r``. The first frame of a firing is its latest.

        Example: 1764 samples in, 1764 out. Frame 0 needs 1764 samples and would ideally need 1: 1763 samples.
        """
        producer, rate_out, produce = self._producer[output]
        firings = int(self._period * rate_out) // produce
        first_frames = np.arange(firings, dtype=np.int64) * produce
        needed = {producer: np.arange(1, firings + 1, dtype=np.int64)}
        # From the last actor to the first, only those that the output needs: a graph may have thousands of outputs.
        places = [-self._place[producer]] if producer in self._place else []
        while places:
            actor = self._actors[-heapq.heappop(places)]
            count = needed.pop(actor.name)
            for edge in actor.edges:
                source, _, produced = self._producer[edge.read]
                wanted = count if edge.consumes == produced else -(-count * edge.consumes // produced)
                known = needed.get(source)
                if known is None and source in self._place:
                    heapq.heappush(places, -self._place[source])
                needed[source] = wanted if known is None or known is wanted else np.maximum(known, wanted)
        seconds = Fraction(0)
        for name, count in needed.items():
            rate_in = self._inputs[name].rate
            seconds = max(seconds, _largest(count, 1 / rate_in, first_frames + 1, 1 / rate_out))
        return FramingLatency(seconds)

    def available(self, outputs: Sequence[Wire], seconds: Fraction) -> dict[Wire, int]:
        """Frames of each output that can be computed once every input has been heard for ``seconds``."""
        frames = {Wire(name, "out"): int(seconds * stream.rate) for name, stream in self._inputs.items()}
        for actor in self._actors:
            firings = min(frames[edge.read] // edge.consumes for edge in actor.edges)
            frames.update({wire: firings * produced for wire, produced in actor.produced})
        return {output: frames[output] for output in outputs}

    def oldest_input(self, outputs: Collection[Wire]) -> Fraction | None:
        """Time of the oldest input that the first hyperperiod of any output depends on, seconds (0 or less).

        A later frame never reaches further back than an earlier one, once what "any later frame" needs is counted in
        (``_reach``), so that frame 0 of each output decides for its whole hyperperiod: parallel branches with different
        quanta all begin anew there. ``None``: without bound.
        """
        if self._unbounded(outputs):
            return None
        oldest = dict.fromkeys(outputs, 0)
        for actor in reversed(self._actors):
            for port, wire in actor.wires.items():
                if wire not in oldest:
                    continue
                produced = actor.block.produces[port]
                firing, within = divmod(oldest.pop(wire), produced)
                reach = _reach(actor.block, within, produced)
                if reach is None:
                    return None
                for edge in actor.edges:
                    back = firing * edge.consumes + reach * edge.consumes // actor.block.quantum
                    oldest[edge.read] = min(back, oldest.get(edge.read, back))
        times = (frame / self._inputs[wire.node].rate for wire, frame in oldest.items())
        return min(times, default=Fraction(0))

    def _unbounded(self, outputs: Collection[Wire]) -> bool:
        """Whether a block that remembers without bound is on a way to an output: found before any frame is counted."""
        asked = set(outputs)
        for actor in reversed(self._actors):
            if not asked.isdisjoint(actor.wires.values()):
                if actor.block.receptive_field is None:
                    return True
                asked.update(actor.sources.values())
        return False


def _reach(block: StreamBlock, within: int, produced: int) -> int | None:
    """Oldest input frame that output frame ``within`` of a quantum, or any later frame, depends on."""
    own = [block.oldest_input(frame) for frame in range(produced)]
    bounded = [frame for frame in own if frame is not None]
    if len(bounded) < len(own):
        return None
    return min(*bounded[within:], min(bounded) + block.quantum)


def _largest(a: NDArray[np.int64], weight_a: Fraction, b: NDArray[np.int64], weight_b: Fraction) -> Fraction:
    """Exact maximum of ``a * weight_a - b * weight_b``."""
    common = math.lcm(weight_a.denominator, weight_b.denominator)
    times_a, times_b = int(weight_a * common), int(weight_b * common)
    exact = (int(a.max()) * times_a + int(b.max()) * times_b) < 2**62
    kind = np.int64 if exact else object
    return Fraction(int((a.astype(kind) * times_a - b.astype(kind) * times_b).max()), common)
