"""The oscillator against its formula, over any chunking, and far into a stream."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from astrape.blocks import Stream
from astrape.blocks.oscillator import SHAPES, TURN, Oscillator
from astrape.errors import RateError
from tests.blocks.chunks import assert_chunks_agree, chunk_lists

RATE = 16000
CLOCK = torch.zeros(1, 1, RATE, dtype=torch.float64)


def wave(frequency: float, **params: object) -> np.ndarray:
    block = Oscillator(Stream(RATE, 1), frequency=frequency, **params).double()
    return block(CLOCK)[0, 0].numpy()


@settings(deadline=None, max_examples=20)
@given(frequency=st.floats(0, 7999), phase=st.floats(0, 1))
def test_a_sine_is_a_sine(frequency, phase):
    turns = np.arange(RATE) * frequency / RATE + phase
    fade = min(1.0, max(0.0, RATE / 2 / max(frequency, 1e-9) - 1))
    assert np.abs(wave(frequency, phase=phase) - fade * np.sin(2 * np.pi * turns)).max() < 1e-7


@pytest.mark.parametrize(
    ("shape", "oracle"),
    [
        ("sawtooth", lambda angle: signal.sawtooth(angle + np.pi)),
        ("square", signal.square),
        ("triangle", lambda angle: signal.sawtooth(angle + np.pi / 2, width=0.5)),
    ],
)
def test_shapes_are_scipys_but_for_their_corners(shape, oracle):
    angle = 2 * np.pi * np.arange(RATE) * 10 / RATE
    y = wave(10.0, shape=shape, harmonics=511)
    assert np.sqrt(np.mean((y - oracle(angle)) ** 2)) < 0.06
    middle = np.abs(np.mod(angle / (np.pi / 2), 1) - 0.5) < 0.3
    assert np.abs((y - oracle(angle))[middle]).max() < 0.02


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_aliases(shape):
    y = wave(1100.0, shape=shape)
    power = np.abs(np.fft.rfft(y)) ** 2
    harmonics = np.arange(1100, RATE // 2, 1100)
    assert power[harmonics].sum() > (1 - 1e-12) * power.sum()


def test_the_input_may_set_the_frequency():
    frequency = 300 + 200 * torch.sin(2 * math.pi * 5 * torch.arange(RATE, dtype=torch.float64) / RATE)
    y = Oscillator(Stream(RATE, 1)).double()(frequency[None, None])[0, 0]
    phase = torch.cat([torch.zeros(1, dtype=torch.float64), frequency.cumsum(0)[:-1]]) / RATE
    assert (y - torch.sin(2 * math.pi * phase)).abs().max() < 1e-6
    broken = torch.tensor([[[100.0, math.nan, math.inf, -5.0, 100.0]]])
    assert torch.isfinite(Oscillator(Stream(RATE, 1))(broken)).all()


def test_a_change_of_frequency_makes_no_step():
    block = Oscillator(Stream(RATE, 1), frequency="f").double()
    state, parts = block.init_state(1), []
    for frequency in (100.0, 700.0, 55.5):
        prepared = block.prepare({"f": torch.tensor([[frequency]], dtype=torch.float64)})
        y, state = block.step(CLOCK[..., :777], state, prepared)
        parts.append(y)
    assert torch.cat(parts, dim=-1).diff().abs().max() < 2 * math.pi * 700 / RATE * 1.001


def test_a_week_later_it_is_in_tune():
    block = Oscillator(Stream(48000, 1), frequency=440.0).double()
    samples = 48000 * 86400 * 7
    state = torch.tensor([[samples * round(440 / 48000 * TURN) % TURN]])
    late, _ = block.step(CLOCK[..., :480], state, block.prepare({}))
    assert (late - block(CLOCK[..., :480])).abs().max() < 1e-3


@settings(deadline=None, max_examples=10)
@given(chunks=chunk_lists)
def test_chunking_never_matters(chunks):
    assert_chunks_agree(Oscillator(Stream(RATE, 2), frequency="f", shape="square"), chunks, f=440.0)
    assert_chunks_agree(Oscillator(Stream(RATE, 1), shape="triangle"), chunks)


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="frequency"):
        Oscillator(Stream(RATE, 1), frequency=8001.0)
    with pytest.raises(ValueError, match="shape"):
        Oscillator(Stream(RATE, 1), frequency=1.0, shape="round")
    with pytest.raises(RateError, match="one channel"):
        Oscillator(Stream(RATE, 2))
