"""The passes of the compiler: from a checked recipe to a plan that is proven to stream."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import networkx as nx

from astrape.blocks.base import Stream
from astrape.errors import CausalityError, RateError
from astrape.graph.compile.align import align
from astrape.graph.compile.build import build
from astrape.graph.compile.plan import Plan, PlannedNode, Wire, digraph
from astrape.graph.compile.schedule import period_of
from astrape.graph.recipe import Recipe
from astrape.graph.recipe.location import recipe_error
from astrape.graph.recipe.node import Control
from astrape.graph.recipe.reach import reached

__all__ = ["needed_nodes", "plan_recipe", "read_inputs", "refuse_lookahead", "used_controls"]


def plan_recipe(recipe: Recipe, *, training: bool = False) -> Plan:
    """Run the passes of the compiler over a checked recipe.

    In order: build the blocks and check rates and channels; find cycles without a delay; refuse look-ahead; align every
    fan-in.

    Args:
        recipe: checked.
        training: keep the training-only nodes, with the training outputs among the outputs.

    Raises:
        RecipeError: and its kinds ``CausalityError``, ``RateError``, ``AlignmentError``, with file, line and fix.
    """
    outputs = dict(recipe.outputs) | (dict(recipe.training_outputs) if training else {})
    kept = [node for node in recipe.nodes if training or not node.training]
    built = build(recipe, kept)
    wired = {}
    for name, reference in outputs.items():
        section = "outputs" if name in recipe.outputs else "training"
        wired[name] = built.resolve(reference, recipe.location_of(section, name), None)
    nodes = built.nodes if training else needed_nodes(built.nodes, wired)
    for node in nodes.values():
        try:
            period_of(node.block)
        except RateError as error:
            raise recipe_error(str(error), node.location, node.name, cls=RateError) from error
    inputs = read_inputs(recipe.inputs, nodes, wired)
    if not training:
        refuse_lookahead(nodes, inputs)
    loops = {name: number for name, number in built.loops.items() if name in nodes}
    aligned, latency = align(nodes, inputs, loops)
    return Plan(recipe.name, aligned, loops, inputs, used_controls(recipe.controls, aligned), wired, latency)


def needed_nodes(nodes: Mapping[str, PlannedNode], outputs: Mapping[str, Wire]) -> dict[str, PlannedNode]:
    """The nodes that an output depends on; proves that no training-only node is among those of a streaming graph."""
    reads = {name: [wire.node for wire in node.sources.values()] for name, node in nodes.items()}
    wanted = reached((wire.node for wire in outputs.values()), reads)
    needed = {name: node for name, node in nodes.items() if name in wanted}
    for node in needed.values():
        if node.training:
            message = "an output depends on this training-only node"
            raise recipe_error(message, node.location, node.name, cls=CausalityError)
    return needed


def read_inputs(
    inputs: Mapping[str, Stream], nodes: Mapping[str, PlannedNode], outputs: Mapping[str, Wire]
) -> dict[str, Stream]:
    """The inputs that something reads; one for training-only nodes alone is left out of the streaming graph."""
    read = {wire.node for node in nodes.values() for wire in node.sources.values()}
    read |= {wire.node for wire in outputs.values()}
    return {name: stream for name, stream in inputs.items() if name in read}


def used_controls(controls: Mapping[str, Control], nodes: Mapping[str, PlannedNode]) -> dict[str, Control]:
    """The controls that a node listens to; one for training-only nodes alone is left out of the streaming graph."""
    named = {outer for node in nodes.values() for outer in node.controls.values()}
    return {name: control for name, control in controls.items() if name in named}


def refuse_lookahead(nodes: Mapping[str, PlannedNode], inputs: Mapping[str, Stream]) -> None:
    """Refuse a block that looks ahead, with the path that leads to it.

    Raises:
        CausalityError: naming the path and the milliseconds.
    """
    for node in nodes.values():
        ahead = node.block.lookahead
        if ahead == 0:
            continue
        graph = digraph((name, [wire.node for wire in other.sources.values()]) for name, other in nodes.items())
        start = next((name for name in inputs if name in graph and nx.has_path(graph, name, node.name)), None)
        path = nx.shortest_path(graph, start, node.name) if start is not None else [node.name]
        far = "without bound" if ahead is None else f"{float(ahead * Fraction(1000)):.6g} ms"
        raise recipe_error(
            f"looks ahead {far}, on the path {' -> '.join(path)}",
            node.location,
            node.name,
            "choose a causal form of it, or move it into the training section",
            CausalityError,
        )
