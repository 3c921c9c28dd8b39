"""One recipe as it is written: its sections checked, nothing expanded yet."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from astrape.blocks.base import Stream
from astrape.blocks.parameters import exact_number
from astrape.errors import RateError
from astrape.graph.recipe.location import FileLocation, quote, recipe_error, suggest
from astrape.graph.recipe.node import Control
from astrape.graph.recipe.yaml_source import RECIPE_KEYS, Located, is_recipe

__all__ = ["WrittenNode", "WrittenRecipe", "read_written", "recipe_number"]

MOST_CHANNELS = 1 << 16
FASTEST_RATE = 10**9
FINEST_RATE = 10**6
MOST_NODES = 10_000
LONGEST_UNIT = 16

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REFERENCE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)?")
_CALL = ("self", "x")
_OWN_KEYS = ("use", "from", "repeat", "recipe", "controls")


@dataclass(frozen=True)
class WrittenNode:
    """A node as it is written.

    Attributes:
        sources: (input port, reference as text, its place), with a left out ``from`` filled in.
        recipe: what ``use: graph`` nests: a path or name, or the recipe itself as a mapping.
        controls: for ``use: graph``, control of the nested recipe to control of this one.
    """

    name: str
    use: str
    sources: tuple[tuple[str, str, FileLocation], ...]
    params: dict[str, Any]
    repeat: int
    recipe: Located | None
    controls: dict[str, str]
    training: bool
    location: FileLocation
    locations: dict[str, FileLocation]


@dataclass(frozen=True)
class WrittenRecipe:
    """A recipe's sections. ``outputs`` are references as text; ``training`` is that section without its graph."""

    located: Located
    name: str
    description: str
    inputs: dict[str, Stream]
    controls: dict[str, Control]
    nodes: tuple[WrittenNode, ...]
    outputs: dict[str, str]
    training_outputs: dict[str, str]
    training: dict[str, Any]


def read_written(located: Located, name: str | None = None) -> WrittenRecipe:
    """Check one recipe's form.

    Args:
        located: the recipe.
        name: what it is called when it does not say so itself; ``None``: it has to say.

    Raises:
        RecipeError: with the line and the hint.
    """
    if located.value is None:
        raise recipe_error(
            "there is nothing in it", located.location, hint=f"a recipe has the keys {', '.join(RECIPE_KEYS)}"
        )
    if name is None and not is_recipe(located.value):
        known: dict[type, str] = {dict: "a mapping", list: "a list", str: "text"}
        held = known.get(type(located.value), "a single value")
        keys = " without any of these keys" if isinstance(located.value, dict) else ""
        raise recipe_error(
            f"this is not a recipe: it holds {held}{keys}",
            located.location,
            hint=f"a recipe has {', '.join(RECIPE_KEYS)}",
        )
    required = RECIPE_KEYS if name is None else RECIPE_KEYS[1:]
    entries = _entries(located, "a recipe", required, ("recipe", "description", "controls", "training"))
    if "recipe" in entries:
        name = _name(entries["recipe"], "the recipe's name")
    description = _text(entries["description"], "description") if "description" in entries else ""
    inputs = {key: _input(key, at) for key, at in _named(entries["inputs"], "inputs", "input").items()}
    if not inputs:
        raise recipe_error(
            "there are no inputs", entries["inputs"].location, hint="add one: mic: {rate: 44100, channels: 1}"
        )
    controls = {}
    if "controls" in entries:
        controls = {key: _control(key, at) for key, at in _named(entries["controls"], "controls", "control").items()}
    written_nodes = _written_nodes(entries["blocks"], tuple(inputs), training=False)
    outputs = _outputs(entries["outputs"])
    if not outputs:
        raise recipe_error("there are no outputs", entries["outputs"].location, hint="add one: NAME: NODE")
    training: dict[str, Any] = {}
    training_outputs: dict[str, str] = {}
    if "training" in entries:
        section = _mapping(entries["training"], "training")
        training = {key: at.value for key, at in section.items() if key not in ("blocks", "outputs")}
        if "blocks" in section:
            written_nodes += _written_nodes(section["blocks"], (), training=True)
        if "outputs" in section:
            training_outputs = _outputs(section["outputs"])
    assert name is not None
    _check_clashes(written_nodes, inputs, located)
    return WrittenRecipe(
        located, name, description, inputs, controls, tuple(written_nodes), outputs, training_outputs, training
    )


def recipe_number(value: Any) -> Fraction:
    """A number of a recipe without rounding: as blocks take exact numbers, or a float, which YAML makes of a decimal.

    A float is taken as the shortest decimal that stands for it, which is its text for up to 15 digits, more than a
    rate can have here.

    Raises:
        ValueError: for anything else, infinities and NaN included.
    """
    if isinstance(value, float) and math.isfinite(value):
        return Fraction(float.__repr__(value))
    try:
        return exact_number("it", value)
    except ValueError:
        raise ValueError(f"{quote(value)} is not a number: write 44100, 44100.5 or '200/3'") from None


