"""A host, a worker and a clock that exist only as numbers: hours of callbacks in minutes, and stalls where wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from astrape.runtime.engine import Engine

Cost = Callable[[int], float]


class VirtualHost:
    """Calls an engine's callback on time, and its worker as if each slice took what ``cost`` says.

    What a slice makes is there only when the time that it takes is over.
    """

    def __init__(self, engine: Engine, cost: Cost) -> None:
        self.engine = engine
        self.cost = cost
        self.callbacks = 0
        self._slices = 0
        self._ends: float | None = None
        self._free = 0.0

    def callback(self, x: np.ndarray) -> np.ndarray:
        """One block, a block's length after the last one."""
        now = self.callbacks * self.engine.block / float(self.engine.rate)
        self._run_until(now)
        y = np.full((self.engine.made.channels, x.shape[1]), np.nan, np.float32)
        self.engine.process(x, y)
        self.callbacks += 1
        self._begin(now)
        return y

    def _begin(self, now: float) -> None:
        if self._ends is None and not self.engine.inline and self.engine.waiting >= self.engine.block:
            self._ends = max(now, self._free) + self.cost(self._slices)
            self._slices += 1

    def _run_until(self, now: float) -> None:
        while self._ends is not None and self._ends <= now:
            self._free, self._ends = self._ends, None
            assert self.engine.work()
            self._begin(self._free)


def late_frames(block: int, rate: float, hold: int, costs: list[float], made: Callable[[int], int]) -> list[int]:
    """Frames that are missing in each callback, by arithmetic alone: no engine, no ring.

    Args:
        made: frames of output after so many of input.
    """
    free, ends, missing = 0.0, [], []
    for k, cost in enumerate(costs):
        now = k * block / rate
        finished = sum(end <= now for end in ends[-200:]) + max(0, len(ends) - 200)
        there = hold + made(finished * block)
        missing.append(min(block, max(0, (k + 1) * block - there)))
        free = max(free, now) + cost
        ends.append(free)
    return missing


def speech(channels: int, frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, frames)).astype(np.float32)


def blocks(x: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for begin in range(0, x.shape[1] - size + 1, size):
        yield x[:, begin : begin + size]


def delayed(x: np.ndarray, frames: int) -> np.ndarray:
    return np.concatenate((np.zeros((x.shape[0], frames), x.dtype), x), axis=1)[:, : x.shape[1]]
