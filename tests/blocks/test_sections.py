"""Chains of sections against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from astrape.blocks.ops.sections import StateSpace, cascade, chebyshev_highpass, first_order, second_order


def run(chain: StateSpace, x: np.ndarray, dtype: torch.dtype = torch.float64) -> np.ndarray:
    like = torch.zeros(1, 1, len(chain.b), dtype=dtype)
    y, _ = chain.unroll().to(like).run(torch.from_numpy(x).to(dtype)[None, None], like)
    return y[0, 0].double().numpy()


@pytest.mark.parametrize(
    ("order", "edge", "stop_db", "rate"), [(1, 100, 20, 8000), (3, 1000, 30, 8000), (5, 60, 40, 44100)]
)
def test_chebyshev_highpass_is_scipys(order, edge, stop_db, rate):
    x = np.random.default_rng(0).standard_normal(20000)
    chain = chebyshev_highpass(order, edge, stop_db, rate)
    expected = signal.sosfilt(signal.cheby2(order, stop_db, edge, "high", fs=rate, output="sos"), x)
    assert abs(run(chain, x) - expected).max() < 1e-11
    assert abs(run(chain, x, torch.float32) - expected).max() < 2e-6


def test_sections_have_the_responses_that_their_coefficients_say():
    rate, corner = 16000, 700.0
    g = np.tan(np.pi * corner / rate)
    parts = [first_order(g, 0.5, 2.0), second_order(g, 0.3, 1.5, -0.4, 0.7), second_order(g, 1.9, 0.0, 1.0, -2.0)]
    frequencies = np.array([1.0, 300.0, 700.0, 1500.0, 5000.0])
    s = 1j * np.tan(np.pi * frequencies / rate) / g
    second = (1.5 * s**2 - 0.4 * s + 0.7) / (s**2 + 0.3 * s + 1) * (s - 2) / (s**2 + 1.9 * s + 1)
    expected = (0.5 * s + 2) / (s + 1) * second
    chain = cascade(parts)
    z = np.exp(2j * np.pi * frequencies / rate)
    found = [chain.c @ np.linalg.solve(turn * np.eye(5) - chain.a, chain.b) + chain.d for turn in z]
    assert np.allclose(found, expected, rtol=1e-9)


def test_at_rest_a_constant_leaves_the_state_as_it_is():
    chain = cascade([first_order(0.1, 1.0, 0.5), second_order(0.2, 0.5, 1.0, 0.2, 0.9)])
    state = chain.at_rest()
    assert np.allclose(chain.a @ state + chain.b, state, atol=1e-13)
