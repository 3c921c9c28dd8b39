"""Automatic alignment: where paths of different algorithmic latency meet, the earlier one is delayed."""

from __future__ import annotations

import math
from fractions import Fraction

from astrape.blocks.base import Stream
from astrape.blocks.plumbing import Delay
from astrape.errors import AlignmentError
from astrape.graph.compile.plan import PlannedNode, Wire
from astrape.graph.recipe.location import recipe_error
from astrape.graph.recipe.reach import reached

__all__ = ["align"]

MOST_TRIALS = 400
"""Delays tried to find one that fixes a recipe: each is a pass over the graph's latencies."""


def align(
    nodes: dict[str, PlannedNode], inputs: dict[str, Stream], loops: dict[str, int]
) -> tuple[dict[str, PlannedNode], dict[Wire, Fraction]]:
    """Insert the delays that make every fan-in meet at one algorithmic latency.

    Example: a dry path with latency 0 meets, at 44100 Hz, an STFT and its inverse of 1512 and 252 with latency
    1260/44100 s. The dry path gets a delay of 1260 frames, and what leaves the fan-in is 1260/44100 s old.

    A feedback edge is not a path from the input, and what has come only through one has no age to align: the loop's
    delay is part of its sound.

    Args:
        nodes: by name, in execution order.
        inputs: the graph's inputs, all at latency 0.
        loops: for each node in a feedback loop, the number of its loop.

    Returns:
        The nodes in execution order with the inserted delays among them, and the latency of every wire in seconds.

    Raises:
        AlignmentError: where the difference is not a whole number of frames, with the delay that would make it one.
    """
    latency: dict[Wire, Fraction | None] = {Wire(name, "out"): Fraction(0) for name in inputs}
    streams = {Wire(name, "out"): stream for name, stream in inputs.items()}
    for node in nodes.values():
        streams.update(node.output_streams())
    aligned: dict[str, PlannedNode] = {}
    for node in nodes.values():
        age: dict[str, Fraction] = {}
        for port, read in node.sources.items():
            known = None if _feeds_back(node, read, nodes, loops) else latency[read]
            if known is not None:
                age[port] = known
        latest = max(age.values(), default=None)
        for port in [port for port in age if age[port] != latest]:
            assert latest is not None
            read, early = node.sources[port], latest - age[port]
            frames = early * streams[read].rate
            if frames.denominator != 1:
                late = next(node.sources[other] for other in age if age[other] == latest)
                raise _refusal(node, read, late, early, _Ages(aligned, nodes, inputs, loops))
            delay = _delay(node, port, int(frames), streams[read])
            if node.name in loops and loops.get(read.node) == loops[node.name]:
                loops[delay.name] = loops[node.name]
            aligned[delay.name] = delay
            streams.update(delay.output_streams())
            node.sources[port] = Wire(delay.name, "out")
            latency[node.sources[port]] = latest
        aligned[node.name] = node
        for port, own in node.block.latencies.items():
            latency[Wire(node.name, port)] = None if latest is None else latest + own
    return aligned, {wire: age or Fraction(0) for wire, age in latency.items()}


def _feeds_back(node: PlannedNode, read: Wire, nodes: dict[str, PlannedNode], loops: dict[str, int]) -> bool:
    reads = nodes.get(read.node)
    inside = node.name in loops and loops.get(read.node) == loops[node.name]
    return inside and not node.cut and reads is not None and reads.cut


def _delay(node: PlannedNode, port: str, frames: int, stream: Stream) -> PlannedNode:
    read = node.sources[port]
    name = f"{node.name}/align.{port}" if len(node.sources) > 1 else f"{node.name}/align"
    block = Delay(stream, frames=frames)
    return PlannedNode(name, "delay", block, {"in": read}, node.location, training=node.training, inserted=True)


def _refusal(node: PlannedNode, early: Wire, late: Wire, difference: Fraction, ages: _Ages) -> Exception:
    rate = ages.streams[early].rate
    return recipe_error(
        f"'{ages.written(early)}' and '{ages.written(late)}' meet {float(difference * 1000):.6g} ms apart, "
        f"which is {difference * rate} frames at {rate} Hz, not a whole number",
        node.location,
        node=node.name,
        hint=_hint(node, difference * rate, rate, ages),
        cls=AlignmentError,
    )


