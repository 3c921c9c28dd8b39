"""Locations in recipe files, with which every complaint about a recipe begins."""

from __future__ import annotations

from dataclasses import dataclass

from astrape.errors import RecipeError
from astrape.wording import quote, suggest

__all__ = ["FileLocation", "quote", "recipe_error", "suggest"]

LONGEST_MESSAGE = 1500


@dataclass(frozen=True)
class FileLocation:
    """A line of a recipe file. ``str()`` gives ``voice.yaml:12``, or ``<dict>`` where there are no lines."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


def recipe_error(
    message: str,
    location: FileLocation,
    node: str | None = None,
    hint: str | None = None,
    cls: type[RecipeError] = RecipeError,
) -> RecipeError:
    """The error for a place in a recipe, in the one form that all of them have.

    >>> print(recipe_error("rate -1 is not positive", FileLocation("voice.yaml", 12), "down", "give a rate above 0"))
    voice.yaml:12: node 'down': rate -1 is not positive: give a rate above 0
    """
    parts = [str(location), f"node {quote(node)}" if node else "", message, hint or ""]
    text = " ".join(": ".join(part for part in parts if part).split())
    return cls(text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 3] + "...")
