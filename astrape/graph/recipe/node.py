"""The parts of a flat recipe: nodes, references between them, controls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from astrape.blocks.base import Stream
from astrape.graph.recipe.location import FileLocation

__all__ = ["Control", "Expectation", "Node", "Reference"]


@dataclass(frozen=True)
class Reference:
    """A node's output, or one of the graph's inputs. ``str()`` gives it as recipes write it: ``split.0``.

    Attributes:
        node: the node's flat name, or the input's name.
        port: the output's name; ``None`` for the only output, and for a graph input.
    """

    node: str
    port: str | None = None

    def __str__(self) -> str:
        return self.node if self.port is None else f"{self.node}.{self.port}"


@dataclass(frozen=True)
class Control:
    """A value without a clock that the graph is given, as ``(batch, channels)``.

    Attributes:
        default: one number a channel, or ``None``: then it must be given.
        minimum, maximum: bounds for each channel; ``None``: unbounded.
        unit: what the numbers count, as it stands behind them, such as ``Hz``; empty where they count nothing.
    """

    name: str
    channels: int
    default: tuple[float, ...] | None
    minimum: float | None
    maximum: float | None
    location: FileLocation
    unit: str = ""


@dataclass(frozen=True)
class Node:
    """A block to be built, in a graph without nesting.

    Attributes:
        name: the flat path: ``down``; ``enc/conv`` inside the nested graph ``enc``; ``res/0``, ``res/1`` of a repeat.
        use: the name the block is registered under.
        sources: (input port, what it reads). The port is ``in`` where ``from`` is one name, ``0``, ``1``, ... where
            it is a list, and the key where it is a mapping.
        params: everything else in the node, as plain YAML values.
        training: true for a node that no output of the deployed graph depends on.
        controls: every control in the scope of the recipe the node stands in, to that control's name in the
            outermost recipe.
        location: the line of the node's name.
        locations: those of its single keys.
    """

    name: str
    use: str
    sources: tuple[tuple[str, Reference], ...]
    params: dict[str, Any]
    training: bool
    controls: dict[str, str]
    location: FileLocation
    locations: dict[str, FileLocation] = field(default_factory=dict, repr=False, compare=False)

    def location_of(self, key: str) -> FileLocation:
        """The place of a key of the node, or of the node where the key is not written."""
        return self.locations.get(key, self.location)


@dataclass(frozen=True)
class Expectation:
    """The declared stream of a nested recipe's input, to be compared with the one that reaches it.

    Attributes:
        node: the flat path of the nested graph.
        reference: what feeds the input.
        stream: the rate and channels that the nested recipe declares.
        location: the nested graph's node, in the outer file.
        input: the input's name in the nested recipe.
        declared: the place of the declaration, in the nested file.
    """

    node: str
    reference: Reference
    stream: Stream
    location: FileLocation
    input: str
    declared: FileLocation
