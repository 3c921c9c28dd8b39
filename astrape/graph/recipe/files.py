"""Recipe files: those that ship with the package, and those at a path."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from astrape.audio.places import local_file
from astrape.audio.stores import is_remote, plain
from astrape.graph.recipe.location import FileLocation, quote, recipe_error, suggest
from astrape.graph.recipe.yaml_source import LARGEST_FILE, YamlSource, read_yaml
from astrape.wording import reason_of

__all__ = ["locate", "read_file", "shipped_recipes"]


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("astrape") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def locate(
    name: str | os.PathLike[str], base: Path, location: FileLocation | None = None, node: str | None = None
) -> Path:
    """The file of a recipe: a shipped recipe's name, or a path relative to ``base``.

    A bare name means a shipped recipe first; a ``Path``, or text with a suffix or a separator, always means a file.
    Of a URL, what is in the store is copied to this machine.

    Raises:
        RecipeError: when there is none, or it is not a regular file, with the nearest names.
        PlaceError: for a store that cannot be read.
    """
    text = os.fspath(name)
    place = location or FileLocation(text[:200])
    if not isinstance(name, os.PathLike) and text in (shipped := shipped_recipes()):
        return shipped[text]
    if is_remote(plain(text)):
        return local_file(text)
    path = base / text
    try:
        if path.is_file():
            return path
        there = path.exists()
    except (OSError, ValueError):
        there = False
    if there:
        raise recipe_error(f"{quote(text)} is not a regular file", place, node, "name a YAML file")
    hint = suggest(Path(text).name.removesuffix(".yaml"), shipped_recipes(), "shipped recipe")
    raise recipe_error(
        f"there is no recipe {quote(text)}", place, node, f"check the path, or take a shipped one: {hint}"
    )


def read_file(path: Path, location: FileLocation | None = None, node: str | None = None) -> YamlSource:
    """Read a file of bounded size. That it cannot be opened is told at ``location``, or at the file itself."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise recipe_error(
            f"cannot read {quote(str(path))}: {reason_of(error)}", location or FileLocation(str(path)), node
        ) from None
    return read_yaml(content, str(path), path.parent)
