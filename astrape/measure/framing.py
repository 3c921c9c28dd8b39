"""Framing latency: how long the first part of an output quantum waits, as a session shows it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol

from astrape.measure.subject import Subject

__all__ = ["Pushes", "measure_framings"]

MOST_PUSHES = 20_000
"""Frames pushed one at a time to measure framing, over all inputs; a graph with a longer period is left unmeasured."""


class Pushes(Protocol):
    """Anything that takes frames as they come and returns those that can be computed, such as a session."""

    def push(self, x: Any, **controls: Any) -> Any: ...


def measure_framings(subject: Subject, stream: Callable[[], Pushes]) -> dict[str, Fraction]:
    """Framing latency by output, seconds, over two periods fed one frame at a time; nothing where those are too long.

    Frame *m* of an output at rate *r* is late by the time heard when it appears, less its own end ``(m + 1) / r``.

    Args:
        subject: the graph under test.
        stream: begins a session of the subject's graph, of one stream in the subject's precision.
    """
    graph = subject.block
    counts = {port: 2 * count for port, count in graph.consumes.items()}
    if sum(counts.values()) > MOST_PUSHES:
        return {}
    session = stream()
    x = subject.signal(2, batch=1, seed=48)
    rates = {port: stream.rate for port, stream in graph.inputs.items()}
    moments = sorted((Fraction(n + 1) / rates[port], port, n) for port, count in counts.items() for n in range(count))
    given = dict.fromkeys(graph.outputs, 0)
    late: dict[str, Fraction] = {}
    values: dict[str, Any] = dict(subject.values(1))
    for heard, port, n in moments:
        piece = {name: t[..., n : n + 1] if name == port else t[..., :0] for name, t in x.items()}
        for out, tensor in subject.by_port(session.push(subject.given(piece), **values)).items():
            if tensor.shape[-1]:
                lateness = heard - Fraction(given[out] + 1) / graph.outputs[out].rate
                late[out] = max(late.get(out, lateness), lateness)
                given[out] += tensor.shape[-1]
        values = {}
    return late
