"""Framing latency: how long the first part of an output quantum waits, as a session shows it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch

from astrape.errors import ContractError
from astrape.measure.compare import guarded
from astrape.measure.subject import Subject

__all__ = ["FRAMING", "check_framing", "measure_framings"]

FRAMING = "framing"
"""Name of the property: the declared framing latency is what one sample at a time measures."""

MOST_PUSHES = 20_000
"""Frames pushed one at a time to measure framing, over all inputs; a graph with a longer period is left unmeasured."""


def check_framing(subject: Subject) -> None:
    """Fed one frame at a time, every output frame appears as late as ``framings`` says, and not later or sooner.

    Raises:
        ContractError: ``"framing"``.
    """
    graph: Any = subject.block
    with guarded(FRAMING, f"measuring the framing of {subject.name}"), torch.no_grad():
        for port, seen in measure_framings(subject).items():
            declared = graph.framings[port].seconds
            if seen != declared:
                raise ContractError(
                    FRAMING,
                    f"'{port}' declares a framing of {declared} s ({float(declared) * 1000:.4g} ms), and its latest "
                    f"frame came {seen} s ({float(seen) * 1000:.4g} ms) late",
                )


def measure_framings(subject: Subject) -> dict[str, Fraction]:
    """Framing latency by output, seconds, over two periods fed one frame at a time; nothing where those are too long.

    Frame *m* of an output at rate *r* is late by the time heard when it appears, less its own end ``(m + 1) / r``.
    """
    graph: Any = subject.block
    counts = {port: 2 * count for port, count in graph.consumes.items()}
    if sum(counts.values()) > MOST_PUSHES:
        return {}
    session = graph.stream(batch_size=1, dtype=subject.dtype)
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
