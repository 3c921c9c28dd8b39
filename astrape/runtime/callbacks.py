"""Benchmark of short host callbacks: most only store frames, and one does the work of a whole quantum."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from astrape.errors import AstrapeError
from astrape.graph.backends.native import quickest
from astrape.graph.graph import Graph
from astrape.graph.session import Session
from astrape.runtime.bench import drawn_controls
from astrape.runtime.side_by_side import in_turns, quantile
from astrape.runtime.timing import one_thread

__all__ = ["CALLBACKS", "CallbackBench", "callback_loads"]

CALLBACKS = (64, 128, 256, 441, 1764)
"""Frames of a callback, as sound cards and hosts have them, 10 ms and 40 ms at 44.1 kHz among them."""

LONGEST = 8192

SECONDS_OF_NOISE = 0.25


@dataclass(frozen=True)
class CallbackBench:
    """Times of callbacks of one length, as shares of that length: beyond 1, the host has a gap.

    Attributes:
        frames: of a callback, at the first input.
        chosen: what runs, and why.
        callbacks: how many were measured.
        median, p99, p999, worst: of this thread's own computing, which a busy machine changes least.
        worst_by_clock: what a host would have waited for, on this machine as it was.
        had: share of the clock's time in which this thread computed.
    """

    frames: int
    chosen: str
    callbacks: int
    median: float
    p99: float
    p999: float
    worst: float
    worst_by_clock: float
    had: float


def callback_loads(
    graph: Graph,
    frames: Sequence[int] = CALLBACKS,
    *,
    seconds: float = 6.0,
    controls: Mapping[str, Tensor | float] | None = None,
    backend: str | None = None,
    precision: str | None = None,
) -> list[CallbackBench]:
    """Push callbacks of each length through a session of its own with constant latency, all in turns, on one thread.

    There is no worker here: ``astrape.runtime.engine``, which computes ahead, trades these loads for delay.

    Args:
        graph: what to measure.
        frames: lengths of callbacks, at the first input; others have as many as last as long.
        seconds: measuring time in all, about.
        controls: values for controls; those without a default are drawn at random where they are left out.
        backend: of the sessions; what is quickest and ready when left out.
        precision: of weights, as ``graph.stream`` takes it.

    Raises:
        AstrapeError: for a length that is out of range, or that is not a whole number of frames at another input.
    """
    if not frames or not all(1 <= count <= LONGEST for count in frames):
        raise AstrapeError(f"callbacks have 1 to {LONGEST} frames, not {', '.join(map(str, frames)) or 'none'}")
    values = drawn_controls(graph, controls or {})
    rate = next(iter(graph.inputs.values())).rate
    generator = torch.Generator().manual_seed(0)

    def noise(count: int) -> dict[str, Tensor]:
        shapes = {name: (1, port.channels, int(count * port.rate / rate)) for name, port in graph.inputs.items()}
        return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    for count in frames:
        for name, port in graph.inputs.items():
            if (count * port.rate / rate).denominator != 1:
                raise AstrapeError(f"callbacks of {count} frames are {count * port.rate / rate} at input '{name}'")
    chosen = backend or quickest(graph) or "recorded"
    with one_thread():
        pieces = {count: [noise(count) for _ in range(round(SECONDS_OF_NOISE * rate / count) or 1)] for count in frames}
        sessions: dict[int, Session[Any]] = {
            count: graph.stream(
                constant_latency=True,
                chunk={name: piece.shape[-1] for name, piece in pieces[count][0].items()},
                backend=chosen,
                precision=precision,
            )
            for count in frames
        }
        times, computed = in_turns(sessions, pieces, values, seconds)
    found = []
    for count, session in sessions.items():
        length_ms = float(count / rate) * 1000
        loads = sorted(spent / length_ms for spent in computed[count])
        found.append(
            CallbackBench(
                frames=count,
                chosen=str(session.backend),
                callbacks=len(loads),
                median=statistics.median(loads),
                p99=quantile(loads, 0.99),
                p999=quantile(loads, 0.999),
                worst=loads[-1],
                worst_by_clock=max(times[count]) / length_ms,
                had=sum(computed[count]) / sum(times[count]),
            )
        )
    return found
