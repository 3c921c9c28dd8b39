"""Speed of the machine: how fast it reads memory and multiplies matrices, measured on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Machine", "measure_machine"]

BEYOND_CACHE = 2**28
"""Bytes; more than any cache of the last level holds for one core."""

FEWEST_RUNS = 12


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
        """The least time for so many operations and bytes: the slower of the two (Williams et al. 2009, "Roofline")."""
        return max(flops / (self.matmul_gflop_s * 1e9), traffic / (self.working_set_gb_s * 1e9)) * 1000


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


def _fastest(work: Callable[[], object], seconds: float = 0.15) -> float:
    """Seconds of the fastest of several runs: a limit is what nothing disturbed. No fewer on a busy machine."""
    work()
    best = float("inf")
    begin, runs = time.perf_counter(), 0
    while runs < FEWEST_RUNS or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        runs += 1
    return best
