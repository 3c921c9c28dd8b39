"""Recipes: what YAML says, checked and flat, ready to be compiled.

A recipe is data. Reading one never runs code, and takes bounded time and memory whatever the file holds; everything
that is wrong with it is a ``RecipeError`` that names the file, the line, the node and the fix.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astrape.blocks.base import Stream
from astrape.graph.recipe.expand import expand
from astrape.graph.recipe.files import locate, read_file, shipped_recipes
from astrape.graph.recipe.location import FileLocation, recipe_error
from astrape.graph.recipe.node import Control, Expectation, Node, Reference
from astrape.graph.recipe.written import read_written
from astrape.graph.recipe.yaml_source import Located, YamlSource, read_dict, read_yaml

__all__ = ["Control", "Expectation", "FileLocation", "Node", "Recipe", "Reference", "recipe_error", "shipped_recipes"]


@dataclass(frozen=True)
class Recipe:
    """A graph to be compiled, without nesting or repeats.

    Attributes:
        name: what the recipe calls itself.
        inputs: streams by name, in the file's order.
        controls: by name; also those of nested recipes that have a default and no counterpart outside, under their
            node's path (``enc/gain``).
        nodes: in the file's order, training nodes last; only those that an output depends on.
        outputs, training_outputs: what each stands for: a node's output or an input of the graph.
        training: the training section but for its ``blocks`` and ``outputs``, as plain values.
        expectations: what nested recipes declare of their inputs.
        source: the file's name as messages give it.
        location: the place where the recipe begins.
        description: the recipe's own words on what it does.

    >>> text = '''
    ... recipe: half
    ... inputs: {mic: {rate: 44100, channels: 1}}
    ... blocks:
    ...   quieter: {use: gain, gain: 0.5}
    ... outputs: {wav: quieter}
    ... '''
    >>> Recipe.parse(text).nodes[0].sources
    (('in', Reference(node='mic', port=None)),)
    """

    name: str
    inputs: dict[str, Stream]
    controls: dict[str, Control]
    nodes: tuple[Node, ...]
    outputs: dict[str, Reference]
    training_outputs: dict[str, Reference]
    training: dict[str, Any]
    expectations: tuple[Expectation, ...]
    source: str
    location: FileLocation
    description: str = ""
    located: Located | None = field(default=None, repr=False, compare=False)

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe that ships with the package, by its name, or one from a YAML file.

        Raises:
            RecipeError: for an unknown name, with the nearest ones; for a file that cannot be read or is not a recipe.
        """
        path = locate(name_or_path, Path())
        return cls._of(read_file(path), path)

    @classmethod
    def parse(cls, text: str | bytes, file: str = "<string>", base: Path | None = None) -> Recipe:
        """Read a recipe from YAML text.

        Args:
            text: the YAML; bytes are UTF-8.
            file: the name that messages give.
            base: the folder that nested recipes are relative to; the current one when left out.

        Raises:
            RecipeError: with ``file``, line, node and hint.
        """
        return cls._of(read_yaml(text, file, base))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], base: Path | None = None) -> Recipe:
        """Take a recipe as Python values, in the form that YAML has. They are copied.

        Raises:
            RecipeError: as ``parse`` does, without lines.
        """
        return cls._of(read_dict(data, base=base))

    @classmethod
    def _of(cls, source: YamlSource, origin: Path | None = None) -> Recipe:
        located = Located(source, source.data)
        written = read_written(located)
        flat = expand(written, origin)
        return cls(
            name=written.name,
            inputs=written.inputs,
            controls=flat.controls,
            nodes=flat.nodes,
            outputs=flat.outputs,
            training_outputs=flat.training_outputs,
            training=written.training,
            expectations=flat.expectations,
            source=source.file,
            location=located.location,
            description=written.description,
            located=located,
        )

    def location_of(self, *keys: str) -> FileLocation:
        """The place of what these keys lead to, such as ``("outputs", "wav")``, or of the nearest thing around it."""
        return self.location if self.located is None else self.located.location_of(*keys)
