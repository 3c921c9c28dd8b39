"""Filters against scipy, in the time domain and over any chunking."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from astrape.blocks.base import Stream, StreamBlock
from astrape.blocks.filter import FIR, KINDS, Biquad, DCBlock, SteepHighpass

RATE = 44100


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def chunked(block: StreamBlock, x: torch.Tensor, sizes: list[int], **controls: float) -> torch.Tensor:
    prepared = block.prepare(block.read_controls(controls, x))
    state, parts, at = block.init_state(x.shape[0], dtype=x.dtype), [], 0
    for size in [*sizes, x.shape[-1]]:
        y, state = block.step(x[..., at : at + size], state, prepared)
        parts.append(y)
        at = min(at + size, x.shape[-1])
    return torch.cat(parts, dim=-1)


def cookbook(kind: str, frequency: float, q: float, gain_db: float) -> tuple[np.ndarray, np.ndarray]:
    """The cookbook's coefficients b, a as printed there."""
    w, a_ = 2 * math.pi * frequency / RATE, 10 ** (gain_db / 40)
    c, alpha, r = math.cos(w), math.sin(w) / (2 * q), math.sqrt(a_)
    p, m = a_ + 1, a_ - 1
    table = {
        "lowpass": ([(1 - c) / 2, 1 - c, (1 - c) / 2], [1 + alpha, -2 * c, 1 - alpha]),
        "highpass": ([(1 + c) / 2, -1 - c, (1 + c) / 2], [1 + alpha, -2 * c, 1 - alpha]),
        "bandpass": ([alpha, 0, -alpha], [1 + alpha, -2 * c, 1 - alpha]),
        "notch": ([1, -2 * c, 1], [1 + alpha, -2 * c, 1 - alpha]),
        "peaking": ([1 + alpha * a_, -2 * c, 1 - alpha * a_], [1 + alpha / a_, -2 * c, 1 - alpha / a_]),
        "low_shelf": (
            [a_ * (p - m * c + 2 * r * alpha), 2 * a_ * (m - p * c), a_ * (p - m * c - 2 * r * alpha)],
            [p + m * c + 2 * r * alpha, -2 * (m + p * c), p + m * c - 2 * r * alpha],
        ),
        "high_shelf": (
            [a_ * (p + m * c + 2 * r * alpha), -2 * a_ * (m + p * c), a_ * (p + m * c - 2 * r * alpha)],
            [p - m * c + 2 * r * alpha, 2 * (m - p * c), p - m * c - 2 * r * alpha],
        ),
    }
    b, a = table[kind]
    return np.array(b) / a[0], np.array(a) / a[0]


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    frequency=st.floats(20, 21000),
    q=st.floats(0.3, 20),
    gain_db=st.floats(-24, 24),
    frames=st.integers(1, 700),
    seed=st.integers(0, 2**31),
)
def test_biquad_equals_the_cookbook_run_by_scipy(kind, frequency, q, gain_db, frames, seed):
    x = torch.randn(2, 2, frames, generator=torch.Generator().manual_seed(seed))
    y = Biquad(Stream(RATE, 2), kind=kind, frequency=frequency, q=q, gain_db=gain_db)(x)
    expected = signal.lfilter(*cookbook(kind, frequency, q, gain_db), x.numpy(), axis=-1)
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(y.numpy() - expected).max() < 1e-9 * scale


def test_a_long_chunk_scans_over_several_levels_and_equals_scipy():
    x = torch.randn(1, 1, 64 * 64 * 70 + 64 * 3 + 17)
    for kind, frequency in [("highpass", 20.0), ("peaking", 3000.0)]:
        y = Biquad(Stream(RATE, 1), kind=kind, frequency=frequency, q=2.0, gain_db=6.0)(x)
        expected = signal.lfilter(*cookbook(kind, frequency, 2.0, 6.0), x.numpy(), axis=-1)
        assert np.abs(y.numpy() - expected).max() < 1e-9


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(0, 300), max_size=8), live=st.booleans(), seed=st.integers(0, 2**31))
def test_chunking_never_matters(sizes, live, seed):
    x = torch.randn(2, 1, 900, generator=torch.Generator().manual_seed(seed))
    controls = {"cutoff": 60.0} if live else {}
    blocks = [
        Biquad(Stream(RATE, 1), kind="highpass", frequency="cutoff" if live else 60.0),
        *([] if live else [DCBlock(Stream(RATE, 1)), FIR(Stream(RATE, 1), taps=[0.5, -1.0, 0.25, 2.0])]),
    ]
    for block in blocks:
        assert torch.allclose(chunked(block, x, sizes, **controls), block(x, **controls), atol=1e-10, rtol=0)