def _hint(node: PlannedNode, frames: Fraction, rate: Fraction, ages: _Ages) -> str:
    """The shortest delay, before one node above the refused one, that lets all fan-ins down to it meet.

    Example: 44.1 kHz against a path through 16 kHz that is 13/16000 s late, 35.83 frames. One more frame at 16 kHz adds
    2.75625; the smallest k with 13 + k a multiple of 160 is 147, so 147 frames at 16 kHz before the way back up.
    """
    # A delay makes the gap wider or narrower, and which of the two, only the trial tells.
    counts: dict[Fraction, set[int]] = {}
    trials: list[tuple[Fraction, int, str, str]] = []
    for name in ages.above(node.name):
        for port, read in ages.nodes[name].sources.items():
            if ages.inside(name, port):
                continue  # a delay there would be taken for one that closes the loop, and makes nothing late
            at = ages.streams[read].rate
            if at not in counts:
                found = (_whole_after(sign * frames, rate / at) for sign in (1, -1))
                counts[at] = {count for count in found if count is not None}
            trials += [(count / at, count, name, port) for count in counts[at]]
    trials.sort(key=lambda trial: trial[0])
    for _, count, name, port in trials[:MOST_TRIALS]:
        at = ages.streams[ages.nodes[name].sources[port]].rate
        if ages.meet(node.name, {(name, port): count / at}):
            beside = f", on what it reads from '{ages.read(name, port)}'" if len(ages.nodes[name].sources) > 1 else ""
            return f"insert a delay of {count} frames (at {at} Hz) before '{name}'{beside}"
    return f"choose windows and filters whose latency is a whole number of frames at {rate} Hz"


def _whole_after(frames: Fraction, ratio: Fraction) -> int | None:
    """The smallest count of at least 1 for which ``frames + count * ratio`` is a whole number; ``None`` if none is."""
    modulus = math.lcm(frames.denominator, ratio.denominator)
    step, start = int(ratio * modulus), int(frames * modulus)
    shared = math.gcd(step, modulus)
    if start % shared:
        return None
    reduced = modulus // shared
    count = -(start // shared) * pow(step // shared, -1, reduced) % reduced if reduced > 1 else 0
    return count or reduced


class _Ages:
    """The latencies that an alignment would find, were there a delay more; the delays inserted so far are seen through.

    Args:
        aligned: the nodes that have been aligned, in execution order, inserted delays among them.
        nodes: all nodes.
        loops: for each node in a feedback loop, the number of its loop.
    """

    def __init__(
        self,
        aligned: dict[str, PlannedNode],
        nodes: dict[str, PlannedNode],
        inputs: dict[str, Stream],
        loops: dict[str, int],
    ) -> None:
        self.nodes = nodes
        self.streams = {Wire(name, "out"): stream for name, stream in inputs.items()}
        for node in (*nodes.values(), *aligned.values()):
            self.streams.update(node.output_streams())
        self._inputs = inputs
        self._loops = loops
        self._aligned = aligned

    def written(self, read: Wire) -> Wire:
        """The wire that the recipe names where an inserted delay is read."""
        while read.node in self._aligned and self._aligned[read.node].inserted:
            read = self._aligned[read.node].sources["in"]
        return read

    def read(self, name: str, port: str) -> Wire:
        """The wire that a port reads by the recipe."""
        return self.written(self.nodes[name].sources[port])

    def inside(self, name: str, port: str) -> bool:
        """Whether a port reads a node of the feedback loop that its own node is in."""
        return name in self._loops and self._loops.get(self.read(name, port).node) == self._loops[name]

    def above(self, name: str) -> list[str]:
        """The nodes of the recipe that a node depends on, itself included, in execution order."""
        reads = {
            other: [self.written(read).node for read in node.sources.values()] for other, node in self.nodes.items()
        }
        wanted = reached([name], reads)
        return [other for other in self.nodes if other in wanted]

    def meet(self, last: str, extra: dict[tuple[str, str], Fraction]) -> bool:
        """Whether every fan-in down to the node ``last`` can be aligned with ``extra`` seconds at some ports."""
        latency: dict[Wire, Fraction | None] = {Wire(name, "out"): Fraction(0) for name in self._inputs}
        for node in self.nodes.values():
            ages = []
            for port in node.sources:
                read = self.read(node.name, port)
                known = None if _feeds_back(node, read, self.nodes, self._loops) else latency[read]
                if known is not None:
                    ages.append((known + extra.get((node.name, port), Fraction(0)), self.streams[read].rate))
            latest = max((age for age, _ in ages), default=None)
            if latest is not None and any(((latest - age) * rate).denominator != 1 for age, rate in ages):
                return False
            for port, own in node.block.latencies.items():
                latency[Wire(node.name, port)] = None if latest is None else latest + own
            if node.name == last:
                break
        return True
