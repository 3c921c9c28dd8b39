"""Nodes with their built blocks, the wires between them, and the whole plan that the compiler ends with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import networkx as nx

from astrape.blocks.base import Stream, StreamBlock
from astrape.graph.recipe.location import FileLocation
from astrape.graph.recipe.node import Control

__all__ = ["Plan", "PlannedNode", "Wire", "digraph", "execution_order"]


class Wire(NamedTuple):
    """The connection from one output port of a node, or from one input of the graph, to all that read it."""

    node: str
    port: str

    def __str__(self) -> str:
        return self.node if self.port == "out" else f"{self.node}.{self.port}"


@dataclass
class PlannedNode:
    """A node of the flat graph.

    Attributes:
        sources: for each input port, the wire it reads.
        controls: for each control the block listens to, the graph's name of it.
        training: cut away from the streaming graph.
        inserted: a delay that the compiler put in to align a fan-in.
        cut: a delay inside a feedback loop, whose input is what the loop's next iteration starts from.
    """

    name: str
    use: str
    block: StreamBlock
    sources: dict[str, Wire]
    location: FileLocation
    controls: dict[str, str] = field(default_factory=dict)
    training: bool = False
    inserted: bool = False
    cut: bool = False

    def output_streams(self) -> Iterator[tuple[Wire, Stream]]:
        """The node's output wires with their streams."""
        for port, stream in self.block.outputs.items():
            yield Wire(self.name, port), stream


@dataclass(frozen=True)
class Plan:
    """A compiled recipe before it is a graph that runs.

    Attributes:
        name: the recipe's.
        nodes: in execution order, by flat name, the inserted delays among them.
        loops: for each node in a feedback loop, the number of its loop.
        inputs: the stream of each.
        controls: what the nodes listen to, by name.
        wiring: the wire behind each output.
        signal_latency: algorithmic latency of every wire, seconds.
    """

    name: str
    nodes: dict[str, PlannedNode]
    loops: dict[str, int]
    inputs: dict[str, Stream]
    controls: dict[str, Control]
    wiring: dict[str, Wire]
    signal_latency: Mapping[Wire, Fraction]

    def streams(self) -> dict[Wire, Stream]:
        """The stream of every wire."""
        streams = {Wire(name, "out"): stream for name, stream in self.inputs.items()}
        for node in self.nodes.values():
            streams.update(node.output_streams())
        return streams


def digraph(sources: Iterable[tuple[str, Iterable[str]]], without_inputs_of: Iterable[str] = ()) -> nx.DiGraph[str]:
    """A networkx graph over names, with an edge from each node that is read to its reader.

    Args:
        sources: pairs of a node and the nodes (or graph inputs) that it reads.
        without_inputs_of: nodes whose incoming edges are left out (the delays that open a feedback loop).
    """
    opened = set(without_inputs_of)
    graph: nx.DiGraph[str] = nx.DiGraph()
    for name, reads in sources:
        graph.add_node(name)
        if name not in opened:
            graph.add_edges_from((read, name) for read in reads)
    return graph


def execution_order(graph: nx.DiGraph[str], names: Iterable[str]) -> list[str]:
    """Topological order, in the order of the recipe where the edges leave a choice."""
    rank = {name: index for index, name in enumerate(names)}
    return [n for n in nx.lexicographical_topological_sort(graph, key=lambda n: rank.get(n, -1)) if n in rank]
