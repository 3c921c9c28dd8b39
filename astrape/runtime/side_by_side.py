"""Backends side by side: the same pushes through all of them in turns, so that a busy machine slows all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from astrape.errors import AstrapeError, StreamError
from astrape.graph.backends.held import BACKENDS
from astrape.graph.backends.native import quickest
from astrape.graph.graph import Graph
from astrape.graph.session import Session

__all__ = ["BackendBench", "in_turns", "named_backends", "quantile", "side_by_side"]

Key = TypeVar("Key")

WARM_UP = 20
FEWEST, MOST = 60, 5000
WINDOW = 10
"""Neighbouring pushes whose times are summed before they are compared: not every push fires every block."""


@dataclass(frozen=True)
class BackendBench:
    """Times of a push on one backend.

    Attributes:
        backend: as it was asked for; ``chosen`` is what runs, and why, or why it does not.
        computing_ms: of a push, this thread's own computing, the median: what a busy machine changes least.
        median_ms, p99_ms, p999_ms, worst_ms: of a push by the clock; all NaN where it does not run.
        load: median over the chunk's length; below 1 is faster than real time. ``worst_load`` of the worst push.
        to_eager: its computing over that of ``eager`` for the same pushes, the median over neighbouring measurements.
        above_floor: computing over the least time that the machine could take.
        had: share of the clock's time in which this thread computed; well below 1 on a machine that does other things.
    """

    backend: str
    chosen: str
    computing_ms: float = math.nan
    median_ms: float = math.nan
    p99_ms: float = math.nan
    p999_ms: float = math.nan
    worst_ms: float = math.nan
    load: float = math.nan
    worst_load: float = math.nan
    to_eager: float = math.nan
    above_floor: float = math.nan
    had: float = math.nan


def named_backends(graph: Graph, asked: Sequence[str]) -> list[str]:
    """The backends to compare, ``eager`` among them: those asked for, or all for which nothing has to be built first.

    Raises:
        AstrapeError: for an unknown backend.
    """
    unknown = [name for name in asked if name not in BACKENDS]
    if unknown:
        raise AstrapeError(f"backend must be one of {', '.join(BACKENDS)}, not '{unknown[0]}'")
    ready = ["recorded", *(["compiled"] if quickest(graph) else [])]
    return list(dict.fromkeys(["eager", *(asked or ready)]))


def side_by_side(
    graph: Graph,
    backends: Sequence[str],
    pieces: Sequence[Mapping[str, Tensor]],
    controls: Mapping[str, Tensor | float],
    seconds: float,
    floor_ms: float,
    precision: str | None = None,
) -> list[BackendBench]:
    """Push the same pieces through a session of each backend, in turns whose order goes round.

    Args:
        pieces: what is pushed, again and again; all of one length.
        seconds: measuring time in all, about.
        floor_ms: the least time that the machine could take for a push.
        precision: of weights. Those that a backend cannot do stand in the table with the reason.
    """
    name, stream = next(iter(graph.inputs.items()))
    frames = {port: piece.shape[-1] for port, piece in pieces[0].items()}
    duration = float(frames[name] / stream.rate) * 1000
    sessions: dict[str, Session[Any]] = {}
    told = {}
    for backend in backends:
        try:
            sessions[backend] = graph.stream(
                chunk=frames, backend=backend, precision=None if backend == "eager" else precision
            )
            told[backend] = str(sessions[backend].backend)
        except StreamError as reason:
            told[backend] = str(reason)
    times, computed = in_turns(sessions, dict.fromkeys(sessions, pieces), controls, seconds)
    found = []
    for backend in backends:
        if backend not in sessions:
            found.append(BackendBench(backend, told[backend]))
            continue
        taken = sorted(times[backend])
        median, computing = statistics.median(taken), statistics.median(computed[backend])
        found.append(
            BackendBench(
                backend,
                told[backend],
                computing_ms=computing,
                median_ms=median,
                p99_ms=quantile(taken, 0.99),
                p999_ms=quantile(taken, 0.999),
                worst_ms=taken[-1],
                load=median / duration,
                worst_load=taken[-1] / duration,
                to_eager=_ratio(computed[backend], computed["eager"]),
                above_floor=computing / floor_ms if floor_ms else math.inf,
                had=sum(computed[backend]) / sum(taken),
            )
        )
    return found


def in_turns(
    sessions: Mapping[Key, Session[Any]],
    pieces: Mapping[Key, Sequence[Mapping[str, Tensor]]],
    controls: Mapping[str, Tensor | float],
    seconds: float,
) -> tuple[dict[Key, list[float]], dict[Key, list[float]]]:
    """Push pieces through sessions, each its own, one session after the other in an order that goes round.

    Returns:
        Milliseconds of each push by session: by the clock, and of computing.
    """
    times: dict[Key, list[float]] = {key: [] for key in sessions}
    computed: dict[Key, list[float]] = {key: [] for key in sessions}
    push: dict[Key, Callable[..., Any]] = {key: session.push for key, session in sessions.items()}
    order = list(sessions)
    begin = time.perf_counter()
    index = 0
    while index < WARM_UP + FEWEST or (index < WARM_UP + MOST and time.perf_counter() - begin < seconds):
        order.append(order.pop(0))
        for key in order:
            given = controls if index == 0 else {}
            piece = dict(pieces[key][index % len(pieces[key])])
            own, start = time.thread_time(), time.perf_counter()
            push[key](piece, **given)
            taken, spent = time.perf_counter() - start, time.thread_time() - own
            if index >= WARM_UP:
                times[key].append(taken * 1000)
                computed[key].append(spent * 1000)
        index += 1
    return times, computed


def _ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    def summed(values: Sequence[float]) -> list[float]:
        return [sum(values[at : at + WINDOW]) for at in range(0, len(values) - WINDOW + 1, WINDOW)]

    return statistics.median(one / other for one, other in zip(summed(times), summed(reference), strict=True))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that so large a share of sorted values does not exceed."""
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
