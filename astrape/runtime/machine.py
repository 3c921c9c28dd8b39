"""Speed of the machine: how fast it reads memory and multiplies matrices, measured on one thread."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from astrape.audio.atomic import write_whole
from astrape.capture.native.library import cache_folder
from astrape.errors import AstrapeError

__all__ = ["Best", "Machine", "best_seen", "measure_machine"]

BEYOND_CACHE = 2**28
"""Bytes; more than any cache of the last level holds for one core."""

SECONDS, FEWEST_RUNS = 0.15, 12
"""Time for the measurement of one limit, and the least number of runs."""

KEPT = ("memory_gb_s", "matmul_gflop_s")

BUSY = 0.6
"""Share of the best seen below which the machine is taken for busy: from run to run a quiet one gives 0.9."""


@dataclass(frozen=True)
class Machine:
    """Measured limits, in float32.

    Attributes:
        memory_gb_s: read bandwidth from memory, 10^9 bytes a second.
        working_set_bytes: weights and state that a graph goes through.
        working_set_gb_s: read bandwidth over that many bytes again and again, from whatever cache holds them.
        matmul_gflop_s: rate of a square matrix product, 10^9 operations a second.
    """

    memory_gb_s: float
    working_set_bytes: int
    working_set_gb_s: float
    matmul_gflop_s: float

    def floor_ms(self, flops: float, traffic: float) -> float:
        """The least time for operations and bytes: the slower of the two (Williams et al. 2009, "Roofline")."""
        return max(flops / (self.matmul_gflop_s * 1e9), traffic / (self.working_set_gb_s * 1e9)) * 1000


@dataclass(frozen=True)
class Best:
    """The best that this machine was ever seen to give, by this user.

    Attributes:
        memory_gb_s, matmul_gflop_s: as in :class:`Machine`.
        share: of it that a machine gave now, the smaller of both; 1 where it was never seen better.
    """

    memory_gb_s: float
    matmul_gflop_s: float
    share: float

    @property
    def busy(self) -> bool:
        """Whether times measured now say much about other things that run."""
        return self.share < BUSY


def best_seen(machine: Machine, path: Path | None = None) -> Best:
    """The machine as measured now, beside the best seen so far, which is kept in a file where one can be written.

    Args:
        machine: as it was measured.
        path: of the file; ``machines.json`` in astrape's cache when left out. It holds a line a kind of processor.
    """
    kind, now = processor(), {name: float(getattr(machine, name)) for name in KEPT}
    best = dict(now)
    with contextlib.suppress(AstrapeError, OSError, RuntimeError):  # without a home, say
        target = path or cache_folder() / "machines.json"
        known = _known(target)
        best = {name: max(now[name], known.get(kind, now)[name]) for name in KEPT}
        if best != known.get(kind):
            write_whole(target, json.dumps(known | {kind: best}, indent=1) + "\n")
    return Best(**best, share=min(now[name] / best[name] for name in KEPT))


def _known(path: Path) -> dict[str, dict[str, float]]:
    """The best figures of each kind of processor in a file; empty where it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {kind: {name: float(best[name]) for name in KEPT} for kind, best in found.items()}
    except (AttributeError, LookupError, OSError, TypeError, ValueError):
        return {}


def processor() -> str:
    """The processor's name and how many there are, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.processor() or platform.machine())}, {os.cpu_count()} of them"


def measure_machine(working_set: int) -> Machine:
    """Measure on the threads that torch has now.

    Args:
        working_set: bytes that are read again and again.
    """
    a = torch.randn(768, 768)
    out = torch.empty(768, 768)
    matmul = _fastest(lambda: torch.mm(a, a, out=out))
    return Machine(
        memory_gb_s=_bandwidth(BEYOND_CACHE),
        working_set_bytes=working_set,
        working_set_gb_s=_bandwidth(min(working_set, BEYOND_CACHE)),
        matmul_gflop_s=2 * 768**3 / matmul / 1e9,
    )


def _bandwidth(size: int) -> float:
    """Gigabytes a second of the kernel that reads weights fastest: a matrix times a vector, or a sum."""
    columns = 1024
    rows = max(1, size // (4 * columns))
    matrix = torch.ones(rows, columns)
    vector, out = torch.ones(columns), torch.empty(rows)
    repeat = max(1, 2**22 // (rows * columns * 4))

    def product() -> None:
        for _ in range(repeat):
            torch.mv(matrix, vector, out=out)

    def total() -> None:
        for _ in range(repeat):
            matrix.sum()

    return rows * columns * 4 * repeat / min(_fastest(product), _fastest(total)) / 1e9


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs: a limit is what nothing disturbed. No fewer on a busy machine."""
    work()
    best = float("inf")
    begin, runs = time.perf_counter(), 0
    while runs < FEWEST_RUNS or time.perf_counter() - begin < SECONDS:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        runs += 1
    return best
