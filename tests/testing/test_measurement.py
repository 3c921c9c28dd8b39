"""Measurements of a block agree with its full Jacobian, and need no Hypothesis."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from astrape.blocks import State, Stream, StreamBlock
from astrape.measure.measurement import sampled
from astrape.testing import measure
from tests.forks import run_program
from tests.testing.sound_blocks import Convolution, Delay, Gate, Interpolator, Rounding, Smooth, Upsampler

RATE = 1000
MONO = Stream(RATE, 1)


def jacobian_support(block: StreamBlock, quanta: int) -> dict[int, tuple[int, int]]:
    """Oldest and newest input of every frame of the last quantum, counted from its start, by the whole Jacobian."""
    torch.manual_seed(1)
    block = block.double()
    x = torch.randn(1, block.channels_in, quanta * block.quantum, dtype=torch.float64)
    slopes = torch.autograd.functional.jacobian(block, x)[0].abs().sum(dim=(0, 2, 3))
    step = int(block.quantum * block.ratio)
    found = {}
    for frame in range(step):
        used = slopes[(quanta - 1) * step + frame].nonzero().flatten() - (quanta - 1) * block.quantum
        found[frame] = int(used[0]), int(used[-1])
    return found


class Taps(StreamBlock):
    """A sparse filter with a stride, whose declarations say nothing of its zeros."""

    def __init__(self, source: Stream, taps: list[float], stride: int) -> None:
        super().__init__(source, quantum=stride, ratio=Fraction(1, stride))
        self.register_buffer("taps", torch.tensor(taps).reshape(1, 1, -1))
        self.kept = max(0, len(taps) - stride)

    @property
    def receptive_field(self) -> Fraction | None:
        return Fraction(max(self.taps.shape[-1], self.quantum)) / self.rate_in

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> State:
        return torch.zeros(batch_size, 1, self.kept, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor, controls: Any) -> tuple[Tensor, State]:
        heard = torch.cat([state, x], dim=-1)
        skipped = self.kept + self.quantum - self.taps.shape[-1]
        y = torch.nn.functional.conv1d(heard[..., skipped:], self.taps, stride=self.quantum)
        return y, heard[..., heard.shape[-1] - self.kept :].clone()


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    taps=st.lists(st.sampled_from((0.0, 0.0, 0.5, -1.0)), min_size=1, max_size=9).filter(any),
    stride=st.integers(1, 4),
)
def test_support_is_that_of_the_jacobian(taps: list[float], stride: int) -> None:
    block = Taps(MONO, taps, stride)
    ((oldest, newest),) = jacobian_support(block, 12).values()
    measured = measure(block)
    assert measured.support["out"][0].oldest == oldest
    assert measured.support["out"][0].newest == newest
    assert measured.receptive_field == Fraction(stride - oldest, RATE)
    assert measured.latencies == {"out": Fraction(stride - 1 - newest, RATE)}


@pytest.mark.parametrize(
    "block", [Convolution(MONO, kernel=7, stride=3), Upsampler(MONO), Interpolator(MONO), Delay(MONO, frames=4)]
)
def test_every_frame_of_a_quantum_has_the_support_of_the_jacobian(block: StreamBlock) -> None:
    want = jacobian_support(block, 12)
    assert {frame: (s.oldest, s.newest) for frame, s in measure(block).support["out"].items()} == want


def test_what_has_no_gradient_is_measured_by_change() -> None:
    assert measure(Rounding(MONO)).receptive_field == Fraction(2, RATE)
    assert measure(Gate(MONO)).receptive_field == Fraction(1, RATE)


def test_a_centre_is_that_of_the_window() -> None:
    class Window(Taps):
        latency_by = "centre"

    # Twelve taps that end with a hop of four: (12 - 4) / 2 frames, exactly.
    assert measure(Window(MONO, [1.0] * 12, 4)).latency == Fraction(4, RATE)
    # A first tap of zero moves the centre by half a frame.
    assert measure(Window(MONO, [0.0] + [1.0] * 11, 4)).latency == Fraction(7, 2 * RATE)


def test_a_memory_that_fades_has_no_end() -> None:
    for a in (0.999, 0.5, 0.01, 1e-5):
        assert measure(Smooth(MONO, a=a)).receptive_field is None


def test_a_probe_that_is_cut_short_claims_no_more_than_it_saw() -> None:
    measured = measure(Delay(MONO, frames=100), limit=50)
    assert measured.receptive_field is None or measured.receptive_field <= measured.probe
    assert measured.probe < Fraction(100, RATE)


@given(count=st.integers(1, 5000), most=st.integers(2, 80))
def test_sampled_frames_hold_the_first_and_the_last(count: int, most: int) -> None:
    frames = sampled(count, most)
    assert frames[0] == 0
    assert frames[-1] == count - 1
    assert len(frames) <= max(most, 1)
    assert frames == sorted(set(frames))


def test_measuring_does_not_load_hypothesis() -> None:
    code = "import sys, astrape.testing; assert astrape.testing.measure; sys.exit('hypothesis' in sys.modules)"
    done = run_program(code)
    assert done.returncode == 0, done.stderr
