"""Where in which file: the line that every complaint about a recipe begins with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from astrape.errors import RecipeError

__all__ = ["Where", "quote", "recipe_error", "suggest"]

LONGEST_NAME = 64
LONGEST_MESSAGE = 1500


@dataclass(frozen=True)
class Where:
    """A place in a recipe. ``str()`` gives ``voice.yaml:12``, or ``<dict>`` where there are no lines."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


def recipe_error(
    message: str,
    where: Where,
    node: str | None = None,
    mend: str | None = None,
    cls: type[RecipeError] = RecipeError,
) -> RecipeError:
    """The error for a place in a recipe, in the one form that all of them have.

    >>> print(recipe_error("rate -1 is not positive", Where("voice.yaml", 12), "down", "give a rate above 0"))
    voice.yaml:12: node 'down': rate -1 is not positive: give a rate above 0
    """
    parts = [str(where), f"node {quote(node)}" if node else "", message, mend or ""]
    text = " ".join(": ".join(part for part in parts if part).split())
    return cls(text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 3] + "...")


def suggest(name: str, known: Iterable[str], what: str) -> str:
    """The mend for an unknown name: the nearest known one, or all of them where they are few.

    >>> suggest("gian", ["gain", "delay"], "block")
    "did you mean 'gain'? (there is: delay, gain)"
    """
    names = sorted(set(known))
    if not names:
        return f"there is no {what} to choose from"
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    near = get_close_matches(name, names, n=1) if len(name) <= LONGEST_NAME else []
    return f"did you mean '{near[0]}'? (there is: {listed})" if near else f"there is: {listed}"


def quote(value: Any) -> str:
    """A value as a message shows it: on one line, escaped, and cut to a length that a person reads."""
    if isinstance(value, str):
        return repr(value if len(value) <= LONGEST_NAME else value[: LONGEST_NAME - 3] + "...")
    if isinstance(value, dict):
        return f"a mapping of {len(value)}" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    return str(value)[:LONGEST_NAME]
