"""Automatic alignment: where paths of different algorithmic latency meet, the earlier one is delayed."""

from __future__ import annotations

from fractions import Fraction

import networkx as nx

from astrape.blocks.base import Stream
from astrape.blocks.plumbing import Delay
from astrape.errors import AlignmentError
from astrape.graph.plan import PlannedNode, Signal, digraph
from astrape.graph.recipe import recipe_error

__all__ = ["align"]

MOST_DELAY_SEARCHED = 100_000


def align(
    nodes: dict[str, PlannedNode], inputs: dict[str, Stream], loops: dict[str, int]
) -> tuple[dict[str, PlannedNode], dict[Signal, Fraction]]:
    """Insert the delays that make every fan-in meet at one algorithmic latency.

    Example: a dry path with latency 0 meets, at 44100 Hz, an STFT and its inverse of 1512 and 252 with latency
    1260/44100 s. The dry path gets a delay of 1260 frames, and what leaves the fan-in is 1260/44100 s old.

    A feedback edge is no path from the input, and what has come only through one has no age to align: the loop's delay
    is what it sounds like.

    Args:
        nodes: by name, in execution order.
        inputs: the graph's inputs, all at latency 0.
        loops: for each node in a feedback loop, the number of its loop.

    Returns:
        The nodes in execution order with the inserted delays among them, and the latency of every signal in seconds.

    Raises:
        AlignmentError: where the difference is no whole number of frames, with the delay that would make it one.
    """
    latency: dict[Signal, Fraction | None] = {Signal(name, "out"): Fraction(0) for name in inputs}
    streams = {Signal(name, "out"): stream for name, stream in inputs.items()}
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
                raise _refusal(node, read, late, early, nodes, streams)
            delay = _delay(node, port, int(frames), streams[read])
            if node.name in loops and loops.get(read.node) == loops[node.name]:
                loops[delay.name] = loops[node.name]
            aligned[delay.name] = delay
            streams.update(delay.output_streams())
            node.sources[port] = Signal(delay.name, "out")
            latency[node.sources[port]] = latest
        aligned[node.name] = node
        for port, own in node.block.latencies.items():
            latency[Signal(node.name, port)] = None if latest is None else latest + own
    return aligned, {signal: age or Fraction(0) for signal, age in latency.items()}


def _feeds_back(node: PlannedNode, read: Signal, nodes: dict[str, PlannedNode], loops: dict[str, int]) -> bool:
    reads = nodes.get(read.node)
    inside = node.name in loops and loops.get(read.node) == loops[node.name]
    return inside and not node.cut and reads is not None and reads.cut


def _delay(node: PlannedNode, port: str, frames: int, stream: Stream) -> PlannedNode:
    read = node.sources[port]
    name = f"{node.name}/align.{port}" if len(node.sources) > 1 else f"{node.name}/align"
    block = Delay(stream, frames=frames)
    return PlannedNode(name, "delay", block, {"in": read}, node.where, training=node.training, inserted=True)


def _refusal(
    node: PlannedNode,
    early: Signal,
    late: Signal,
    difference: Fraction,
    nodes: dict[str, PlannedNode],
    streams: dict[Signal, Stream],
) -> Exception:
    rate = streams[early].rate
    mend = _mend(early, late, difference, rate, nodes, streams)
    return recipe_error(
        f"'{early}' and '{late}' meet {float(difference * 1000):.6g} ms apart, "
        f"which is {difference * rate} frames at {rate} Hz and no whole number",
        node.where,
        node=node.name,
        mend=mend,
        cls=AlignmentError,
    )


def _mend(
    early: Signal,
    late: Signal,
    difference: Fraction,
    rate: Fraction,
    nodes: dict[str, PlannedNode],
    streams: dict[Signal, Stream],
) -> str:
    """The shortest delay, on an edge that only one of the two paths has, that makes the difference whole frames.

    Example: 44.1 kHz against a path through 16 kHz that is 13/16000 s late, 35.83 frames. One more frame at 16 kHz adds
    2.75625; the smallest k with 13 + k a multiple of 160 is 147, so 147 frames at 16 kHz before the way back up.
    """
    graph = digraph((node.name, [read.node for read in node.sources.values()]) for node in nodes.values())
    best: tuple[Fraction, int, str, Fraction] | None = None
    for path, other, sign in ((late, early, 1), (early, late, -1)):
        own = _upstream(graph, path.node) - _upstream(graph, other.node)
        for name in own & nodes.keys():
            for read in nodes[name].sources.values():
                at = streams[read].rate
                for frames in range(1, min((rate / at).denominator, MOST_DELAY_SEARCHED) + 1):
                    if ((difference + sign * frames / at) * rate).denominator == 1:
                        if best is None or frames / at < best[0]:
                            best = (frames / at, frames, name, at)
                        break
    if best is None:
        return f"choose windows and filters whose latency is a whole number of frames at {rate} Hz"
    _, frames, name, at = best
    return f"insert a delay of {frames} frames (at {at} Hz) before '{name}'"


def _upstream(graph: nx.DiGraph[str], name: str) -> set[str]:
    return {name} | (nx.ancestors(graph, name) if name in graph else set())