def test_live_parameters_differ_by_batch_row_and_equal_fixed_ones():
    x = torch.randn(2, 1, 1000)
    live = Biquad(Stream(RATE, 1), kind="low_shelf", frequency="f", q="q", gain_db="g")
    y = live(x, f=torch.tensor([[200.0], [2000.0]]), q=0.9, g=torch.tensor([[6.0], [-9.0]]))
    for row, (frequency, gain_db) in enumerate([(200.0, 6.0), (2000.0, -9.0)]):
        fixed = Biquad(Stream(RATE, 1), kind="low_shelf", frequency=frequency, q=0.9, gain_db=gain_db)
        assert torch.allclose(y[row], fixed(x)[row], atol=1e-11)


def test_a_jump_of_the_frequency_leaves_no_burst():
    t = torch.arange(RATE) / RATE
    x = torch.sin(2 * math.pi * 100 * t)[None, None]
    block = Biquad(Stream(RATE, 1), kind="lowpass", frequency="f", q=0.7)
    state = block.init_state(1)
    loud = 0.0
    for index, piece in enumerate(x.split(441, dim=-1)):
        value = 8000.0 if index % 2 else 300.0
        y, state = block.step(piece, state, block.prepare({"f": torch.tensor([[value]])}))
        loud = max(loud, float(y.abs().max()))
    assert loud < 1.5


def test_float32_is_accurate_far_below_the_rate():
    x = torch.randn(1, 1, 200_000)
    exact = Biquad(Stream(48000, 1), kind="highpass", frequency=20.0)(x)
    torch.set_default_dtype(torch.float32)
    y = Biquad(Stream(48000, 1), kind="highpass", frequency=20.0)(x.float())
    assert (y - exact).abs().max() < 2e-5


def test_gradients_reach_input_and_live_parameters():
    block = Biquad(Stream(RATE, 1), kind="peaking", frequency="f", q=1.0, gain_db=6.0)
    x = torch.randn(1, 1, 150, requires_grad=True)
    f = torch.tensor([[900.0]], requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, f: block.step(x, block.init_state(1), block.prepare({"f": f}))[0], (x, f))


def test_dc_block_equals_the_bilinear_transform():
    x = torch.randn(1, 2, 5000) + 3
    b, a = signal.butter(1, 10, "highpass", fs=RATE)
    expected = signal.lfilter(b, a, x.numpy(), axis=-1)
    assert np.abs(DCBlock(Stream(RATE, 2))(x).numpy() - expected).max() < 1e-10


@settings(deadline=None, max_examples=30)
@given(taps=st.lists(st.floats(-2, 2), min_size=1, max_size=40), frames=st.integers(1, 100))
def test_fir_equals_scipy_and_declares_its_support(taps, frames):
    if not any(taps):
        with pytest.raises(ValueError, match="zero"):
            FIR(Stream(RATE, 1), taps=taps)
        return
    block = FIR(Stream(RATE, 1), taps=taps)
    x = torch.randn(1, 1, frames)
    assert np.allclose(block(x).numpy(), signal.lfilter(taps, [1.0], x.numpy(), axis=-1), atol=1e-12)
    seen = torch.zeros(1, 1, 60, requires_grad=True)
    block(seen)[0, 0, -1].backward()
    assert seen.grad is not None
    ages = [59 - int(index) for index in seen.grad[0, 0].nonzero()]
    assert block.receptive_field * RATE == max(ages) + 1
    assert block.latency * RATE * 2 == max(ages) + min(ages)


@pytest.mark.parametrize(
    "wrong", [{"kind": "brick"}, {"frequency": 0.0}, {"frequency": 30000.0}, {"q": 0.0}, {"gain_db": 200.0}]
)
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Biquad(Stream(RATE, 1), **{"kind": "lowpass", "frequency": 1000.0, **wrong})


def test_steep_highpass_is_scipys_and_as_flat_as_it_says():
    block = SteepHighpass(Stream(RATE, 2), frequency=60.0)
    x = torch.randn(2, 2, 3000, generator=torch.Generator().manual_seed(1))
    sections = signal.cheby2(5, 40, 60, "high", fs=RATE, output="sos")
    assert np.abs(chunked(block, x, [1, 700, 64]).numpy() - signal.sosfilt(sections, x.numpy())).max() < 1e-11
    frequencies = np.array([1e-3, 50.0, 59.9, 102.0, 120.0])
    heights = 20 * np.log10(np.abs(signal.sosfreqz(sections, frequencies, fs=RATE)[1]))
    assert (heights[:3] < -39.9).all()
    assert heights[3] > -2
    assert heights[4] > -0.8


@pytest.mark.parametrize("wrong", [{"frequency": 20000.0}, {"stop_db": 3.0}])
def test_steep_highpass_names_what_is_wrong(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SteepHighpass(Stream(RATE, 1), **wrong)
