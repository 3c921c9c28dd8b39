"""Recipes that the graph's tests compile, and a naive model of token counts to hold them against."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from astrape.graph.graph import Graph


def recipe(blocks: dict[str, Any], *, rate: Any = 1000, channels: int = 1, **rest: Any) -> dict[str, Any]:
    """A recipe with one input ``mic``; its output is the last block unless ``outputs`` says otherwise."""
    outputs = rest.pop("outputs", {"wav": list(blocks)[-1]})
    inputs = rest.pop("inputs", {"mic": {"rate": rate, "channels": channels}})
    return {"recipe": "test", "inputs": inputs, "blocks": blocks, "outputs": outputs, **rest}


def counted_framing(graph: Graph, output: str, frames: int) -> Fraction:
    """Framing latency found by firing the nodes one by one, as tokens arrive one frame at a time.

    The slow path: queues of counters for every edge, one input frame a turn, each node fired while it can.
    """
    ((name, stream),) = graph.inputs.items()
    held = {(actor.name, port): 0 for actor in graph.actors for port in actor.sources}
    produced = 0
    latest = Fraction(0)

    def arrive(wire: Any, count: int) -> None:
        nonlocal produced
        if graph.wiring[output] == wire:
            for _ in range(count):
                end = Fraction(produced + 1) / graph.outputs[output].rate
                lateness.append(Fraction(heard) / stream.rate - end)
                produced += 1
        for actor in graph.actors:
            for port, read in actor.sources.items():
                if read == wire:
                    held[actor.name, port] += count

    lateness: list[Fraction] = []
    for heard in range(1, frames + 1):  # noqa: B007
        arrive((name, "out"), 1)
        fired = True
        while fired:
            fired = False
            for actor in graph.actors:
                need = actor.block.consumes
                if all(held[actor.name, port] >= need[port] for port in actor.sources):
                    for port in actor.sources:
                        held[actor.name, port] -= need[port]
                    for port, wire in actor.wires.items():
                        arrive(wire, actor.block.produces[port])
                    fired = True
    latest = max([latest, *lateness])
    return latest
