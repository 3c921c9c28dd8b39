"""The compiler: from a recipe to a graph that is proven to stream, in the order of the time model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, overload

import networkx as nx
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.errors import CausalityError, RateError, RecipeError
from astrape.graph.compile.align import align
from astrape.graph.compile.build import Built, build
from astrape.graph.compile.plan import PlannedNode, Signal, digraph
from astrape.graph.compile.schedule import period_of
from astrape.graph.graph import Graph
from astrape.graph.recipe import Recipe
from astrape.graph.recipe.location import recipe_error
from astrape.graph.recipe.node import Control
from astrape.graph.recipe.reach import reached
from astrape.graph.typed import Out, Result, SeveralOutputs
from astrape.graph.weights import given_or_shipped, load_weights

__all__ = ["compile", "cut_training", "load"]


@overload
def load(
    recipe: SeveralOutputs, *, weights: str | Path | None = None, subset: bool = False, training: bool = False
) -> Graph[dict[str, Tensor]]: ...


@overload
def load(
    recipe: str | Path, *, weights: str | Path | None = None, subset: bool = False, training: bool = False
) -> Graph[Result]: ...


def load(
    recipe: str | Path, *, weights: str | Path | None = None, subset: bool = False, training: bool = False
) -> Graph:
    """Load and compile a recipe.

    Args:
        recipe: the name of a shipped recipe, or the path of a YAML file.
        weights: a safetensors file with the graph's ``state_dict``. Left out, those that ship with a shipped recipe, in
            a graph that is not for training; drawn at random where none ship.
        subset: the file may hold more than the graph, whose tensors must all be there under their names. So a part
            takes its weights from those of the whole where its nodes have the same paths, as ``astrape-vc-from-codes``
            does from those of ``astrape-vc``. Only the graph's own tensors are read.
        training: build the training-only nodes too; see ``compile``.

    Raises:
        RecipeError: for a recipe that cannot be read, or weights that do not fit it.
    """
    graph = compile(Recipe.load(recipe), training=training)
    if not training:
        weights = given_or_shipped(weights, recipe)
    if weights is not None:
        load_weights(graph, Path(weights), subset=subset)
    return graph


def compile(recipe: Recipe | Mapping[str, Any], *, training: bool = False) -> Graph[Result]:
    """Compile a recipe into a graph.

    In order: build the blocks and check rates and channels; solve the balance equations; refuse cycles without a delay
    and look-ahead; align every fan-in; derive framing, host latency and receptive field.

    Args:
        recipe: parsed, or as a dict of the same form as the YAML.
        training: keep the training-only nodes. Such a graph has ``forward`` alone, with the training outputs among its
            outputs; its ``deploy()`` is the graph that streams.

    Raises:
        RecipeError: and its kinds ``CausalityError``, ``RateError``, ``AlignmentError``, with file, line and mend.
    """
    _refuse_others(recipe)
    parsed = recipe if isinstance(recipe, Recipe) else Recipe.from_dict(recipe)
    outputs = dict(parsed.outputs) | (dict(parsed.training_outputs) if training else {})
    live = [node for node in parsed.nodes if training or not node.training]
    built = build(parsed, live)
    wired = {}
    for name, reference in outputs.items():
        section = "outputs" if name in parsed.outputs else "training"
        wired[name] = built.resolve(reference, parsed.where_of(section, name), None)
    nodes = built.nodes if training else _reaching(built.nodes, wired)
    for node in nodes.values():
        try:
            period_of(node.block)
        except RateError as error:
            raise recipe_error(str(error), node.where, node.name, cls=RateError) from error
    inputs = _heard(parsed.inputs, nodes, wired)
    if not training:
        _refuse_lookahead(nodes, inputs)
    return _assemble(parsed, built, nodes, inputs, wired)


def _refuse_others(given: object) -> None:
    if isinstance(given, (Recipe, Mapping)):
        return
    told, mend = f"a {type(given).__name__}", "give one of those"
    if isinstance(given, (str, os.PathLike)):
        told, mend = repr(os.fspath(given)[:80]), "astrape.load takes a file or the name of a shipped recipe"
    raise RecipeError(f"compile takes a recipe as a dict or a Recipe, not {told}: {mend}")


def cut_training(graph: Graph[Out]) -> Graph[Out]:
    """The streaming graph of a training graph; the nodes' blocks are shared.

    Raises:
        CausalityError: when what is left looks ahead.
    """
    training = {name for name, node in graph.nodes.items() if node.training}
    wired = {name: signal for name, signal in graph.wiring.items() if signal.node not in training}
    nodes = _reaching(graph.nodes, wired)
    inputs = _heard(graph.inputs, nodes, wired)
    _refuse_lookahead(nodes, inputs)
    loops = {name: number for name, number in graph.loops.items() if name in nodes}
    controls = _asked(graph.control_specs, nodes)
    live: Graph[Out] = Graph(graph.name, nodes, loops, inputs, controls, wired, graph.signal_latency)
    live.follow(graph)
    return live


def _assemble(
    recipe: Recipe, built: Built, nodes: dict[str, PlannedNode], inputs: dict[str, Stream], wired: dict[str, Signal]
) -> Graph:
    loops = {name: number for name, number in built.loops.items() if name in nodes}
    aligned, latency = align(nodes, inputs, loops)
    try:
        return Graph(recipe.name, aligned, loops, inputs, _asked(recipe.controls, aligned), wired, latency)
    except (CausalityError, RateError) as error:
        raise recipe_error(str(error), recipe.where, cls=type(error)) from error


def _reaching(nodes: Mapping[str, PlannedNode], outputs: Mapping[str, Signal]) -> dict[str, PlannedNode]:
    """The nodes that an output depends on; proves that no training-only node is among those of a streaming graph."""
    reads = {name: [signal.node for signal in node.sources.values()] for name, node in nodes.items()}
    wanted = reached((signal.node for signal in outputs.values()), reads)
    needed = {name: node for name, node in nodes.items() if name in wanted}
    for node in needed.values():
        if node.training:
            message = "an output depends on this training-only node"
            raise recipe_error(message, node.where, node.name, cls=CausalityError)
    return needed


def _heard(
    inputs: Mapping[str, Stream], nodes: Mapping[str, PlannedNode], outputs: Mapping[str, Signal]
) -> dict[str, Stream]:
    """The inputs that something reads; an input for training-only nodes alone is no input of the streaming graph."""
    read = {signal.node for node in nodes.values() for signal in node.sources.values()}
    read |= {signal.node for signal in outputs.values()}
    return {name: stream for name, stream in inputs.items() if name in read}


def _asked(controls: Mapping[str, Control], nodes: Mapping[str, PlannedNode]) -> dict[str, Control]:
    """The controls that a node listens to; one for training-only nodes alone is none of the streaming graph."""
    named = {outer for node in nodes.values() for outer in node.controls.values()}
    return {name: control for name, control in controls.items() if name in named}


def _refuse_lookahead(nodes: Mapping[str, PlannedNode], inputs: Mapping[str, Stream]) -> None:
    for node in nodes.values():
        ahead = node.block.lookahead
        if ahead == 0:
            continue
        graph = digraph((name, [signal.node for signal in other.sources.values()]) for name, other in nodes.items())
        start = next((name for name in inputs if name in graph and nx.has_path(graph, name, node.name)), None)
        path = nx.shortest_path(graph, start, node.name) if start is not None else [node.name]
        far = "without bound" if ahead is None else f"{float(ahead * Fraction(1000)):.6g} ms"
        raise recipe_error(
            f"looks ahead {far}, on the path {' -> '.join(path)}",
            node.where,
            node.name,
            "choose a causal form of it, or move it into the training section",
            CausalityError,
        )
