"""The state of a live engine, as the command, the page and a plugin show it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

__all__ = ["Status"]


@dataclass(frozen=True)
class Status:
    """The state of a live engine.

    Attributes:
        rate: Hz; all frames are of it.
        latency: frames from an input sample to the output sample that stands for it, exact.
        graph: of these, what the graph takes: its algorithm, and its framing in blocks of this size.
        worker: of these, what is held so that the worker has time to compute. 0 where the callback computes.
        host: the graph's host latency, for blocks of any size; ``latency`` is below it where blocks are whole quanta.
        inline: the graph runs inside the callback.
        load: median cost of recent pushes over the length of a slice.
        worst: the largest of them.
        position: frames heard since the start.
        dropouts: gaps in the output.
        missing: frames in them.
        skipped: frames of input that were left out to be in time again.
        repaired: pushes with input or output that was not finite.
        priority: why the worker has no real-time priority; ``None`` where it has, or there is no worker.
    """

    rate: Fraction
    latency: int
    graph: int
    worker: int
    host: int
    inline: bool
    load: float
    worst: float
    position: int
    dropouts: int
    missing: int
    skipped: int
    repaired: int
    priority: str | None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "rate": float(self.rate), "latency_ms": float(self.latency / self.rate * 1000)}
