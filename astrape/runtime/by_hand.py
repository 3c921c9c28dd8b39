"""A graph without its session, and the same steps without the graph: what machinery costs is measured against them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from astrape.graph.graph import Graph

__all__ = ["ByHand", "Call", "Sessionless", "recorded"]

Call = tuple[int, Any]
"""Index of an actor, and the input of one of its steps."""


class Sessionless:
    """The graph without a session around it."""

    def __init__(self, graph: Graph, controls: dict[str, Tensor | float]) -> None:
        self.graph = graph
        self.state = graph.init_state(1)
        self.waiting: dict[str, Tensor] = {}
        self.prepared = graph.prepare(graph.read_controls(controls, torch.zeros(1, 1, 1)))

    def advance(self, piece: dict[str, Tensor]) -> None:
        _, self.state, self.waiting = self.graph.advance(piece, self.state, self.waiting, self.prepared)


class ByHand:
    """The loop that a person would write: ``step`` of each block in order, its state handed on, and nothing else."""

    def __init__(self, graph: Graph, prepared: Mapping[str, Any]) -> None:
        self.blocks = [actor.block for actor in graph.actors]
        self.state = [block.init_state(1) for block in self.blocks]
        self.prepared = [prepared[actor.name] for actor in graph.actors]

    def call(self, index: int, x: Any) -> Any:
        y, self.state[index] = self.blocks[index].step(x, self.state[index], self.prepared[index])
        return y

    def run(self, calls: list[Call]) -> None:
        blocks, state, prepared = self.blocks, self.state, self.prepared
        for index, x in calls:
            _, state[index] = blocks[index].step(x, state[index], prepared[index])


@contextmanager
def recorded(graph: Graph, record: Callable[[Call], None]) -> Iterator[None]:
    """Tell ``record`` of every step of the graph's actors while the block runs."""

    def watched(index: int, step: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any, state: Any, controls: Any) -> Any:
            record((index, x))
            return step(x, state, controls)

        return call

    blocks = [actor.block for actor in graph.actors]
    try:
        for index, block in enumerate(blocks):
            block.__dict__["step"] = watched(index, block.step)
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("step", None)
