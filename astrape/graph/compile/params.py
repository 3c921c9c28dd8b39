"""Building a node's block: the class found, its parameters checked, its constructor kept in bounds."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from astrape.blocks.base import Stream, StreamBlock
from astrape.blocks.registry import block_class
from astrape.errors import AstrapeError, RecipeError
from astrape.graph.compile.budget import memory_budget
from astrape.graph.compile.coerce import Kind, Mismatch, kind_of
from astrape.graph.recipe.location import quote, recipe_error, suggest
from astrape.graph.recipe.node import Node

__all__ = ["build_block", "parameters_of"]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a block, as recipes give it."""

    name: str
    kind: Kind
    required: bool


def build_block(node: Node, source: Stream | Mapping[str, Stream]) -> StreamBlock:
    """Build the block that a node asks for, on its input.

    Args:
        node: a node of a recipe.
        source: the stream it reads, or the streams by input port where ``from`` is a list or a mapping. A block that
            takes several inputs and is given one gets it as port ``0``.

    Raises:
        RecipeError: for an unknown block, unknown, missing or ill-fitting parameters, inputs of the wrong form, and for
            whatever the constructor refuses or fails with, a tensor beyond the memory budget included. A
            ``RateError`` and its like stay what they are.
    """
    try:
        cls = block_class(node.use)
    except Exception as error:  # an entry point runs an import, which may fail in any way
        raise _failed(node, error, f"block {quote(node.use)} cannot be loaded", "use") from error
    given = _fitted(node, cls)
    inputs = _inputs(node, cls, source)
    try:
        with memory_budget() as budget, budget:
            block = cls(inputs, **given)
            budget.keep(block)
    except Exception as error:
        raise _failed(node, error, f"block '{node.use}' cannot be built", _named_in(str(error), node)) from error
    return block


def parameters_of(cls: type[StreamBlock]) -> dict[str, Parameter] | None:
    """The parameters that recipes can give a block; ``None`` where its constructor takes any (``**kwargs``)."""
    return _parameters(cls.__init__)


@lru_cache(maxsize=4096)
def _parameters(constructor: Callable[..., None]) -> dict[str, Parameter] | None:
    if constructor is StreamBlock.__init__:
        return {}
    listed = list(inspect.signature(constructor).parameters.values())[2:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in listed):
        return None
    try:
        hints = typing.get_type_hints(constructor, include_extras=True)
    except (NameError, TypeError, AttributeError):
        # Names that exist for type checkers only: the constructor has to look for itself.
        hints = {}
    return {
        parameter.name: Parameter(
            parameter.name, kind_of(hints.get(parameter.name, Any)), parameter.default is parameter.empty
        )
        for parameter in listed
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }


def _fitted(node: Node, cls: type[StreamBlock]) -> dict[str, Any]:
    known = parameters_of(cls)
    if known is None:
        return dict(node.params)
    given = {}
    for name, value in node.params.items():
        if name not in known:
            hint = suggest(name, known, "parameter")
            raise recipe_error(
                f"block '{node.use}' has no parameter {quote(name)}", node.location_of(name), node.name, hint
            )
        kind = known[name].kind
        try:
            given[name] = kind.take(value)
        except Mismatch as mismatch:
            fault = f"{name}{mismatch.path} is {mismatch.found}"
            raise recipe_error(fault, node.location_of(name), node.name, f"give {mismatch.expected}") from None
    for name, parameter in known.items():
        if parameter.required and name not in given:
            fault = f"block '{node.use}' lacks the parameter '{name}'"
            raise recipe_error(fault, node.location, node.name, f"add {name}: {parameter.kind.expected}")
    return given


def _inputs(node: Node, cls: type[StreamBlock], source: Stream | Mapping[str, Stream]) -> Stream | Mapping[str, Stream]:
    if cls.variadic:
        return {"0": source} if isinstance(source, Stream) else dict(source)
    if isinstance(source, Stream):
        return source
    if list(source) == ["in"]:
        return source["in"]
    given = ", ".join(str(reference) for _, reference in node.sources)
    fault = f"block '{node.use}' takes one input, and from gives {given}"
    hint = "write from: NODE" if len(source) == 1 else "name one, or join them first, with add or concat"
    raise recipe_error(fault, node.location_of("from"), node.name, hint)


def _failed(node: Node, error: Exception, what: str, key: str) -> RecipeError:
    """The error for what went wrong in code that is not the recipe's: a refusal keeps its own words."""
    location = node.location_of(key)
    if isinstance(error, MemoryError):
        return recipe_error(f"{what}: out of memory: {error}".rstrip(": "), location, node.name, "make it smaller")
    if isinstance(error, RecipeError):
        return recipe_error(str(error), location, node.name, cls=type(error))
    if isinstance(error, (AstrapeError, ValueError)) and str(error):
        return recipe_error(str(error), location, node.name)
    # Torch appends a C++ stack to some messages: the first line says what happened.
    first = str(error).strip().partition("\n")[0]
    return recipe_error(f"{what}: {type(error).__name__}: {first}".rstrip(": "), location, node.name)


def _named_in(message: str, node: Node) -> str:
    """The parameter that a message begins with, or else ``use``."""
    first = message.partition(" ")[0].strip("'\"`:,")
    return first if first in node.params else "use"
