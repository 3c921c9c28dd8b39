"""``astrape recipes``: what there is to compose with."""

from __future__ import annotations

import inspect
import re
from typing import Any

import click
from rich.table import Table

from astrape.blocks.base import StreamBlock
from astrape.blocks.registry import block_class, block_names
from astrape.commands.console import command, json_option, print_json, print_table
from astrape.graph.recipe import Recipe, shipped_recipes

__all__ = ["recipes"]


@command("recipes", "astrape recipes\nastrape recipes --blocks")
@click.option("--blocks", is_flag=True, help="List the blocks that recipes can use, with their parameters.")
@json_option
def recipes(blocks: bool, as_json: bool) -> None:
    """List the recipes that come with astrape, or the blocks to make your own from."""
    listed = [_block(name) for name in block_names()] if blocks else [_recipe(name) for name in shipped_recipes()]
    if as_json:
        print_json(listed)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    if blocks:
        for head in ("block", "what it does", "parameters (with their defaults)"):
            table.add_column(head, overflow="fold")
        for entry in listed:
            table.add_row(entry["name"], entry["summary"], ", ".join(map(_shown, entry["parameters"])))
    else:
        for head in ("recipe", "what it does", "inputs", "outputs", "controls"):
            table.add_column(head, overflow="fold")
        for entry in listed:
            inputs = ", ".join(f"{name} {stream['rate']} Hz" for name, stream in entry["inputs"].items())
            texts = (inputs, ", ".join(entry["outputs"]), ", ".join(entry["controls"]))
            table.add_row(entry["name"], entry["description"], *texts)
    print_table(table)


def _recipe(name: str) -> dict[str, Any]:
    recipe = Recipe.load(name)
    return {
        "name": name,
        "description": " ".join(recipe.description.split()),
        "path": str(shipped_recipes()[name]),
        "inputs": {key: {"rate": str(s.rate), "channels": s.channels} for key, s in recipe.inputs.items()},
        "outputs": list(recipe.outputs),
        "controls": {
            key: {"channels": c.channels, "default": c.default, "min": c.minimum, "max": c.maximum}
            for key, c in recipe.controls.items()
        },
    }


def _block(name: str) -> dict[str, Any]:
    cls = block_class(name)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[2:]
    return {
        "name": name,
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "summary": _summary(cls),
        "inputs": "several" if cls.variadic else "one",
        "parameters": [
            {
                "name": parameter.name,
                "type": parameter.annotation if isinstance(parameter.annotation, str) else "",
                "required": parameter.default is parameter.empty,
                "default": None if parameter.default is parameter.empty else _value(parameter.default),
            }
            for parameter in parameters
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ],
    }


def _summary(cls: type[StreamBlock]) -> str:
    """The first sentence of a class's own docstring."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "").partition("\n\n")[0]
    plain = re.sub(r":\w+:`([^`]*)`", r"\1", text.replace("``", ""))
    return " ".join(plain.split()).removesuffix("::")


def _value(default: Any) -> Any:
    return default if isinstance(default, (bool, int, float, str, list, type(None))) else str(default)


def _shown(parameter: dict[str, Any]) -> str:
    return parameter["name"] if parameter["required"] else f"{parameter['name']}={parameter['default']}"
