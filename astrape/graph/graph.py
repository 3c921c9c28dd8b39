"""The graph: a network with all that is asked of one, and the two ways to get it, from a recipe or by its name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from astrape.audio.places import Where
from astrape.errors import CausalityError, RateError, RecipeError
from astrape.graph.compile.passes import plan_recipe
from astrape.graph.hosted import hosted
from astrape.graph.network import Network
from astrape.graph.recipe import Recipe
from astrape.graph.recipe.location import recipe_error
from astrape.graph.report import Report
from astrape.graph.report.notebook import graph_html, graph_line, graph_svg
from astrape.graph.session import Session
from astrape.graph.subgraph import without_training
from astrape.graph.typed import Out, Result, SeveralOutputs
from astrape.graph.weights import given_or_shipped, load_weights

__all__ = ["Graph", "compile", "load"]


class Graph(Network[Out]):
    """A compiled recipe. ``astrape.load`` and ``astrape.compile`` make it.

    ``graph(x, **controls)`` runs a whole sequence, ``graph.step`` whole quanta with explicit state, ``graph.stream()``
    any number of frames at a time.

    To a type checker it is ``Graph[Tensor]``, or ``Graph[dict[str, Tensor]]`` where there are several outputs: what
    ``graph(x)``, ``push`` and ``flush`` return. ``load`` and ``compile`` take a recipe for one with a single output,
    unless it is a shipped one or an annotation says otherwise.

    Attributes:
        name: the recipe's.
        nodes: the nodes in execution order, by flat name, the inserted delays among them.
        actors: what fires as one: a node, or a whole feedback loop.
        period: seconds after which the schedule repeats; ``quantum`` is this in frames of the first input.
        repetitions: firings of every actor in one period: the repetition vector.
        training_only: training-only nodes are present, and there is no ``step``.
        wiring: the wire behind each output.
        signal_latency: algorithmic latency of every wire, seconds.
    """

    def deploy(self) -> Graph[Out]:
        """The streaming graph, without the training-only nodes; it shares this graph's modules and parameters."""
        return without_training(self)

    def hosted(self, rate: Fraction | int | str) -> Graph[Out]:
        """The same graph for a host at another rate, its latencies exact and told at that rate.

        Audio inputs and outputs of other rates get resamplers (48 periods of the lower rate each way, 1.1 ms between
        44.1 and 48 kHz), which share in alignment and framing as every block does. Blocks and parameters are shared.

        Args:
            rate: of the host in Hz: an ``int``, a ``Fraction`` or a string.

        Raises:
            RateError: for a host below 4 kHz, and for a ratio of rates with no workable filter.

        >>> import astrape
        >>> graph = astrape.load("astrape-mini")
        >>> graph.host_samples, graph.hosted(48000).host_samples, graph.hosted(48000).rate_out
        (2204, 2505, Fraction(48000, 1))
        """
        return hosted(self, rate)

    def stream(
        self,
        batch_size: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        constant_latency: bool = False,
        chunk: int | Mapping[str, int] | None = None,
        backend: str | None = None,
        precision: str | None = None,
    ) -> Session[Out]:
        """A live session that takes any number of frames at a time, and ``chunk`` frames fastest. See ``Session``.

        It computes on the thread that pushes. Behind an audio callback, which may not wait, it is run by
        :class:`astrape.runtime.engine.Engine`, the one implementation of that.
        """
        return Session(self, batch_size, device, dtype, constant_latency, chunk, backend, precision)

    def report(self, measure: bool = False) -> Report:
        """The latency report; with ``measure`` the measured numbers stand beside the declared ones. See ``Report``."""
        return Report(self, measure=measure)

    def __repr__(self) -> str:
        return graph_line(self)

    def __str__(self) -> str:
        """The tree of modules, as of any ``nn.Module``."""
        return nn.Module.__repr__(self)

    def _repr_html_(self) -> str:
        return graph_html(self)

    def _repr_svg_(self) -> str | None:
        return graph_svg(self)


@overload
def load(
    recipe: SeveralOutputs, *, weights: Where | None = None, subset: bool = False, training: bool = False
) -> Graph[dict[str, Tensor]]: ...


@overload
def load(
    recipe: str | Path, *, weights: Where | None = None, subset: bool = False, training: bool = False
) -> Graph[Result]: ...


def load(recipe: str | Path, *, weights: Where | None = None, subset: bool = False, training: bool = False) -> Graph:
    """Load and compile a recipe.

    Args:
        recipe: the name of a shipped recipe, or the path of a YAML file.
        weights: a safetensors file with the graph's ``state_dict``, or the URL of one. Left out, those that ship with a
            shipped recipe, in a graph that is not for training; drawn at random where none ship.
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
        load_weights(graph, weights, subset=subset)
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
        RecipeError: and its kinds ``CausalityError``, ``RateError``, ``AlignmentError``, with file, line and hint.
    """
    _refuse_others(recipe)
    parsed = recipe if isinstance(recipe, Recipe) else Recipe.from_dict(recipe)
    plan = plan_recipe(parsed, training=training)
    try:
        return Graph(plan)
    except (CausalityError, RateError) as error:
        raise recipe_error(str(error), parsed.location, cls=type(error)) from error


def _refuse_others(given: object) -> None:
    if isinstance(given, (Recipe, Mapping)):
        return
    told, hint = f"a {type(given).__name__}", "give one of those"
    if isinstance(given, (str, os.PathLike)):
        told, hint = repr(os.fspath(given)[:80]), "astrape.load takes a file or the name of a shipped recipe"
    raise RecipeError(f"compile takes a recipe as a dict or a Recipe, not {told}: {hint}")
