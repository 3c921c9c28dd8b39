"""Channels into channels, and the analytic signal."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy import signal

from astrape.blocks import Stream
from astrape.blocks.channels import Matrix, Pan
from astrape.blocks.hilbert import Hilbert
from astrape.errors import RateError
from tests.blocks.chunks import assert_chunks_agree, assert_declared, chunk_lists

RATE = 16000


def test_a_matrix_is_a_matrix():
    gains = np.random.default_rng(1).standard_normal((3, 2))
    x = torch.randn(2, 2, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = Matrix(Stream(RATE, 2), gains=gains.tolist()).double()(x)
    assert np.allclose(y.numpy(), np.einsum("ji,bin->bjn", gains, x.numpy()), atol=1e-14)


def test_a_pan_keeps_the_power():
    x = torch.randn(1, 1, 50, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for position in (-1.0, -0.3, 0.0, 0.8, 1.0):
        y = Pan(Stream(RATE, 1), position=position).double()(x)
        assert torch.allclose(y.square().sum(1, keepdim=True), x.square())
        angle = (position + 1) * math.pi / 4
        assert torch.allclose(y[:, 1:], x * math.sin(angle))
    assert Pan(Stream(RATE, 1), position=-1.0).double()(x)[:, 1].abs().max() < 1e-15


def test_a_balance_in_the_middle_changes_nothing():
    x = torch.randn(1, 2, 50, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert torch.allclose(Pan(Stream(RATE, 2)).double()(x), x, atol=1e-14)
    assert torch.allclose(Pan(Stream(RATE, 2), position=1.0).double()(x)[:, 1], 2**0.5 * x[:, 1], atol=1e-14)


def test_a_live_position_moves_without_a_click():
    block = Pan(Stream(RATE, 1), position="p")
    state, parts, one = block.init_state(1, dtype=torch.float64), [], torch.ones(1, 1, 800, dtype=torch.float64)
    for position in (-1.0, 1.0):
        y, state = block.step(one, state, {"p": torch.tensor([[position]], dtype=torch.float64)})
        parts.append(y)
    y = torch.cat(parts, dim=-1)
    assert y.diff().abs().max() < 0.03
    assert float(y[0, 1, -1]) == pytest.approx(1, abs=1e-3)


def test_the_analytic_signal_is_scipys_in_the_middle():
    time = np.arange(RATE) / RATE
    x = sum(np.sin(2 * np.pi * f * time + f) for f in (300.0, 1000.0, 3333.0, 7000.0))
    block = Hilbert(Stream(RATE, 1)).double()
    y = block(torch.from_numpy(x)[None, None])[0].numpy()
    analytic = signal.hilbert(x)
    late = int(block.latency * RATE)
    middle = slice(1000, RATE - 1000)
    assert np.array_equal(y[0, late:], x[:-late])
    assert np.abs(y[1, late:][middle] - analytic.imag[:-late][middle]).max() < 0.005


def test_the_envelope_of_a_tone_is_flat():
    tone = torch.sin(2 * math.pi * 440 * torch.arange(RATE, dtype=torch.float64) / RATE)[None, None]
    y = Hilbert(Stream(RATE, 1)).double()(0.3 * tone)[..., 1000:]
    envelope = y.square().sum(1).sqrt()
    assert float((envelope / 0.3 - 1).abs().max()) < 0.002


def test_its_latency_is_what_an_impulse_shows():
    assert_declared(Hilbert(Stream(RATE, 1), taps=7), 16)


@settings(deadline=None, max_examples=12)
@given(chunks=chunk_lists)
def test_chunking_never_matters(chunks):
    assert_chunks_agree(Hilbert(Stream(RATE, 2), taps=11), chunks)
    assert_chunks_agree(Pan(Stream(RATE, 2), position="p"), chunks, p=0.4)
    assert_chunks_agree(Matrix(Stream(RATE, 2), gains=[[0.5, -0.5]]), chunks)


def test_what_is_wrong_is_named():
    with pytest.raises(RateError, match="row 1 of gains"):
        Matrix(Stream(RATE, 2), gains=[[1.0, 2.0], [1.0]])
    with pytest.raises(ValueError, match="gains"):
        Matrix(Stream(RATE, 2), gains=[])
    with pytest.raises(ValueError, match="position"):
        Pan(Stream(RATE, 1), position=2.0)
    with pytest.raises(RateError, match="one channel or two"):
        Pan(Stream(RATE, 3))
    with pytest.raises(ValueError, match="taps"):
        Hilbert(Stream(RATE, 1), taps=65)
