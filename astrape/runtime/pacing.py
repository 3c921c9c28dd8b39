"""The delay of a live graph: how long finished frames are held so that no block of the host finds too few."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from astrape.graph.graph import Graph
from astrape.graph.session import Session

__all__ = ["Pace", "framing_hold", "measured_costs", "needed_hold", "pace"]

MOST_POSITIONS = 512
"""Blocks after which a pattern has to come round for it to be gone through block by block."""

HEADROOM = 1.5
"""Times the measured cost that a push may take. A machine does other things too."""

INLINE_HEADROOM = 2.0
"""The same for a graph that runs in the callback itself, where nothing is in store when it takes longer."""

LONGEST_HOLD = 0.5
"""Seconds; a graph that needs more is too slow, and no delay helps it."""

ROUNDS = 3


@dataclass(frozen=True)
class Pace:
    """The timing that a graph needs to run live in blocks of one size.

    Attributes:
        framing: frames held because a quantum has to be whole before any of it comes out.
        worker: frames held on top of it, for the time that computing takes. 0 where it runs inside the callback.
        inline: it runs inside the callback.
        load: share of the time that computing takes, on average; above 1 it cannot run live.
        worst: cost of the longest push over the length of a block.
    """

    framing: int
    worker: int
    inline: bool
    load: float
    worst: float

    @property
    def hold(self) -> int:
        """Frames held in all."""
        return self.framing + self.worker


def framing_hold(graph: Graph, output: str, block: int | None) -> int:
    """Frames of an output to hold so that a host that brings blocks never finds too few, computing aside.

    Where blocks are all of one size, it is counted for that size: blocks that are whole quanta wait for nothing.

    Args:
        graph: whose first input and ``output`` have one rate.
        block: frames of a block; ``None`` for any, where it is the graph's framing latency.
    """
    rate = graph.outputs[output].rate
    if block is not None:
        positions = graph.quantum // math.gcd(graph.quantum, block)
        if positions <= MOST_POSITIONS:
            heard = block * np.arange(1, positions + 1)
            return int((heard - _available(graph, output, heard)).max())
    return math.ceil((graph.latencies[output] + graph.framings[output].seconds) * rate) - math.ceil(
        graph.latencies[output] * rate
    )


def measured_costs(session: Session[Tensor], block: int, rounds: int = ROUNDS) -> list[float]:
    """Seconds that pushes of ``block`` frames take, in their order, until the pattern comes round.

    Each is the median of some rounds, so that what another process took is not counted. The session, which has its
    controls already, is reset.
    """
    graph = session.graph
    stream = next(iter(graph.inputs.values()))
    positions = min(graph.quantum // math.gcd(graph.quantum, block), MOST_POSITIONS)
    generator = torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(1, stream.channels, block, generator=generator)
    for _ in range(min(positions, 64)):
        session.push(x)
    session.reset()
    taken: list[list[float]] = [[] for _ in range(positions)]
    for _ in range(rounds):
        session.reset()
        for costs in taken:
            begin = time.perf_counter()
            session.push(x)
            costs.append(time.perf_counter() - begin)
    session.reset()
    return [statistics.median(costs) for costs in taken]


def needed_hold(graph: Graph, output: str, block: int, costs: Sequence[float]) -> int:
    """Frames to hold where a worker computes each block as soon as it has arrived, one after the other.

    Block ``k`` arrives at ``k * block / rate``, and is finished once it and all before it are computed. The callback of
    that instant takes the frames up to ``(k + 1) * block``, so that what is not there yet has to be in store.

    Args:
        costs: seconds for each block of a pattern that comes round; see :func:`measured_costs`.
    """
    rate = float(graph.outputs[output].rate)
    length = block / rate
    rounds = 1 if len(costs) * block % graph.quantum else 2
    finished = 0.0
    made = _available(graph, output, block * np.arange(1, rounds * len(costs) + 1))
    ends: list[float] = []
    hold = 0
    done = 0
    for k in range(rounds * len(costs)):
        arrival = k * length
        while done < k and ends[done] <= arrival:
            done += 1
        available = int(made[done - 1]) if done else 0
        hold = max(hold, (k + 1) * block - available)
        finished = max(finished, arrival) + costs[k % len(costs)]
        ends.append(finished)
    return hold


def pace(
    graph: Graph,
    output: str,
    block: int | None,
    costs: Sequence[float],
    slice_frames: int,
    inline: bool | None = None,
) -> Pace:
    """The delay that a graph needs with blocks of ``block`` frames, from the cost of its pushes.

    It runs in the callback, without any delay of its own, where its longest push fits a block twice over. Otherwise a
    worker runs it, and enough is held for one and a half times the cost.

    Args:
        block: frames of the host's blocks; ``None`` where they vary, or nothing is known.
        costs: seconds of pushes of ``slice_frames``.
        slice_frames: what a worker pushes at a time; the most that a block has, where blocks vary.
        inline: whether it runs in the callback, where that is settled already.
    """
    rate = float(graph.outputs[output].rate)
    length = slice_frames / rate
    load = sum(costs) / (len(costs) * length)
    framing = framing_hold(graph, output, block)
    worst = max(costs) / length
    fits = block is not None and worst * INLINE_HEADROOM <= 1
    if inline or (inline is None and fits):
        return Pace(framing, 0, True, load, worst)
    most = int(LONGEST_HOLD * rate)
    if load * HEADROOM > 1:
        return Pace(framing, min(most, 2 * graph.quantum + 2 * slice_frames), False, load, worst)
    hold = needed_hold(graph, output, slice_frames, [HEADROOM * cost for cost in costs])
    if block is None:
        # Any part of a slice may be waiting to be whole, and a block of any size may come.
        hold = max(hold, framing) + 2 * slice_frames
    return Pace(framing, min(most, max(0, hold - framing)), False, load, worst)


def _available(graph: Graph, output: str, heard: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    found = graph.output_lengths(torch.as_tensor(heard))
    counts: npt.NDArray[np.int64] = (found[output] if isinstance(found, dict) else found).numpy()
    return counts
