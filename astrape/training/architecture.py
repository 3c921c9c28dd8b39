"""A recipe in one piece, and sizes in it changed from the command line before anything is built."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from astrape.graph.recipe import Recipe
from astrape.graph.recipe.files import locate, read_file
from astrape.training.errors import TrainingError
from astrape.wording import suggest

__all__ = ["Change", "changed", "recipe_text", "standalone"]

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./ -]*")
WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"}


@dataclass(frozen=True)
class Change:
    """A parameter of a node, as the command line gives it.

    Attributes:
        flag: the option, for messages.
        node: the node's own name, such as ``transformer``, wherever in the trained part it is.
        parameter: the block's parameter.
        value: its new value.
    """

    flag: str
    node: str
    parameter: str
    value: Any


def standalone(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values, with every recipe that it nests written out in its place."""
    if recipe.located is None:
        raise TrainingError(f"'{recipe.name}' is not known as text: load it from a file")
    return _unfolded(recipe.located.value, recipe.located.source.base)


def recipe_text(values: Mapping[str, Any]) -> str:
    """YAML that recipes are read from as these values."""
    text: str = yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, width=120, default_flow_style=None)
    return text


def changed(recipe: Recipe, stage: str, changes: Iterable[Change]) -> tuple[Recipe, list[str]]:
    """A recipe with other sizes in the part that a stage trains.

    Returns:
        The recipe, itself where all values are what they were, and what is different, in words.

    Raises:
        TrainingError: for a node that the stage does not train, naming the flag.
        RecipeError: where the recipe cannot be with these values.
    """
    values = standalone(recipe)
    prefixes = [str(name).replace(".", "/") for name in dict(recipe.training.get(stage, {})).get("train", [])]
    said = []
    for change in changes:
        node = _node(recipe, values, prefixes, change)
        before = node.get(change.parameter)
        if before == change.value:
            continue
        node[change.parameter] = change.value
        was = "" if before is None else f" and not {_shown(before)}"
        said.append(f"{change.flag}: {change.node}.{change.parameter} is {_shown(change.value)}{was}")
    if not said:
        return recipe, []
    flags = ", ".join(dict.fromkeys(line.partition(":")[0] for line in said))
    return Recipe.parse(recipe_text(values), file=f"{recipe.source} with {flags}"), said


def _unfolded(values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    data = copy.deepcopy(dict(values))
    for section in (data.get("blocks"), dict(data.get("training") or {}).get("blocks")):
        for node in dict(section or {}).values():
            if node.get("use") == "graph":
                inner = node["recipe"]
                if isinstance(inner, str):
                    path = locate(inner, base)
                    node["recipe"] = _unfolded(read_file(path).data, path.parent)
                else:
                    node["recipe"] = _unfolded(inner, base)
                # Nested training sections have no part in the outer recipe.
                node["recipe"].pop("training", None)
    return data


def _node(recipe: Recipe, values: dict[str, Any], prefixes: list[str], change: Change) -> dict[str, Any]:
    trained = [
        node.name
        for node in recipe.nodes
        if not node.training and any(node.name == one or node.name.startswith(f"{one}/") for one in prefixes)
    ]
    found = [name for name in trained if name.rpartition("/")[2] == change.node]
    if len(found) != 1:
        names = [name.rpartition("/")[2] for name in trained]
        hint = suggest(change.node, names, "node") if not found else "write the recipe out"
        raise TrainingError(
            f"{change.flag}: '{recipe.name}' has {len(found)} nodes '{change.node}' in the part that is trained: {hint}"
        )
    *outer, last = found[0].split("/")
    blocks = values["blocks"]
    for name in outer:
        blocks = blocks[name]["recipe"]["blocks"]
    node: dict[str, Any] = blocks[last]
    return node


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


class _Dumper(yaml.SafeDumper):
    """Quotes all text that could be taken for a number or a word."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    plain = PLAIN.fullmatch(value) is not None and value.lower() not in WORDS and value == value.strip()
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


_Dumper.add_representer(str, _text)
