"""Firing: which actors of a graph run, how often and on what, when new frames arrive."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from astrape.blocks.base import State
from astrape.blocks.state import map_state
from astrape.capture.buffers import laid_out
from astrape.graph.compile.plan import Wire
from astrape.graph.compile.schedule import Actor, Edge

__all__ = ["Firing", "frames_of"]

Key = TypeVar("Key", bound=Hashable)

MOST_COUNTED = 1024
"""Pushes whose counts are kept: those of a host with a fixed buffer come round again after a few hundred."""


class Firing:
    """The actors of a graph, or some of them, fired as often as their inputs allow.

    One push falls into three parts: counting, which is whole numbers alone; taking what enters from outside, where
    frames that do not fill a quantum are set aside; and running the actors. What the last part does depends on its
    counts and on the lengths of what waits between actors, and on nothing else: see :mod:`astrape.capture.step`.

    Args:
        actors: in execution order.

    Attributes:
        entries: edges that read what none of the actors makes: ``actor.port`` as keys, in order.
        inner: all others.
    """

    def __init__(self, actors: Sequence[Actor]) -> None:
        self.actors = actors
        made = {wire for actor in actors for wire in actor.wires.values()}
        edges = [edge for actor in actors for edge in actor.edges]
        self.entries = dict.fromkeys(edge.key for edge in edges if edge.read not in made)
        self.inner = dict.fromkeys(edge.key for edge in edges if edge.read in made)
        self._entering = [
            (place, edge) for place, actor in enumerate(actors) for edge in actor.edges if edge.key in self.entries
        ]
        self._counted: dict[tuple[object, ...], tuple[int, ...]] = {}

    def counts(self, arrived: Mapping[Wire, int], waiting: Mapping[str, int]) -> tuple[int, ...]:
        """The number of firings of each actor.

        Args:
            arrived: new frames from outside.
            waiting: frames that wait, by ``actor.port``.
        """
        key = (*arrived.items(), None, *waiting.items())
        if key in self._counted:
            return self._counted[key]
        frames = dict(arrived)
        found = []
        for actor in self.actors:
            firings = min((frames.get(e.read, 0) + waiting.get(e.key, 0)) // e.consumes for e in actor.edges)
            for wire, produced in actor.produced:
                frames[wire] = firings * produced
            found.append(firings)
        if len(self._counted) >= MOST_COUNTED:
            self._counted.clear()
        self._counted[key] = tuple(found)
        return self._counted[key]

    def remaining(
        self, counts: Sequence[int], arrived: Mapping[Wire, int], waiting: Mapping[str, int]
    ) -> dict[str, int]:
        """Frames that wait after actors have fired ``counts`` times, by ``actor.port``; edges with none left out."""
        frames = dict(arrived)
        found = {}
        for actor, firings in zip(self.actors, counts, strict=True):
            for wire, produced in actor.produced:
                frames[wire] = firings * produced
            for edge in actor.edges:
                rest = frames.get(edge.read, 0) + waiting.get(edge.key, 0) - firings * edge.consumes
                if rest:
                    found[edge.key] = rest
        return found

    def enter(
        self, counts: Sequence[int], arrived: Mapping[Wire, Tensor], waiting: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The frames that actors take from outside, by ``actor.port``, and those of them that wait now."""
        entering: dict[str, Tensor] = {}
        kept: dict[str, Tensor] = {}
        for place, edge in self._entering:
            x = _take(edge, counts[place], arrived, waiting, kept)
            if x is not None and counts[place]:
                entering[edge.key] = x
        return entering, kept

    def fire(
        self,
        counts: Sequence[int],
        entering: Mapping[str, Tensor],
        state: Mapping[str, State],
        waiting: Mapping[str, Tensor],
        prepared: Mapping[str, Any],
    ) -> tuple[dict[Wire, Tensor], dict[str, State], dict[str, Tensor]]:
        """Run the actors.

        Args:
            counts: firings of each actor.
            entering: what :meth:`enter` gave.
            state, prepared: of the actors.
            waiting: what waits between actors, by ``actor.port``.

        Returns:
            All signals that came to be, the next state of the actors that fired, and what waits between actors now.
        """
        signals: dict[Wire, Tensor] = {}
        after: dict[str, State] = {}
        kept: dict[str, Tensor] = {}
        for actor, firings in zip(self.actors, counts, strict=True):
            taken = {}
            for edge in actor.edges:
                inner = edge.key in self.inner
                x = _take(edge, firings, signals, waiting, kept) if inner else entering.get(edge.key)
                if x is not None:
                    taken[edge.port] = x
            if not firings:
                continue
            name, block = actor.name, actor.block
            given = taken if block.variadic or len(taken) > 1 else next(iter(taken.values()))
            y, left = block.step(given, state[name], prepared[name])
            after[name] = map_state(laid_out, left)
            if isinstance(y, dict):
                for port, wire in actor.wires.items():
                    signals[wire] = y[port]
            else:
                signals[actor.output] = y
        return signals, after, kept


def frames_of(tensors: Mapping[Key, Tensor]) -> dict[Key, int]:
    """Length in time of each tensor."""
    return {key: tensor.shape[-1] for key, tensor in tensors.items()}


def _take(
    edge: Edge,
    firings: int,
    signals: Mapping[Wire, Tensor],
    waiting: Mapping[str, Tensor],
    kept: dict[str, Tensor],
) -> Tensor | None:
    """The frames of an edge for its actor's firings; the rest goes to ``kept``."""
    new, old = signals.get(edge.read), waiting.get(edge.key)
    if new is None and old is None:
        return None
    x = old if new is None else new if old is None else torch.cat((old, new), dim=-1)
    assert x is not None
    frames = firings * edge.consumes
    if frames == x.shape[-1]:
        return laid_out(x)
    # In memory of its own, since a view would keep all of it alive.
    kept[edge.key] = x if frames == 0 and new is None else x[..., frames:].clone(memory_format=torch.contiguous_format)
    return laid_out(x[..., :frames]) if frames else None
