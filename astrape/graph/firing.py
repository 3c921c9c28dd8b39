"""Firing: which units of a graph run, how often and on what, when new frames arrive."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.base import State
from astrape.graph.plan import Signal
from astrape.graph.schedule import Edge, Unit

__all__ = ["Firing", "frames_of"]


class Firing:
    """The units of a graph, fired as often as their inputs allow.

    One push falls into three parts: counting, which is whole numbers alone; taking what enters the graph, where frames
    that do not fill a quantum are set aside; and running the units. What the last part does depends on its counts and
    on the lengths of what waits between units, and on nothing else: see :mod:`astrape.graph.tape`.

    Args:
        units: in execution order.
        inputs: names of the graph's inputs.
    """

    def __init__(self, units: Sequence[Unit], inputs: Collection[str]) -> None:
        self.units = units
        self.entries = frozenset(edge.key for unit in units for edge in unit.edges if edge.read.node in inputs)
        """Edges that read an input of the graph, by key."""

    def counts(self, arrived: Mapping[str, int], waiting: Mapping[str, int]) -> tuple[int, ...]:
        """How often each unit fires.

        Args:
            arrived: new frames by input.
            waiting: frames that wait, by ``unit.port``.
        """
        frames = {Signal(name, "out"): count for name, count in arrived.items()}
        found = []
        for unit in self.units:
            firings = min((frames.get(e.read, 0) + waiting.get(e.key, 0)) // e.consumes for e in unit.edges)
            for signal, produced in unit.produced:
                frames[signal] = firings * produced
            found.append(firings)
        return tuple(found)

    def remaining(
        self, counts: Sequence[int], arrived: Mapping[str, int], waiting: Mapping[str, int]
    ) -> dict[str, int]:
        """Frames that wait after units have fired ``counts`` times, by ``unit.port``; edges with none are left out."""
        frames = {Signal(name, "out"): count for name, count in arrived.items()}
        found = {}
        for unit, firings in zip(self.units, counts, strict=True):
            for signal, produced in unit.produced:
                frames[signal] = firings * produced
            for edge in unit.edges:
                rest = frames.get(edge.read, 0) + waiting.get(edge.key, 0) - firings * edge.consumes
                if rest:
                    found[edge.key] = rest
        return found

    def enter(
        self, counts: Sequence[int], arrived: Mapping[str, Tensor], waiting: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What units take of the graph's inputs, by ``unit.port``, and what of them waits now."""
        signals = {Signal(name, "out"): x for name, x in arrived.items() if x.shape[-1]}
        entering: dict[str, Tensor] = {}
        kept: dict[str, Tensor] = {}
        for unit, firings in zip(self.units, counts, strict=True):
            for edge in unit.edges:
                if edge.key in self.entries:
                    x = _take(edge, firings, signals, waiting, kept)
                    if x is not None and firings:
                        entering[edge.key] = x
        return entering, kept

    def fire(
        self,
        counts: Sequence[int],
        entering: Mapping[str, Tensor],
        state: Mapping[str, State],
        waiting: Mapping[str, Tensor],
        prepared: Mapping[str, Any],
    ) -> tuple[dict[Signal, Tensor], dict[str, State], dict[str, Tensor]]:
        """Run the units.

        Args:
            counts: firings of each unit.
            entering: what :meth:`enter` gave.
            state, prepared: of the units.
            waiting: what waits between units, by ``unit.port``.

        Returns:
            All signals that came to be, the next state, and what waits between units now.
        """
        signals: dict[Signal, Tensor] = {}
        after = dict(state)
        kept: dict[str, Tensor] = {}
        for unit, firings in zip(self.units, counts, strict=True):
            taken = {}
            for edge in unit.edges:
                inner = edge.key not in self.entries
                x = _take(edge, firings, signals, waiting, kept) if inner else entering.get(edge.key)
                if x is not None:
                    taken[edge.port] = x
            if not firings:
                continue
            name, block = unit.name, unit.block
            given = taken if block.variadic or len(taken) > 1 else next(iter(taken.values()))
            y, after[name] = block.step(given, state[name], prepared[name])
            if isinstance(y, dict):
                for port, signal in unit.signals.items():
                    signals[signal] = y[port]
            else:
                signals[unit.output] = y
        return signals, after, kept


def frames_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Length in time of each tensor."""
    return {name: tensor.shape[-1] for name, tensor in tensors.items()}


def _take(
    edge: Edge,
    firings: int,
    signals: Mapping[Signal, Tensor],
    waiting: Mapping[str, Tensor],
    kept: dict[str, Tensor],
) -> Tensor | None:
    """What an edge has for its unit's firings; the rest goes to ``kept``."""
    new, old = signals.get(edge.read), waiting.get(edge.key)
    if new is None and old is None:
        return None
    x = old if new is None else new if old is None else torch.cat((old, new), dim=-1)
    assert x is not None
    frames = firings * edge.consumes
    if frames == x.shape[-1]:
        return x
    # In memory of its own, since the caller owns what was pushed, and a view would keep all of it alive.
    kept[edge.key] = x if frames == 0 and new is None else x[..., frames:].clone()
    return x[..., :frames] if frames else None
