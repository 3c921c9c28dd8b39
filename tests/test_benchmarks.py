"""Comparison with the peers: outputs before times, and times in turns."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np
import pytest

from benchmarks import contest as under_test
from benchmarks.contest import Contest, Contestant, Frames, _order, hold


class Clock:
    """CPU time that only the steps of a test use up."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(under_test, "process_time", made)
    return made


def ramp(clock: Clock, scale: float = 1.0, seconds: float = 0.01, frames: int = 4) -> Callable[[], Frames]:
    """A step whose output tells how often it was called."""
    steps = count()

    def step() -> Frames:
        clock.now += seconds
        return np.full((1, frames), scale * (1 + next(steps)), np.float32)

    return step


def test_an_output_that_is_not_ours_is_refused(clock: Clock) -> None:
    with pytest.raises(ValueError, match=r"theirs is -60\.0 dB from ours, more than -80"):
        hold(Contest("ramp", 1.0, [Contestant("ours", ramp(clock)), Contestant("theirs", ramp(clock, 1.001))]), 2)


def test_an_output_that_has_a_reason_to_differ_is_told_with_it(clock: Clock) -> None:
    other = Contestant("theirs", ramp(clock, 2.0), "other filter")
    ours, theirs = hold(Contest("ramp", 1.0, [Contestant("ours", ramp(clock)), other]), 2)
    assert (ours.apart, ours.ratio) == (None, 1.0)
    assert theirs.apart == pytest.approx(0.0)
    assert theirs.differs == "other filter"


def test_an_output_without_frames_is_refused(clock: Clock) -> None:
    contestants = [Contestant("ours", ramp(clock)), Contestant("theirs", ramp(clock, frames=0))]
    with pytest.raises(ValueError, match="inf dB"):
        hold(Contest("ramp", 1.0, contestants), 2)


def test_times_are_of_a_step_and_ratios_of_turns(clock: Clock) -> None:
    contestants = [Contestant(name, ramp(clock, seconds=cost)) for name, cost in (("ours", 0.01), ("theirs", 0.03))]
    ours, theirs = hold(Contest("ramp", 0.5, contestants), 4)
    assert (ours.share, theirs.share) == pytest.approx((0.02, 0.06))
    assert (theirs.low, theirs.ratio, theirs.high) == pytest.approx((3.0, 3.0, 3.0))


def test_another_one_begins_each_turn() -> None:
    assert [list(_order(3, turn)) for turn in range(4)] == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]
