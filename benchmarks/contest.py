"""Several ways to do the same work, timed in turns in one run, and held to the same numbers where they can be."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from time import process_time

import numpy as np
import numpy.typing as npt

__all__ = ["Contest", "Contestant", "Result", "hold"]

Frames = npt.NDArray[np.float32]

SECONDS = 0.2
"""CPU time of a turn: long beside the clock's step, short beside the changes of a busy machine."""


@dataclass
class Contestant:
    """One way to do the work.

    Attributes:
        name: with the version.
        step: does one piece of the work and returns what came out, as ``(channels, frames)``.
        differs: why its output may be other than ours; empty where it has to be the same.
    """

    name: str
    step: Callable[[], Frames]
    differs: str = ""


@dataclass
class Contest:
    """A piece of work and those who do it, ours first.

    Attributes:
        work: what is done, in a line.
        seconds: of signal that a step takes in.
        tolerance: of outputs, as the power of the difference over that of ours, in dB.
    """

    work: str
    seconds: float
    contestants: list[Contestant]
    tolerance: float = -80.0


@dataclass
class Result:
    """A contestant's times.

    Attributes:
        share: of real time that a step takes, the median of turns.
        ratio, low, high: its time over ours in the same turn: median and quartiles.
        apart: distance of its output from ours in dB; ``None`` for ours.
    """

    name: str
    share: float
    ratio: float
    low: float
    high: float
    apart: float | None
    differs: str


def hold(contest: Contest, turns: int) -> list[Result]:
    """Compare outputs, then take turns.

    Raises:
        ValueError: for an output that ought to be ours and is not.
    """
    apart = _distances(contest)
    counts = [_steps(contestant) for contestant in contest.contestants]
    times: list[list[float]] = [[] for _ in counts]
    for turn in range(turns):
        for index in _order(len(counts), turn):
            times[index].append(_turn(contest.contestants[index], counts[index]))
    results = []
    for contestant, own, distance in zip(contest.contestants, times, apart, strict=True):
        ratios = [theirs / ours for theirs, ours in zip(own, times[0], strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        share = statistics.median(own) / contest.seconds
        results.append(Result(contestant.name, share, ratio, low, high, distance, contestant.differs))
    return results


def _distances(contest: Contest, pieces: int = 12) -> list[float | None]:
    """Distances of the contestants' first outputs from ours, aligned by their ends."""
    ours, *others = (
        np.concatenate([contestant.step() for _ in range(pieces)], axis=-1) for contestant in contest.contestants
    )
    found: list[float | None] = [None]
    for contestant, theirs in zip(contest.contestants[1:], others, strict=True):
        distance = _decibels(theirs, ours)
        if not contestant.differs and distance > contest.tolerance:
            raise ValueError(
                f"{contest.work}: {contestant.name} is {distance:.1f} dB from ours, more than {contest.tolerance:g}: "
                "hint: weights were copied wrongly, or it does other work"
            )
        found.append(distance)
    return found


def _decibels(theirs: Frames, ours: Frames) -> float:
    frames = min(theirs.shape[-1], ours.shape[-1])
    if frames == 0:
        return float("inf")
    difference = np.square(theirs[..., :frames].astype(np.float64) - ours[..., :frames]).sum()
    return float(10 * np.log10(difference / np.square(ours[..., :frames], dtype=np.float64).sum() + 1e-30))


def _order(count: int, turn: int) -> Iterator[int]:
    """Another one begins each turn: who follows whom changes what lies in the caches."""
    return chain(range(turn % count, count), range(turn % count))


def _steps(contestant: Contestant) -> int:
    """Steps of a turn, after as many for warming up."""
    done, begun = 0, process_time()
    while process_time() - begun < SECONDS:
        contestant.step()
        done += 1
    return done


def _turn(contestant: Contestant, steps: int) -> float:
    """CPU seconds of a step. Threads of others in this process count too: run it with one thread each."""
    contestant.step()  # brings its own weights back into the caches
    begun = process_time()
    for _ in range(steps):
        contestant.step()
    return (process_time() - begun) / steps
