"""Building the blocks of a flat recipe: references resolved, feedback loops opened, rates and channels checked."""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx

from astrape.blocks.base import Stream
from astrape.blocks.plumbing import Delay
from astrape.blocks.registry import block_class
from astrape.errors import AstrapeError, CausalityError, RateError
from astrape.graph.compile.budget import memory_budget
from astrape.graph.compile.clocks import strange_time
from astrape.graph.compile.params import build_block
from astrape.graph.compile.plan import PlannedNode, Wire, digraph, execution_order
from astrape.graph.recipe import Recipe
from astrape.graph.recipe.location import FileLocation, recipe_error, suggest
from astrape.graph.recipe.node import Node, Reference
from astrape.graph.recipe.written import recipe_number

__all__ = ["Built", "build"]


class Built:
    """The built blocks of a recipe.

    Attributes:
        nodes: by name, in an order in which each comes after all that it reads, feedback aside.
        streams: the stream of every wire.
        loops: for each node in a feedback loop, the number of its loop.
    """

    def __init__(self, recipe: Recipe, nodes: Iterable[Node]) -> None:
        self.nodes: dict[str, PlannedNode] = {}
        self.loops: dict[str, int] = {}
        self.streams = {Wire(name, "out"): stream for name, stream in recipe.inputs.items()}
        self._unbuilt = {node.name: node for node in nodes}
        self._place = {name: place for place, name in enumerate(self._unbuilt)}
        self._leading = dict(recipe.inputs)
        self._recipe = recipe
        self._entering: dict[int, list[str]] = {}
        self._delays = {name for name, node in self._unbuilt.items() if _is_delay(node)}

    def resolve(self, reference: Reference, location: FileLocation, node: str | None) -> Wire:
        """The wire a reference means.

        Raises:
            RecipeError: for a port that is not there, or left out where there are several.
        """
        planned = self.nodes.get(reference.node)
        if planned is None:
            return Wire(reference.node, reference.port or "out")
        ports = planned.block.outputs
        if reference.port is None and len(ports) == 1:
            return Wire(reference.node, next(iter(ports)))
        if reference.port is None:
            choices = ", ".join(f"{reference.node}.{port}" for port in ports)
            raise recipe_error(f"'{reference.node}' has several outputs", location, node, f"name one of {choices}")
        if reference.port not in ports:
            hint = suggest(reference.port, ports, "output")
            raise recipe_error(f"'{reference.node}' has no output '{reference.port}'", location, node, hint)
        return Wire(reference.node, reference.port)

    def run(self) -> None:
        """Build every node."""
        reads = {name: [reference.node for _, reference in node.sources] for name, node in self._unbuilt.items()}
        self._find_loops(digraph(reads.items()))
        order = self._order(reads)
        with memory_budget():
            for name in order:
                self._build(self._unbuilt[name])
        for name in self.loops:
            if name in self._delays:
                self._close(name)

    def _find_loops(self, graph: nx.DiGraph[str]) -> None:
        for component in nx.strongly_connected_components(graph):
            name = next(iter(component))
            if len(component) == 1 and not graph.has_edge(name, name):
                continue
            number = len(self._entering)
            self.loops.update(dict.fromkeys(component, number))
            entering = {s for m in component for s in graph.predecessors(m) if s not in component}
            self._entering[number] = sorted(entering)
            body = graph.subgraph(component - self._delays)
            first = self._first(component)
            if not nx.is_directed_acyclic_graph(body):
                cycle = [edge[0] for edge in nx.find_cycle(body)]
                path = " -> ".join([*cycle, cycle[0]])
                hint = f"put a delay of at least one frame into it, between '{cycle[-1]}' and '{cycle[0]}'"
                raise recipe_error(f"a cycle without a delay: {path}", first.location, first.name, hint, CausalityError)
            if not body or not entering:
                raise recipe_error(
                    f"nothing enters the loop through {', '.join(repr(n) for n in sorted(component))}",
                    first.location,
                    first.name,
                    "add what it is to repeat, with a block such as 'add'",
                )

    def _order(self, reads: dict[str, list[str]]) -> list[str]:
        """Build order: a loop is opened behind its delays, and entered after all that feeds it is built."""
        graph = digraph(reads.items())
        for name, number in self.loops.items():
            for read in reads[name]:
                if name not in self._delays and read in self._delays and self.loops.get(read) == number:
                    graph.remove_edge(read, name)
                    graph.add_edges_from((source, name) for source in self._entering[number])
        return execution_order(graph, self._unbuilt)

    def _build(self, node: Node) -> None:
        wires: dict[str, Wire] = {}
        for port, reference in node.sources:
            if self._opens(node, reference):
                self._assume(reference.node)
            wires[port] = self.resolve(reference, node.location_of("from"), node.name)
        streams = {port: self.streams[wire] for port, wire in wires.items()}
        block = build_block(node, streams["in"] if set(streams) == {"in"} else streams)
        if wrong := strange_time(block):
            raise recipe_error(wrong, node.location, node.name, cls=RateError)
        scope = {name: node.controls.get(name, name) for name in block.controls}
        for name, channels in block.controls.items():
            self._check_control(node, name, channels)
        sources = dict(zip(block.inputs, wires.values(), strict=True))
        cut = node.name in self._delays and node.name in self.loops
        planned = PlannedNode(node.name, node.use, block, sources, node.location, scope, node.training, cut=cut)
        self.nodes[node.name] = planned
        for wire, stream in planned.output_streams():
            self._leading.setdefault(node.name, self.streams.setdefault(wire, stream))

    def _opens(self, node: Node, reference: Reference) -> bool:
        number = self.loops.get(node.name)
        return number is not None and reference.node in self._delays and self.loops.get(reference.node) == number

    def _assume(self, delay: str) -> None:
        """Assume that a loop's delay carries a stream like the one that enters the loop, unless it says otherwise."""
        wire = Wire(delay, "out")
        if wire in self.streams:
            return
        node = self._unbuilt[delay]
        entering = self._entering[self.loops[delay]][0]
        like = self._leading[entering]
        try:
            rate = recipe_number(node.params["rate"]) if "rate" in node.params else like.rate
            self._leading[delay] = self.streams[wire] = Stream(rate, int(node.params.get("channels", like.channels)))
        except (ValueError, TypeError, OverflowError, AstrapeError) as error:
            raise recipe_error(
                str(error), node.location, delay, "give `rate` in Hz and `channels` as numbers"
            ) from error

    def _close(self, name: str) -> None:
        """Check that what reaches a loop's delay is what was assumed to come out of it."""
        planned, wire = self.nodes[name], Wire(name, "out")
        if not isinstance(planned.block, Delay) or planned.block.frames < 1:
            raise recipe_error(
                "a cycle whose delay has no frames",
                planned.location,
                name,
                "make it at least one frame",
                CausalityError,
            )
        if self.streams[wire] != planned.block.output:
            real, taken = planned.block.output, self.streams[wire]
            raise recipe_error(
                f"the loop's delay gets {real.channels} channels at {real.rate} Hz and was taken for "
                f"{taken.channels} channels at {taken.rate} Hz",
                planned.location,
                name,
                f"give it `rate: {real.rate}` and `channels: {real.channels}`",
                RateError,
            )

    def _check_control(self, node: Node, name: str, channels: int) -> None:
        outer = node.controls.get(name)
        declared = self._recipe.controls.get(outer) if outer is not None else None
        if declared is None:
            hint = suggest(name, node.controls, "control") if node.controls else f"declare it under controls: {name}"
            raise recipe_error(f"there is no control '{name}'", node.location, node.name, hint)
        if declared.channels != channels:
            raise recipe_error(
                f"control '{name}' has {declared.channels} channels, and {channels} are needed",
                node.location,
                node.name,
                f"declare it with channels: {channels}",
                RateError,
            )

    def _first(self, names: Iterable[str]) -> Node:
        return self._unbuilt[min(names, key=self._place.__getitem__)]


