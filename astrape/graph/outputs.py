"""A graph with some of its outputs, which computes only what they need."""

from __future__ import annotations

from collections.abc import Sequence

from astrape.errors import StreamError
from astrape.graph.graph import Graph
from astrape.graph.recipe.reach import reached

__all__ = ["with_outputs"]


def with_outputs(graph: Graph, names: Sequence[str]) -> Graph:
    """The part of a graph that leads to the named outputs; it shares blocks and parameters with the whole.

    What an output is does not change, its latency included: delays that align a fan-in stay as they are.

    Raises:
        StreamError: for a name that is no output, and for none at all.
    """
    missing = [name for name in names if name not in graph.outputs]
    if missing or not names:
        asked = f"no output '{missing[0]}'" if missing else "to keep at least one output"
        raise StreamError(f"'{graph.name}' has {asked} (there is: {', '.join(graph.outputs)})")
    wired = {name: graph.wiring[name] for name in dict.fromkeys(names)}
    reads = {name: [signal.node for signal in node.sources.values()] for name, node in graph.nodes.items()}
    wanted = reached((signal.node for signal in wired.values()), reads)
    nodes = {name: node for name, node in graph.nodes.items() if name in wanted}
    listened = {outer for node in nodes.values() for outer in node.controls.values()}
    part = Graph(
        graph.name,
        nodes,
        {name: number for name, number in graph.loops.items() if name in nodes},
        {name: stream for name, stream in graph.inputs.items() if name in wanted},
        {name: control for name, control in graph.control_specs.items() if name in listened},
        wired,
        graph.signal_latency,
    )
    part.follow(graph)
    return part
