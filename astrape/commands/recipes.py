"""``astrape recipes``: the blocks and recipes that can be used."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import command, json_option, print_json, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from astrape.blocks.base import StreamBlock

__all__ = ["recipes"]


@command(
    "recipes",
    "astrape recipes\nastrape recipes --blocks\nastrape recipes --block stft",
    short="List recipes and blocks, or all about one block.",
)
@click.option("--blocks", is_flag=True, help="List the blocks that recipes can use, with their parameters.")
@click.option("--block", "one", metavar="NAME", help="All about one block: parameters, shapes, latency, sources.")
@json_option
def recipes(blocks: bool, one: str | None, as_json: bool) -> None:
    """List the recipes that come with astrape, or the blocks to make your own from."""
    from astrape.blocks.registry import block_names
    from astrape.graph.recipe import shipped_recipes

    if one is not None:
        if blocks:
            raise click.UsageError("--blocks lists all and --block shows one: give either")
        _show_block(one, as_json)
        return
    listed = [_block(name) for name in block_names()] if blocks else [_recipe(name) for name in shipped_recipes()]
    if as_json:
        print_json(listed)
        return
    print_table(_table_of_blocks(listed) if blocks else _table_of_recipes(listed))


def _table_of_blocks(listed: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("block", no_wrap=True)
    for head in ("what it does", "parameters (with their defaults)"):
        table.add_column(head, overflow="fold")
    for entry in listed:
        table.add_row(entry["name"], entry["summary"], ", ".join(map(_shown, entry["parameters"])))
    return table


def _table_of_recipes(listed: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("recipe", no_wrap=True)
    for head in ("what it does", "inputs", "outputs", "controls"):
        table.add_column(head, overflow="fold")
    for entry in listed:
        inputs = ", ".join(f"{name} {stream['rate']} Hz" for name, stream in entry["inputs"].items())
        texts = (inputs, ", ".join(entry["outputs"]), ", ".join(entry["controls"]))
        table.add_row(entry["name"], entry["description"], *texts)
    return table


def _show_block(name: str, as_json: bool) -> None:
    from astrape.blocks.registry import block_class

    entry = _block(name) | {"documentation": _plain(block_class(name))}
    if as_json:
        print_json(entry)
        return
    click.echo(f"{name}: {entry['class']}, takes {entry['inputs']} input{'s' * (entry['inputs'] == 'several')}\n")
    rows = [(_shown(parameter), parameter["type"]) for parameter in entry["parameters"]]
    width = max((len(shown) for shown, _ in rows), default=0)
    for shown, kind in rows:
        click.echo(f"  {shown:{width}}  {kind}".rstrip())
    if rows:
        click.echo()
    click.echo(entry["documentation"])


def _recipe(name: str) -> dict[str, Any]:
    from astrape.graph.recipe import Recipe, shipped_recipes

    recipe = Recipe.load(name)
    return {
        "name": name,
        "description": " ".join(recipe.description.split()),
        "path": str(shipped_recipes()[name]),
        "inputs": {key: {"rate": str(s.rate), "channels": s.channels} for key, s in recipe.inputs.items()},
        "outputs": list(recipe.outputs),
        "controls": {
            key: {"channels": c.channels, "default": c.default, "min": c.minimum, "max": c.maximum, "unit": c.unit}
            for key, c in recipe.controls.items()
        },
    }


def _block(name: str) -> dict[str, Any]:
    from astrape.blocks.registry import block_class

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
    return " ".join(_plain(cls).partition("\n\n")[0].split()).removesuffix("::")


def _plain(cls: type[StreamBlock]) -> str:
    """A class's own docstring without the marks of reStructuredText."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "").replace("``", "")
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("::\n", ":\n")


def _value(default: Any) -> Any:
    return default if isinstance(default, (bool, int, float, str, list, type(None))) else str(default)


def _shown(parameter: dict[str, Any]) -> str:
    return parameter["name"] if parameter["required"] else f"{parameter['name']}={parameter['default']}"
