"""Benchmark of a live graph: its speed, the overhead around its blocks, and the distance from the machine's limit.

Everything runs on one thread. Two threads gain little and lose several times over as soon as another process runs.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.live import Live
from astrape.blocks.state import state_bytes
from astrape.errors import AstrapeError
from astrape.graph.graph import Graph
from astrape.graph.session import Session
from astrape.progress import Progress
from astrape.runtime.by_hand import ByHand, Call, Sessionless, recorded
from astrape.runtime.machine import Best, Machine, best_seen, measure_machine
from astrape.runtime.process import most_memory
from astrape.runtime.profile import Profile, profile
from astrape.runtime.side_by_side import BackendBench, named_backends, side_by_side
from astrape.runtime.timing import one_thread, push_times

__all__ = ["Bench", "BlockShare", "ChunkBench", "bench", "drawn_controls", "profiles"]

WARM_UP = 30
FEWEST, MOST = 100, 5000
WINDOW = 10
"""Chunks whose times are summed before variants are compared: not every chunk fires every block."""


@dataclass(frozen=True)
class BlockShare:
    """One block's share of the time of all blocks.

    Attributes:
        calls: of ``step`` per chunk, on average.
        milliseconds: per chunk, on average.
        share: of all blocks' time, 0 to 1.
        weight_bytes, state_bytes: parameters and buffers, and the state of one stream.
    """

    name: str
    type: str
    calls: float
    milliseconds: float
    share: float
    weight_bytes: int
    state_bytes: int


@dataclass(frozen=True)
class ChunkBench:
    """Times at one chunk size, per chunk, in milliseconds.

    Attributes:
        chunk_ms: what was asked for; ``frames`` is what that makes at the first input.
        real_time_factor: time per chunk, on average, over the chunk's length; below 1 is faster than real time.
        tapes: patterns of firings whose steps the session replays; 0 where ``untaped`` says why it does not.
        blocks_ms, graph_ms, session_ms: medians of the mean over ten chunks, of the very same ``step`` calls made by
            hand and nothing else, of ``graph.advance``, and of ``session.push``.
        graph_overhead, session_overhead: time of ``advance`` and of ``push`` over the calls by hand, less 1. They are
            medians of ratios of neighbouring measurements, so that a busy machine slows both alike. A session that
            replays is below 0: it does without the blocks' Python.
        floor_ms: the least time that the machine could take, by its measured bandwidth and matrix product rate.
        above_floor: the session's time over the floor.
        gflop: floating-point operations of matrix products and convolutions per chunk, in 10^9, oneDNN's among them.
        traffic_bytes: weights, states, inputs and outputs that a chunk's calls touch.
        backends: what runs a session, side by side.
    """

    chunk_ms: float
    frames: int
    steps: int
    real_time_factor: float
    median_ms: float
    p999_ms: float
    worst_ms: float
    median_load: float
    p999_load: float
    tapes: int
    untaped: str | None
    blocks_ms: float
    graph_ms: float
    session_ms: float
    graph_overhead: float
    session_overhead: float
    gflop: float
    traffic_bytes: int
    floor_ms: float
    above_floor: float
    blocks: list[BlockShare]
    backends: list[BackendBench]


@dataclass(frozen=True)
class Bench:
    """Results of ``bench``.

    Attributes:
        weight_bytes, state_bytes: parameters and buffers, and the state of one stream.
        process_bytes: peak memory of the process, PyTorch's own included; ``None`` where the system does not tell it.
        best: the best that the machine was seen to give, beside what it gives now.
    """

    recipe: str
    parameters: int
    weight_bytes: int
    state_bytes: int
    process_bytes: int | None
    threads: int
    machine: Machine
    best: Best
    chunks: list[ChunkBench]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def bench(
    graph: Graph,
    chunks_ms: Sequence[float] = (10.0, 40.0),
    *,
    seconds: float = 4.0,
    controls: Mapping[str, Tensor | float] | None = None,
    backends: Sequence[str] = (),
    precision: str | None = None,
    progress: Progress | None = None,
) -> Bench:
    """Measure a graph live, on one thread, on noise at -20 dB.

    Args:
        graph: what to measure.
        chunks_ms: chunk sizes, milliseconds; each at least one frame of the first input.
        seconds: measuring time per chunk size, about. The 99.9 % quantile takes 1000 steps to mean something.
        controls: values for controls; those without a default are drawn at random where they are left out.
        backends: to compare with ``eager``, side by side; left out, all for which nothing has to be built first.
        precision: of the compared backends' weights, but those of ``eager``, as ``graph.stream`` takes it.
        progress: called with the share done and 1.

    Raises:
        AstrapeError: for chunk sizes or times out of range, and for an unknown backend.
    """
    if not all(math.isfinite(ms) and 0.01 <= ms <= 10_000 for ms in chunks_ms) or not chunks_ms:
        raise AstrapeError(f"chunks must be 0.01 to 10000 ms, not {', '.join(f'{ms:g}' for ms in chunks_ms)}")
    if not 0.05 <= seconds <= 3600:
        raise AstrapeError(f"seconds must be 0.05 to 3600, not {seconds:g}")
    values = drawn_controls(graph, controls or {})
    compared = named_backends(graph, backends)
    tell = progress or (lambda done, total: None)
    with one_thread(), torch.inference_mode(), Live().run():
        session = graph.stream()
        weights = sum(_bytes(actor.block) for actor in graph.actors)
        machine = measure_machine(max(weights + session.state_bytes, 2**18))
        found = []
        for index, chunk_ms in enumerate(chunks_ms):
            part = _Part(graph, chunk_ms, values, seconds, tell, index, len(chunks_ms))
            found.append(part.measure(machine, compared, precision))
        return Bench(
            recipe=graph.name,
            parameters=sum(p.numel() for p in graph.parameters()),
            weight_bytes=weights,
            state_bytes=session.state_bytes,
            process_bytes=most_memory(),
            threads=torch.get_num_threads(),
            machine=machine,
            best=best_seen(machine),
            chunks=found,
        )


class _Part:
    """The measurement at one chunk size."""

    def __init__(
        self,
        graph: Graph,
        chunk_ms: float,
        controls: dict[str, Tensor | float],
        seconds: float,
        progress: Progress,
        index: int,
        count: int,
    ) -> None:
        self.tell: Callable[[float], None] = lambda share: progress((index + share) / count, 1.0)
        self.graph, self.chunk_ms, self.controls, self.seconds = graph, chunk_ms, controls, seconds
        self.frames = {n: max(1, round(chunk_ms * float(s.rate) / 1000)) for n, s in graph.inputs.items()}
        first = next(iter(graph.inputs))
        self.duration = float(self.frames[first] / graph.inputs[first].rate) * 1000
        generator = torch.Generator().manual_seed(0)
        self.pieces: list[dict[str, Tensor]] = [
            {n: 0.1 * torch.randn(1, s.channels, self.frames[n], generator=generator) for n, s in graph.inputs.items()}
            for _ in range(64)
        ]

    def measure(self, machine: Machine, backends: Sequence[str], precision: str | None) -> ChunkBench:
        session, times = self._session_times()
        calls, flops = self._trace(min(len(times) // WINDOW * WINDOW, 50 * WINDOW))
        self.tell(0.5)
        sums = self._compare(calls)
        shares, traffic = self._shares(calls, sums["blocks"])
        session_ms = statistics.median(sums["session"])
        floor = machine.floor_ms(flops, traffic)
        seconds = self.seconds / 2
        compared = side_by_side(self.graph, backends, self.pieces, self.controls, seconds, floor, precision)
        self.tell(1.0)
        times.sort()
        p999 = times[min(len(times) - 1, math.ceil(0.999 * len(times)) - 1)]
        median = statistics.median(times)
        return ChunkBench(
            chunk_ms=self.chunk_ms,
            frames=next(iter(self.frames.values())),
            steps=len(times),
            real_time_factor=sum(times) / len(times) / self.duration,
            median_ms=median,
            p999_ms=p999,
            worst_ms=times[-1],
            median_load=median / self.duration,
            p999_load=p999 / self.duration,
            tapes=session.captured_steps,
            untaped=session.uncaptured,
            blocks_ms=statistics.median(sums["blocks"]),
            graph_ms=statistics.median(sums["graph"]),
            session_ms=session_ms,
            graph_overhead=_ratio(sums["graph"], sums["blocks"]) - 1,
            session_overhead=_ratio(sums["session"], sums["blocks"]) - 1,
            gflop=flops / 1e9,
            traffic_bytes=round(traffic),
            floor_ms=floor,
            above_floor=session_ms / floor if floor else math.inf,
            blocks=shares,
            backends=compared,
        )

    def _session_times(self) -> tuple[Session, list[float]]:
        """A session that runs by itself, and the milliseconds of its pushes."""
        session = self.graph.stream(chunk=self.frames)
        pushes = push_times(session, map(self._given, itertools.count()), self.controls)
        for _ in range(WARM_UP + 1):
            next(pushes)
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < FEWEST or (len(times) < MOST and time.perf_counter() - begin < self.seconds / 2):
            times.append(next(pushes))
            if len(times) % 100 == 0:
                self.tell(min(0.45, 0.45 * (time.perf_counter() - begin) / (self.seconds / 2)))
        return session, times

    def _trace(self, count: int) -> tuple[list[list[Call]], float]:
        """The calls of ``step`` that each of the first ``count`` chunks leads to, and operations per chunk."""
        from astrape.runtime.operations import counted

        runner = Sessionless(self.graph, self.controls)
        chunks: list[list[Call]] = []
        with counted() as counter, recorded(self.graph, lambda call: chunks[-1].append(call)):
            for index in range(count):
                chunks.append([])
                runner.advance(self._piece(index))
        return chunks, counter.get_total_flops() / count

    def _compare(self, calls: list[list[Call]]) -> dict[str, list[float]]:
        """Milliseconds per chunk, window by window, of the three ways to run, taken in turns."""
        sums: dict[str, list[float]] = {"blocks": [], "graph": [], "session": []}
        order = list(sums)
        begin = time.perf_counter()
        rounds = 0
        while rounds < 2 or (time.perf_counter() - begin < self.seconds / 2 and rounds < 1000):
            runner, session = Sessionless(self.graph, self.controls), self.graph.stream(chunk=self.frames)
            session.push({n: x[..., :0] for n, x in self.pieces[0].items()}, **self.controls)
            by_hand = ByHand(self.graph, runner.prepared)
            for window in range(len(calls) // WINDOW):
                order.append(order.pop(0))
                for way in order:
                    indices = range(window * WINDOW, (window + 1) * WINDOW)
                    given = [self._given(index) for index in indices]
                    pieces = [self._piece(index) for index in indices]
                    start = time.perf_counter()
                    if way == "blocks":
                        for index in indices:
                            by_hand.run(calls[index])
                    elif way == "graph":
                        for piece in pieces:
                            runner.advance(piece)
                    else:
                        for chunk in given:
                            session.push(chunk)
                    if rounds or window >= WARM_UP // WINDOW:
                        sums[way].append((time.perf_counter() - start) * 1000 / WINDOW)
                if rounds > 1 and time.perf_counter() - begin > self.seconds / 2:
                    break
                self.tell(min(0.95, 0.5 + 0.45 * (time.perf_counter() - begin) / (self.seconds / 2)))
            rounds += 1
        return sums

    def _shares(self, calls: list[list[Call]], sums: list[float]) -> tuple[list[BlockShare], float]:
        """Each block's part of the time, and the bytes that a chunk's calls touch."""
        graph = self.graph
        by_hand = ByHand(graph, Sessionless(graph, self.controls).prepared)
        for chunk in calls[:WARM_UP]:
            by_hand.run(chunk)
        times = [[0.0] * len(graph.actors) for _ in calls]
        counts = [0] * len(graph.actors)
        weights = [_bytes(actor.block) for actor in graph.actors]
        states = [state_bytes(state) for state in by_hand.state]
        traffic = 0
        for chunk, taken in zip(calls, times, strict=True):
            for index, x in chunk:
                start = time.perf_counter()
                y = by_hand.call(index, x)
                taken[index] += (time.perf_counter() - start) * 1000
                counts[index] += 1
                traffic += weights[index] + states[index] + state_bytes(x) + state_bytes(y)
        # A mean that leaves out what an interrupted chunk took; not every chunk fires every block.
        each = [_trimmed_mean([taken[index] for taken in times]) for index in range(len(graph.actors))]
        total = sum(each) or 1.0
        scale = statistics.median(sums) / total
        kinds = {node.name: node.use for node in graph.nodes.values()}
        shares = [
            BlockShare(
                name=actor.name,
                type=kinds.get(actor.name, "feedback loop"),
                calls=counts[index] / len(calls),
                milliseconds=each[index] * scale,
                share=each[index] / total,
                weight_bytes=weights[index],
                state_bytes=states[index],
            )
            for index, actor in enumerate(graph.actors)
        ]
        return shares, traffic / len(calls)

    def _piece(self, index: int) -> dict[str, Tensor]:
        return self.pieces[index % len(self.pieces)]

    def _given(self, index: int) -> Any:
        # A session takes the dict apart and keeps none of it.
        return dict(self._piece(index))


def profiles(
    graph: Graph,
    chunks_ms: Sequence[float],
    *,
    controls: Mapping[str, Tensor | float] | None = None,
    backends: Sequence[str] = (),
    precision: str | None = None,
) -> tuple[Machine, list[list[Profile]]]:
    """The machine, and at each chunk size where the time of a push goes, by backend. See :func:`.profile.profile`.

    Args:
        backends: of ``recorded`` and ``compiled``, which have kernels to time; left out, those that are ready.
    """
    values = drawn_controls(graph, controls or {})
    named = named_backends(graph, backends)[1:]
    with one_thread(), torch.inference_mode():
        weights = sum(_bytes(actor.block) for actor in graph.actors)
        machine = measure_machine(max(weights + graph.stream().state_bytes, 2**18))
    found = []
    for chunk_ms in chunks_ms:
        frames = {n: max(1, round(chunk_ms * float(s.rate) / 1000)) for n, s in graph.inputs.items()}
        each = [(name, None if name == "recorded" else precision) for name in named]
        found.append([profile(graph, name, frames, values, machine, kind) for name, kind in each])
    return machine, found


def drawn_controls(graph: Graph, given: Mapping[str, Tensor | float]) -> dict[str, Tensor | float]:
    """The given controls, with random values for required ones that are missing."""
    generator = torch.Generator().manual_seed(0)
    values: dict[str, Tensor | float] = dict(given)
    for name, spec in graph.control_specs.items():
        if name not in values and spec.default is None:
            low = -math.inf if spec.minimum is None else spec.minimum
            high = math.inf if spec.maximum is None else spec.maximum
            values[name] = torch.randn(spec.channels, generator=generator).clamp(low, high)
    return values


def _bytes(block: torch.nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*block.parameters(), *block.buffers()))


def _ratio(times: list[float], reference: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(times, reference, strict=True)) if reference else math.nan


def _trimmed_mean(values: list[float]) -> float:
    kept = sorted(values)[: max(1, math.floor(0.99 * len(values)))]
    return sum(kept) / len(kept)
