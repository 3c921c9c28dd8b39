"""The names by which recipes know blocks."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from astrape.blocks.base import StreamBlock
from astrape.errors import RecipeError
from astrape.named import Named

__all__ = ["block_class", "block_names", "register"]

GROUP = "astrape.blocks"

Block = TypeVar("Block", bound=type[StreamBlock])


_known: Named[StreamBlock] = Named("block", RecipeError)


def register(name: str) -> Callable[[Block], Block]:
    """Put a block class in reach of recipes as ``use: name``.

    A package makes its own blocks known without being imported by naming them in the entry-point group
    ``astrape.blocks``, where each entry is a name and the class or module that registers it.

    Raises:
        RecipeError: when another class already has the name. The same class may come again, as it does when a
            notebook cell runs twice.
    """
    return _known.register(name)


def block_class(name: str) -> type[StreamBlock]:
    """The class registered as ``name``, from this process or from an installed package's entry point.

    Raises:
        RecipeError: for an unknown name, with the nearest known ones.
    """
    if name not in _known and name in _entry_points():
        loaded = _entry_points()[name].load()
        if isinstance(loaded, type) and issubclass(loaded, StreamBlock) and name not in _known:
            _known.register(name)(loaded)
    if name not in _known:
        near = get_close_matches(name, block_names(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else "`astrape recipes --blocks` lists the known ones"
        raise RecipeError(f"unknown block '{name}': {hint}")
    return _known.find(name)


def block_names() -> list[str]:
    """All block names that recipes can use, sorted."""
    return sorted({*_known.names(), *_entry_points()})


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
