"""Blocks that keep the contract pass, and what is measured of them is what they are."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from astrape.blocks import Stream, StreamBlock
from astrape.testing import check_block
from tests.testing.sound_blocks import (
    Bend,
    CentredAverage,
    Convolution,
    Delay,
    Gate,
    Halves,
    Interpolator,
    LiveGain,
    Memory,
    Recurrent,
    Rounding,
    RunningMean,
    Scripted,
    Smooth,
    Sum,
    TupleRecurrent,
    Upsampler,
    UtteranceNorm,
)

STEREO = Stream(1000, 2)
BOUNDED = {
    "pointwise": (lambda: Bend(STEREO), Fraction(0), Fraction(1, 1000)),
    "scripted": (lambda: Scripted(STEREO), Fraction(0), Fraction(1, 1000)),
    "convolution": (lambda: Convolution(STEREO), Fraction(0), Fraction(5, 1000)),
    "wide convolution": (lambda: Convolution(Stream(16000, 1), kernel=400), Fraction(0), Fraction(400, 16000)),
    "decimator": (lambda: Convolution(STEREO, kernel=6, stride=4), Fraction(0), Fraction(6, 1000)),
    "upsampler": (lambda: Upsampler(STEREO), Fraction(0), Fraction(2, 1000)),
    "delay": (lambda: Delay(STEREO), Fraction(7, 1000), Fraction(8, 1000)),
    "interpolator": (lambda: Interpolator(STEREO), Fraction(0), Fraction(3, 1000)),
    "sum": (lambda: Sum({"dry": STEREO, "wet": STEREO}), Fraction(0), Fraction(1, 1000)),
    "split": (lambda: Halves(Stream(1000, 3)), Fraction(0), Fraction(1, 1000)),
    "controlled gain": (lambda: LiveGain(STEREO), Fraction(0), Fraction(1, 1000)),
    "fixed gain": (lambda: LiveGain(STEREO, decibels=-6.0), Fraction(0), Fraction(1, 1000)),
    "gate": (lambda: Gate(STEREO), Fraction(0), Fraction(1, 1000)),
    "memory": (lambda: Memory(STEREO), Fraction(0), Fraction(2, 1000)),
    "rounding": (lambda: Rounding(STEREO), Fraction(0), Fraction(2, 1000)),
}
UNBOUNDED = {
    "smooth": lambda: Smooth(STEREO),
    "fast smooth": lambda: Smooth(STEREO, a=0.9),
    "gru": lambda: Recurrent(STEREO),
    "lstm": lambda: TupleRecurrent(STEREO),
    "running mean": lambda: RunningMean(STEREO),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_bounded_blocks_pass_and_measure_exactly(name: str) -> None:
    torch.manual_seed(0)
    build, latency, receptive_field = BOUNDED[name]
    measured = check_block(build(), examples=10)
    assert measured.lookahead == 0
    assert measured.latency == latency
    assert measured.receptive_field == receptive_field


@pytest.mark.parametrize("name", UNBOUNDED)
def test_unbounded_blocks_pass_and_measure_no_end(name: str) -> None:
    torch.manual_seed(0)
    measured = check_block(UNBOUNDED[name](), examples=10)
    assert measured.latency == 0
    assert measured.receptive_field is None
    assert measured.state_bytes > 0


@pytest.mark.parametrize(
    ("block", "lookahead"), [(CentredAverage(STEREO), Fraction(2, 1000)), (UtteranceNorm(STEREO), None)]
)
def test_training_only_blocks_pass_when_honest(block: StreamBlock, lookahead: Fraction | None) -> None:
    assert check_block(block).lookahead == lookahead


def test_the_block_under_test_is_left_alone() -> None:
    block = Convolution(STEREO)
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    check_block(block, examples=0)
    assert block.training
    assert all(p.dtype == torch.float32 and p.grad is None for p in block.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in block.state_dict().items())


def test_two_settings_of_a_control_may_be_given() -> None:
    check_block(LiveGain(STEREO), controls=[{"level": -6.0}, {"level": 6.0}], examples=0)
