"""An imported network as the text of a recipe."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from astrape.voice.checkpoint.part import NodeLine

__all__ = ["recipe_text"]

WIDTH = 118


def recipe_text(
    *,
    name: str,
    description: str,
    heading: Iterable[str],
    inputs: Mapping[str, Mapping[str, int]],
    speaker: int | None,
    groups: Mapping[str, Sequence[NodeLine]],
    outputs: Mapping[str, str],
) -> str:
    """A recipe in YAML, one line a node, in the style of those that ship with the package.

    Args:
        name, description: of the recipe.
        heading: paragraphs of the comment that it begins with.
        inputs: rate and channels of each.
        speaker: channels of the control ``speaker``, if there is one.
        groups: nodes in order, under the comment that each group begins with.
        outputs: what each refers to.
    """
    lines: list[str] = []
    for paragraph in heading:
        lines += [*textwrap.wrap(paragraph, WIDTH - 2, break_long_words=False), ""]
    lines = [f"# {line}".rstrip() for line in lines[:-1]]
    lines += [f"recipe: {name}", f"description: {description}", "inputs:"]
    lines += [f"  {key}: {_value(dict(stream))}" for key, stream in inputs.items()]
    if speaker is not None:
        lines += ["controls:", f"  speaker: {{channels: {speaker}}}"]
    lines.append("blocks:")
    for comment, nodes in groups.items():
        lines.append(f"  # {comment}")
        lines += [_node(node) for node in nodes]
    lines.append("outputs:")
    lines += [f"  {key}: {reference}" for key, reference in outputs.items()]
    return "\n".join(lines) + "\n"


def _node(node: NodeLine) -> str:
    line = f"  {node.name}: {_value({'use': node.use} | node.params)}"
    if not node.comment:
        return line
    beside = f"{line:<63} # {node.comment}"
    return beside if len(beside) <= WIDTH else f"  # {node.comment}\n{line}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    # YAML takes a number with an exponent for text unless it has a point too.
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text
