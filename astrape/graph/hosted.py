"""A graph for a host at another sample rate: the same graph between resamplers, aligned anew."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any, TypeVar

from astrape.blocks.base import Stream
from astrape.blocks.resample import Resampler, half_filter
from astrape.errors import AlignmentError, CausalityError, RateError
from astrape.graph.compile.align import align
from astrape.graph.compile.plan import Plan, PlannedNode, Wire
from astrape.graph.network import Network
from astrape.graph.recipe.location import FileLocation, recipe_error

__all__ = ["SLOWEST_AUDIO", "hosted", "is_audio_stream"]

SLOWEST_AUDIO = 4000
"""Hz; a stream below that, such as content at 25 Hz or a spectrum at 200 Hz, is not audio."""

ZEROS = 48
"""Zeros to each side of the resamplers' filter: 1.1 ms each way between 44.1 and 48 kHz, flat to 19.8 kHz, no alias."""


GraphLike = TypeVar("GraphLike", bound=Network[Any])


def is_audio_stream(stream: Stream) -> bool:
    """Whether a stream is audio, by its rate."""
    return stream.rate >= SLOWEST_AUDIO


def hosted(graph: GraphLike, rate: Fraction | int | str, *, zeros: int = ZEROS) -> GraphLike:
    """The graph with audio in and out at a host's rate; it shares blocks and parameters.

    Every input and output that is audio (4 kHz or more) and of another rate gets a resampler of its own; other outputs
    keep their rate. The compiler then aligns and counts the whole anew, so that latency, framing and host latency are
    as exact as ever, and are told at the host's rate. A resampler of an output adds the part of a frame with which the
    latency up to there is a whole number of the host's frames: a host compensates for whole frames only, and what it
    takes off is then the latency, and not nearly. (An output that has the host's rate without one keeps its part.)

    Args:
        graph: the streaming graph. One whose streams have the rate already is returned as it is.
        rate: of the host in Hz, exact.
        zeros: half the resamplers' filter in periods of the lower of two rates; see
            :class:`~astrape.blocks.resample.Resampler`.

    Raises:
        CausalityError: for a graph with training-only nodes.
        RateError: for a host below 4 kHz, and for one whose rate has no workable ratio to the graph's.
        AlignmentError: where paths from inputs of different rates meet a part of a frame apart behind the resamplers.
    """
    if graph.training_only:
        raise CausalityError(f"'{graph.name}' holds training-only nodes: host its deploy()")
    target = Stream(rate, 1).rate
    if target < SLOWEST_AUDIO:
        raise RateError(f"a host at {target} Hz: the rate must be {SLOWEST_AUDIO} Hz or more")
    streams = graph.plan.streams()

    # Nodes become attributes of torch modules, where a node "to" would hide the method that has that name.
    def differs(wire: Wire) -> bool:
        return is_audio_stream(streams[wire]) and streams[wire].rate != target

    entering = {name: _free(graph, f"host/in_{name}") for name in graph.inputs if differs(Wire(name, "out"))}
    leaving = {name: _free(graph, f"host/out_{name}") for name, wire in graph.wiring.items() if differs(wire)}
    if not entering and not leaving:
        return graph

    inputs = dict(graph.inputs)
    nodes: dict[str, PlannedNode] = {}
    moved: dict[Wire, Wire] = {}
    for name, added in entering.items():
        inputs[name] = Stream(target, graph.inputs[name].channels)
        nodes[added] = _resampler(graph, added, inputs[name], Wire(name, "out"), graph.inputs[name].rate, zeros)
        moved[Wire(name, "out")] = Wire(added, "out")
    loops = {name: number for name, number in graph.loops.items() if not graph.nodes[name].inserted}
    for node in graph.nodes.values():
        # Delays that aligned the graph are left out, and found anew: inputs of several rates come with several ages.
        if node.inserted:
            moved[Wire(node.name, "out")] = moved.get(node.sources["in"], node.sources["in"])
            continue
        sources = {port: moved.get(wire, wire) for port, wire in node.sources.items()}
        nodes[node.name] = replace(node, sources=sources)
    wiring = {name: moved.get(wire, wire) for name, wire in graph.wiring.items()}
    source = {name: streams[graph.wiring[name]] for name in leaving}

    try:
        aligned, latency = align(nodes, inputs, loops)
        for name, added in leaving.items():
            late = latency[wiring[name]] * target + half_filter(target / source[name].rate, zeros)
            shift = math.ceil(late) - late
            aligned[added] = _resampler(graph, added, source[name], wiring[name], target, zeros, shift)
            wiring[name] = Wire(added, "out")
            latency[wiring[name]] = (late + shift) / target
        return graph.part(Plan(graph.name, aligned, loops, inputs, graph.control_specs, wiring, latency))
    except (AlignmentError, RateError) as error:
        raise type(error)(f"'{graph.name}' for a host at {target} Hz: {error}") from error


def _free(graph: Network[Any], name: str) -> str:
    """A name that no node of the graph has."""
    while name in graph.nodes or name in graph.inputs:
        name += "_"
    return name


def _resampler(
    graph: Network[Any],
    name: str,
    source: Stream,
    read: Wire,
    rate: Fraction,
    zeros: int,
    shift: Fraction | int = 0,
) -> PlannedNode:
    where = FileLocation(graph.name)
    try:
        block = Resampler(source, rate=rate, zeros=zeros, shift=shift).to(graph.device, graph.dtype)
    except ValueError as error:
        hint = "take a rate that devices have, such as 44100, 48000 or 96000"
        raise recipe_error(f"no host at that rate: {error}", where, name, hint, cls=RateError) from error
    return PlannedNode(name, "resampler", block, {"in": read}, where)