def _mapping(located: Located, what: str, node: str | None = None) -> dict[str, Located]:
    if not isinstance(located.value, dict):
        raise recipe_error(
            f"{what} is {quote(located.value)}, not a mapping", located.location, node, "write it as key: value"
        )
    return {key: located.at(key) for key in located.value}


def _entries(located: Located, what: str, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Located]:
    entries = _mapping(located, what)
    known = (*required, *optional)
    for key, at in entries.items():
        if key not in known:
            raise recipe_error(f"{what} has no key {quote(key)}", at.location, None, suggest(key, known, "key"))
    for key in required:
        if key not in entries:
            raise recipe_error(f"{what} lacks the key '{key}'", located.location, None, f"add {key}: ...")
    return entries


def _named(located: Located, section: str, what: str) -> dict[str, Located]:
    entries = _mapping(located, section)
    for key, at in entries.items():
        _check_name(key, at.location, what)
    return entries


def _check_name(name: str, location: FileLocation, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise recipe_error(
            f"{what} {quote(name)} is not a name", location, hint="use 1 to 64 letters, digits, '_' and '-'"
        )


def _text(located: Located, what: str, node: str | None = None) -> str:
    if not isinstance(located.value, str):
        hint = "put quotes around it" if isinstance(located.value, (bool, int, float)) else "write a name or text"
        raise recipe_error(f"{what} is {quote(located.value)}, not text", located.location, node, hint)
    return located.value


def _name(located: Located, what: str) -> str:
    name = _text(located, what)
    _check_name(name, located.location, what)
    return name


def _count(located: Located, what: str, most: int, node: str | None = None) -> int:
    value = located.value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise recipe_error(f"{what} is {quote(value)}", located.location, node, f"give a whole number from 1 to {most}")
    return value


def _number(located: Located, what: str) -> float:
    value = located.value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise recipe_error(f"{what} is {quote(value)}", located.location, hint="give a finite number")
    return float(value)


def _unit(located: Located, what: str) -> str:
    text = _text(located, what)
    if not 1 <= len(text) <= LONGEST_UNIT or not text.isprintable() or text != text.strip():
        hint = f"give 1 to {LONGEST_UNIT} characters of one line, such as Hz, dB, % or semitones, or leave it out"
        raise recipe_error(f"{what} is {quote(text)}", located.location, hint=hint)
    return text


def _input(name: str, located: Located) -> Stream:
    what = f"input '{name}'"
    entries = _entries(located, what, ("rate", "channels"))
    location = entries["rate"].location
    try:
        rate = recipe_number(entries["rate"].value)
    except ValueError as error:
        raise recipe_error(f"{what}: rate {error}", location, cls=RateError) from None
    if rate <= 0:
        raise recipe_error(
            f"{what}: rate {rate} is not positive", location, hint="give a rate above 0 Hz", cls=RateError
        )
    if rate > FASTEST_RATE or rate.denominator > FINEST_RATE:
        raise recipe_error(
            f"{what}: rate {rate} Hz is out of range",
            location,
            hint=f"give at most {FASTEST_RATE} Hz, as a fraction with a denominator of at most {FINEST_RATE}",
            cls=RateError,
        )
    return Stream(rate, _count(entries["channels"], f"{what}: channels", MOST_CHANNELS))


def _control(name: str, located: Located) -> Control:
    what = f"control '{name}'"
    if name in _CALL:
        hint = "choose another name: graph(x, NAME=value) is how controls are given"
        raise recipe_error(f"{what} has a name that Python calls use", located.location, hint=hint)
    entries = _entries(located, what, (), ("channels", "default", "min", "max", "unit"))
    channels = _count(entries["channels"], f"{what}: channels", MOST_CHANNELS) if "channels" in entries else 1
    bounds = {key: _number(entries[key], f"{what}: {key}") for key in ("min", "max") if key in entries}
    minimum, maximum = bounds.get("min"), bounds.get("max")
    if minimum is not None and maximum is not None and minimum > maximum:
        raise recipe_error(f"{what}: min {minimum} is above max {maximum}", located.location, hint="swap them")
    default: tuple[float, ...] | None = None
    if "default" in entries:
        at = entries["default"]
        if isinstance(at.value, list):
            default = tuple(_number(at.at(index), f"{what}: default") for index in range(len(at.value)))
            if len(default) != channels:
                raise recipe_error(
                    f"{what}: default has {len(default)} numbers for {channels} channels",
                    at.location,
                    hint="give one number, or one a channel",
                )
        else:
            default = (_number(at, f"{what}: default"),) * channels
        outside = [v for v in default if (minimum is not None and v < minimum) or (maximum is not None and v > maximum)]
        if outside:
            raise recipe_error(
                f"{what}: default {outside[0]} lies outside of min and max", at.location, hint="move one of them"
            )
    unit = _unit(entries["unit"], f"{what}: unit") if "unit" in entries else ""
    return Control(name, channels, default, minimum, maximum, located.location, unit)


def _outputs(located: Located) -> dict[str, str]:
    return {key: _reference(at, f"output '{key}'") for key, at in _named(located, "outputs", "output").items()}


def _reference(located: Located, what: str, node: str | None = None) -> str:
    text = _text(located, what, node)
    if not _REFERENCE.fullmatch(text):
        raise recipe_error(
            f"{what} reads {quote(text)}, which is not a reference", located.location, node, "write NODE or NODE.PORT"
        )
    return text


def _written_nodes(located: Located, inputs: Sequence[str], training: bool) -> list[WrittenNode]:
    """The nodes of a section. ``inputs`` is what the first of them can read when it does not say."""
    written_nodes: list[WrittenNode] = []
    for name, at in _named(located, "blocks", "node").items():
        before = (written_nodes[-1].name,) if written_nodes else inputs
        written_nodes.append(_written_node(name, at, before, training))
    return written_nodes


def _written_node(name: str, located: Located, before: Sequence[str], training: bool) -> WrittenNode:
    entries = _mapping(located, "it", name)
    if "use" not in entries:
        raise recipe_error("it lacks the key 'use'", located.location, name, "add use: BLOCK")
    use = _text(entries["use"], "use", name)
    if not 1 <= len(use) <= 64:
        raise recipe_error(f"use is {quote(use)}", entries["use"].location, name, "give a block's name")
    nested = use == "graph"
    if nested:
        for key, at in entries.items():
            if key not in _OWN_KEYS:
                hint = suggest(key, _OWN_KEYS, "key")
                raise recipe_error(f"a nested graph has no key {quote(key)}", at.location, name, hint)
        if "recipe" not in entries:
            hint = "add recipe: FILE.yaml, a shipped recipe's name, or a recipe as a mapping"
            raise recipe_error("a nested graph lacks the key 'recipe'", located.location, name, hint)
        if not isinstance(entries["recipe"].value, (str, dict)):
            found = quote(entries["recipe"].value)
            hint = "give a path, a shipped recipe's name, or a mapping"
            raise recipe_error(f"recipe is {found}", entries["recipe"].location, name, hint)
    else:
        for key in ("recipe", "controls"):
            if key in entries:
                hint = "remove it, or write use: graph"
                raise recipe_error(f"'{key}' belongs to nested graphs", entries[key].location, name, hint)
    controls: dict[str, str] = {}
    if "controls" in entries:
        renamed = _mapping(entries["controls"], "controls", name)
        controls = {key: _text(at, f"controls: {quote(key)}", name) for key, at in renamed.items()}
    repeat = _count(entries["repeat"], "repeat", MOST_NODES, name) if "repeat" in entries else 1
    sources = _sources(name, located, entries.get("from"), before, training)
    if repeat > 1 and len(sources) > 1:
        hint = "give it one input, or write the copies out"
        raise recipe_error(
            f"repeat makes a chain, and there are {len(sources)} inputs", entries["from"].location, name, hint
        )
    return WrittenNode(
        name=name,
        use=use,
        sources=sources,
        params={key: at.value for key, at in entries.items() if key not in _OWN_KEYS},
        repeat=repeat,
        recipe=entries.get("recipe"),
        controls=controls,
        training=training,
        location=located.location,
        locations={key: at.location for key, at in entries.items()},
    )


def _sources(
    name: str, located: Located, given: Located | None, before: Sequence[str], training: bool
) -> tuple[tuple[str, str, FileLocation], ...]:
    if given is None:
        if len(before) == 1:
            return (("in", before[0], located.location),)
        hint = f"add from: {before[0]}, or another of {', '.join(before[:12])}" if before else "add from: NODE"
        which = (
            "the first training node" if training else f"the first of the blocks, and there are {len(before)} inputs"
        )
        raise recipe_error(f"what does it read? It is {which}", located.location, name, hint)
    value = given.value
    if isinstance(value, dict):
        for port in value:
            if not _NAME.fullmatch(port):
                raise recipe_error(
                    f"from: {quote(port)} is not the name of an input",
                    given.at(port).location,
                    name,
                    "write PORT: NODE",
                )
    elif not isinstance(value, list):
        return (("in", _reference(given, "from", name), given.location),)
    if not value:
        raise recipe_error("from is empty", given.location, name, "name what it reads")
    keys: Iterable[str | int] = value if isinstance(value, dict) else range(len(value))
    paths = [given.at(key) for key in keys]
    return tuple((str(at.path[-1]), _reference(at, "from", name), at.location) for at in paths)


def _check_clashes(written_nodes: Sequence[WrittenNode], inputs: Iterable[str], located: Located) -> None:
    taken = {name: f"an input on {located.location_of('inputs', name)}" for name in inputs}
    for written in written_nodes:
        if written.name in taken:
            fault = f"the name is taken by {taken[written.name]}"
            raise recipe_error(fault, written.location, written.name, "choose another")
        taken[written.name] = f"a node on {written.location}"