def build(recipe: Recipe, nodes: Iterable[Node]) -> Built:
    """Build the blocks of ``nodes`` on the streams they read.

    Raises:
        RecipeError: for what a block refuses, unknown ports and controls, and what a nested recipe did not expect.
        CausalityError: for a cycle without a delay.
    """
    built = Built(recipe, nodes)
    built.run()
    for expected in recipe.expectations:
        reference = expected.reference
        if reference.node not in built.nodes and reference.node not in recipe.inputs:
            continue
        real = built.streams[built.resolve(reference, expected.location, expected.node)]
        if real != expected.stream:
            raise recipe_error(
                f"'{reference}' has {real.channels} channels at {real.rate} Hz, and input '{expected.input}' "
                f"({expected.declared}) takes {expected.stream.channels} channels at {expected.stream.rate} Hz",
                expected.location,
                expected.node,
                "resample or mix it first, or change what the nested recipe declares",
                RateError,
            )
    return built


def _is_delay(node: Node) -> bool:
    """Whether a node can close a feedback loop: a delay, unless it says that it has no frames."""
    try:
        if not issubclass(block_class(node.use), Delay):
            return False
    except AstrapeError:
        return False
    try:
        return all(recipe_number(node.params[length]) != 0 for length in ("frames", "ms") if length in node.params)
    except ValueError:
        return True  # whatever is wrong with the length, the delay itself says so better
