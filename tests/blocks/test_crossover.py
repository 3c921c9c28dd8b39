"""Crossovers against scipy's Butterworth filters, and the level of their sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from astrape.blocks import Stream
from astrape.blocks.crossover import Crossover
from tests.blocks.chunks import assert_chunks_agree, chunk_lists

RATE = 44100


def impulse(block: Crossover, frames: int = 1 << 16) -> dict[str, np.ndarray]:
    x = torch.zeros(1, 1, frames, dtype=torch.float64)
    x[..., 0] = 1
    return {name: y[0, 0].numpy() for name, y in block.double()(x).items()}


@pytest.mark.parametrize("order", [2, 4, 8])
def test_two_bands_are_butterworths_twice(order):
    bands = impulse(Crossover(Stream(RATE, 1), frequencies=[1000.0], order=order), 4000)
    x = np.zeros(4000)
    x[0] = 1
    for name, kind, sign in (("0", "low", 1), ("1", "high", -1 if order == 2 else 1)):
        sections = signal.butter(order // 2, 1000, kind, fs=RATE, output="sos")
        expected = sign * signal.sosfilt(sections, signal.sosfilt(sections, x))
        assert np.abs(bands[name] - expected).max() < 1e-12


@settings(deadline=None, max_examples=15)
@given(
    frequencies=st.lists(st.floats(60, 20000), min_size=1, max_size=5, unique=True).map(sorted),
    order=st.sampled_from([2, 4, 8]),
)
def test_any_number_of_bands_sums_flat(frequencies, order):
    bands = impulse(Crossover(Stream(RATE, 1), frequencies=frequencies, order=order))
    assert list(bands) == [str(band) for band in range(len(frequencies) + 1)]
    level = np.abs(np.fft.rfft(sum(bands.values())))
    assert np.abs(20 * np.log10(level)).max() < 1e-3


def test_each_band_is_six_decibels_down_at_its_borders_and_flat_between():
    bands = impulse(Crossover(Stream(RATE, 1), frequencies=[200.0, 4000.0]))
    level = {name: 20 * np.log10(np.abs(np.fft.rfft(y)) + 1e-12) for name, y in bands.items()}

    def at(name: str, frequency: float) -> float:
        return float(level[name][round(frequency / RATE * (1 << 16))])

    assert at("0", 200) == pytest.approx(-6.02, abs=0.1)
    assert at("1", 200) == pytest.approx(-6.02, abs=0.1)
    assert at("1", 4000) == pytest.approx(-6.02, abs=0.1)
    assert at("1", 900) == pytest.approx(0, abs=0.1)
    assert at("0", 2000) < -75
    assert at("2", 400) < -75


def test_single_precision_is_as_flat():
    x = torch.zeros(1, 2, 1 << 15)
    x[..., 0] = 1
    bands = Crossover(Stream(RATE, 2), frequencies=[80.0, 800.0, 8000.0])(x)
    level = torch.fft.rfft(sum(bands.values()).double()).abs()
    assert (20 * level.log10()).abs().max() < 1e-3


@settings(deadline=None, max_examples=10)
@given(chunks=chunk_lists, order=st.sampled_from([2, 4, 8]))
def test_chunking_never_matters(chunks, order):
    assert_chunks_agree(Crossover(Stream(RATE, 2), frequencies=[300.0, 3000.0], order=order), chunks)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frequencies": []},
        {"frequencies": [300.0, 200.0]},
        {"frequencies": [30000.0]},
        {"frequencies": [9.0], "order": 3},
    ],
)
def test_what_is_wrong_is_named(wrong):
    with pytest.raises(ValueError, match=list(wrong)[-1]):
        Crossover(Stream(RATE, 1), **wrong)
