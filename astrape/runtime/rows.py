"""Benchmark of many streams in one session, a row of its batch each: the share of a core per stream."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from astrape.errors import AstrapeError
from astrape.graph.graph import Graph
from astrape.graph.session import Session
from astrape.runtime.bench import drawn_controls
from astrape.runtime.side_by_side import in_turns, named_backends
from astrape.runtime.timing import one_thread

__all__ = ["RowsBench", "rows_in_turns"]

MOST_ROWS = 256

PIECES = 16
"""Pushes of noise that go round; of many rows, more would not stay in the cache, where a server's frames come from."""


@dataclass(frozen=True)
class RowsBench:
    """Times of a push with a number of rows.

    Attributes:
        backend: as it was asked for; ``chosen`` is what runs, and why.
        computing_ms: of a push, this thread's own computing, the median: what a busy machine changes least.
        share: of a core, that over the push's length; below 1 all rows are in real time. ``per_stream``: of one row.
        had: share of the clock's time in which this thread computed.
    """

    rows: int
    backend: str
    chosen: str
    computing_ms: float
    share: float
    per_stream: float
    had: float


def rows_in_turns(
    graph: Graph,
    chunk_ms: float,
    rows: Sequence[int],
    *,
    seconds: float = 6.0,
    controls: Mapping[str, Tensor | float] | None = None,
    backends: Sequence[str] = (),
    precision: str | None = None,
) -> list[RowsBench]:
    """Push noise at -20 dB through sessions of that many rows, of each backend, all in turns, on one thread.

    Args:
        graph: what to measure.
        chunk_ms: length of a push, milliseconds.
        rows: numbers of rows.
        seconds: measuring time in all, about.
        controls: values for controls; those without a default are drawn at random where they are left out.
        backends: to compare; left out, all but ``eager`` for which nothing has to be built first.
        precision: of weights, as ``graph.stream`` takes it.

    Raises:
        AstrapeError: for a length or a number of rows out of range, and for an unknown backend.
        StreamError: for a precision that a backend does not have.
    """
    if not 0.01 <= chunk_ms <= 10_000:
        raise AstrapeError(f"a chunk must be 0.01 to 10000 ms, not {chunk_ms:g}")
    if not rows or not all(1 <= count <= MOST_ROWS for count in rows):
        raise AstrapeError(f"rows must be 1 to {MOST_ROWS}, not {', '.join(map(str, rows)) or 'none'}")
    values = drawn_controls(graph, controls or {})
    frames = {name: max(1, round(chunk_ms * float(port.rate) / 1000)) for name, port in graph.inputs.items()}
    first = next(iter(graph.inputs))
    duration_ms = float(frames[first] / graph.inputs[first].rate) * 1000
    compared = named_backends(graph, backends)[0 if "eager" in backends else 1 :]
    keys = [(count, backend) for count in dict.fromkeys(rows) for backend in compared]
    generator = torch.Generator().manual_seed(0)

    def noise(count: int) -> dict[str, Tensor]:
        shapes = {name: (count, port.channels, frames[name]) for name, port in graph.inputs.items()}
        return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    with one_thread():
        sessions: dict[tuple[int, str], Session[Any]] = {
            (count, backend): graph.stream(batch_size=count, chunk=frames, backend=backend, precision=precision)
            for count, backend in keys
        }
        pieces = {count: [noise(count) for _ in range(PIECES)] for count in rows}
        times, computed = in_turns(sessions, {key: pieces[key[0]] for key in keys}, values, seconds)
    found = []
    for count, backend in keys:
        key = count, backend
        computing = statistics.median(computed[key])
        share = computing / duration_ms
        had = sum(computed[key]) / sum(times[key])
        chosen = str(sessions[key].backend)
        found.append(RowsBench(count, backend, chosen, computing, share, share / count, had))
    return found
