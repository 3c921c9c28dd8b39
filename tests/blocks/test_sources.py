"""Noise and pulses, against sums written out harmonic by harmonic, and far into a stream."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from chunks import chunk_lists, run_chunks
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.blocks import Noise, PulseSource, Stream
from astrape.errors import RateError

FRAMES = Stream(100, 1)


def harmonics(f0: float, seconds: float, rate: float) -> npt.NDArray[np.float64]:
    """The definition, harmonic by harmonic, of a steady voice from time zero."""
    count = round(seconds * rate)
    turns = np.arange(1, count + 1) * f0 / rate
    y = np.zeros(count)
    number = 1
    while (weight := min(1.0, rate / 2 / f0 - number)) > 0:
        y += weight * np.cos(2 * np.pi * number * turns)
        number += 1
    return y * 2 * math.sqrt(f0 / rate)


@settings(max_examples=20, deadline=None)
@given(f0=st.floats(11, 2000), hop=st.sampled_from([80, 147, 441]))
def test_a_steady_voice_is_the_sum_of_its_harmonics(f0: float, hop: int) -> None:
    block = PulseSource(FRAMES, hop=hop)
    got = block(torch.full((1, 1, 20), f0, dtype=torch.float64)).double().flatten().numpy()
    ramp = round(0.002 * 100 * hop)
    np.testing.assert_allclose(got[ramp:], harmonics(f0, 0.2, 100.0 * hop)[ramp:], atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(chunks=chunk_lists, seed=st.integers(0, 2**24 - 1))
def test_noise_is_the_same_however_it_is_cut(chunks: list[int], seed: int) -> None:
    block = Noise(FRAMES, hop=5, channels=2, seed=seed)
    x = torch.zeros(2, 1, sum(chunks), dtype=torch.float64)
    assert torch.equal(block(x), run_chunks(block, x, chunks)[""])


def test_pulses_take_one_channel() -> None:
    with pytest.raises(RateError, match="one channel, F0 in Hz, not 2"):
        PulseSource(Stream(100, 2), hop=441)
