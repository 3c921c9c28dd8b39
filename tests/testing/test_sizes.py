"""Blocks whose output is a thousand times as long as their input are checked in bounded passes, no less strictly."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from astrape.blocks import State, Stream, StreamBlock
from astrape.measure import measurement
from astrape.measure.measurement import _first_true
from astrape.measure.subject import MOST_GIVEN
from astrape.measure.timing import check_latency, check_oldest_input, check_receptive_field
from astrape.testing import ContractError, Subject, check_block, measure
from tests.testing.sound_blocks import (
    Convolution,
    Delay,
    Gate,
    Interpolator,
    LiveGain,
    Rounding,
    Smooth,
    Sum,
    Upsampler,
)
from tests.testing.zoo import ZOO
from tests.testing.zoo.cut import LongRing

MONO = Stream(1000, 1)
SOUND: dict[str, Callable[[], StreamBlock]] = {
    "convolution": lambda: Convolution(MONO, kernel=7, stride=3),
    "upsampler": lambda: Upsampler(MONO),
    "interpolator": lambda: Interpolator(MONO),
    "delay": lambda: Delay(MONO, frames=40),
    "gate": lambda: Gate(MONO),
    "rounding": lambda: Rounding(MONO),
    "controlled gain": lambda: LiveGain(MONO),
    "smooth": lambda: Smooth(MONO),
    "sum": lambda: Sum({"dry": MONO, "wet": MONO}),
}


class Spoken(StreamBlock):
    """Says each number and those before it, in hundredths: 1764 frames without a gradient, from one."""

    def __init__(self, source: Stream, *, last: int = 30, declared: int = 30) -> None:
        super().__init__(source, ratio=1764)
        self.last, self.declared = last, declared

    @property
    def receptive_field(self) -> Fraction | None:
        return Fraction(self.declared) / self.rate_in

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(batch_size, 1, self.last - 1, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        heard = torch.cat([state, x], dim=-1)
        kept = heard[..., x.shape[-1] :].clone(memory_format=torch.contiguous_format)
        if not x.shape[-1]:
            return x.clone(), kept
        said = heard.unfold(-1, self.last, 1).mul(100).round().sum(dim=-1)
        return said.repeat_interleave(1764, dim=-1), kept


@pytest.mark.parametrize("name", SOUND)
def test_frames_in_one_row_have_the_support_that_they_have_in_rows_of_their_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    block = SOUND[name]()
    apart = measure(block)
    monkeypatch.setattr(measurement, "ROW_BUDGET", 1)
    assert measure(block) == apart


TIMED = {"receptive field": check_receptive_field, "oldest input": check_oldest_input, "latency": check_latency}


@pytest.mark.parametrize("name", [name for name, (_, broken) in ZOO.items() if broken in TIMED])
def test_specimens_with_wrong_times_are_rejected_in_one_row_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "ROW_BUDGET", 1)
    torch.manual_seed(0)
    build, property_name = ZOO[name]
    with pytest.raises(ContractError) as caught:
        TIMED[property_name](Subject(build()))
    assert caught.value.property_name == property_name, str(caught.value)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    cases=st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(-5, 310), st.integers(-5, 310)),
        min_size=1,
        max_size=5,
    )
)
def test_the_first_true_is_found_from_any_guess(cases: list[tuple[int, int, int, int]]) -> None:
    low, high = (torch.tensor([pick(first, last) for first, last, _, _ in cases]) for pick in (min, max))
    edge = torch.tensor([place for _, _, place, _ in cases])
    found = _first_true(lambda cut: cut >= edge, low, high, torch.tensor([guess for *_, guess in cases]))
    first = torch.minimum(torch.maximum(edge, low), high)
    assert found.equal(first)
    guess = torch.maximum(low, torch.minimum(torch.tensor([guess for *_, guess in cases]), high - 1))
    rough = _first_true(lambda cut: cut >= edge, low, high, guess, exact=False)
    assert bool(((rough >= edge) | (rough == high)).all())
    assert ((rough <= guess) == (first <= guess)).all()
    beyond, found_beyond = guess - first, guess - rough
    assert bool((torch.where(first <= guess, beyond - found_beyond, found_beyond.abs() - beyond.abs()) >= 0).all())
    assert bool((torch.where(first <= guess, 2 * found_beyond >= beyond - 1, found_beyond >= 2 * beyond)).all())


def test_a_right_guess_takes_two_tests_and_a_wrong_one_a_few_more() -> None:
    for guess, most in ((500_000, 2), (499_999, 2), (500_100, 16), (0, 42)):
        asked: list[int] = []

        def holds(cut: Tensor, asked: list[int] = asked) -> Tensor:
            asked.append(int(cut))
            return cut >= 500_000

        ends = torch.tensor([0]), torch.tensor([1_000_000])
        assert int(_first_true(holds, *ends, torch.tensor([guess]))) == 500_000
        assert len(asked) <= most


def test_a_memory_is_bounded_by_what_comes_out_and_not_cut_short() -> None:
    held = Subject(LongRing(Stream(25, 1))).memory()
    assert LongRing.ring < held <= MOST_GIVEN // 1764


def test_no_pass_of_a_check_makes_more_than_a_few_times_what_a_memory_may_come_to() -> None:
    longest = 0

    class Watched(Spoken):
        def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
            nonlocal longest
            y, after = super().step(x, state, controls)
            longest = max(longest, y.numel())
            return y, after

    check_block(Watched(Stream(25, 1)), examples=2)
    assert longest <= 4 * MOST_GIVEN


@pytest.mark.parametrize("budget", [1, measurement.ROW_BUDGET])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("declared", [30, 29, 7, 31, 90])
def test_what_says_numbers_aloud_is_measured(
    declared: int, exact: bool, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "ROW_BUDGET", budget)
    subject = Subject(Spoken(Stream(25, 1), last=30, declared=declared))
    measured = measurement.measure_subject(subject, frames=4, exact=exact)
    assert measured.receptive_field is None or measured.receptive_field <= Fraction(30, 25)
    if declared == 30 or (declared > 30 and not exact):
        check_receptive_field(subject, measured, exact=exact)
        return
    with pytest.raises(ContractError) as caught:
        check_receptive_field(subject, measured, exact=exact)
    assert caught.value.property_name == "receptive field"
