"""The factored transform against numpy's, in both directions, at every kind of length."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.blocks.ops.dft import FRAMES_AT_ONCE, WindowedDFT, WindowedInverseDFT, factors


def random_frames(n: int, batch: int = 2, count: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, count, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numpy_spectrum(frames: torch.Tensor, window: np.ndarray) -> torch.Tensor:
    spectrum = np.fft.rfft(frames.numpy() * window)
    return torch.from_numpy(np.concatenate([spectrum.real, spectrum.imag], axis=-1)).transpose(1, 2)


def numpy_frames(spectrum: torch.Tensor, window: np.ndarray) -> np.ndarray:
    real, imaginary = spectrum.double().transpose(1, 2).chunk(2, dim=-1)
    return np.fft.irfft(torch.complex(real, imaginary).numpy(), n=len(window)) * window


@settings(deadline=None, max_examples=80)
@given(n=st.integers(1, 400), batch=st.integers(1, 3), count=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_both_directions_are_numpys_at_every_length(n: int, batch: int, count: int, seed: int) -> None:
    window = np.random.default_rng(seed).uniform(0.1, 1, n)
    frames = random_frames(n, batch, count, seed)
    spectrum = WindowedDFT(window).double()(frames)
    assert spectrum.shape == (batch, 2 * (n // 2 + 1), count)
    torch.testing.assert_close(spectrum, numpy_spectrum(frames, window), rtol=0, atol=1e-12 * n)
    noise = torch.randn(spectrum.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    back = WindowedInverseDFT(window).double()(noise)
    np.testing.assert_allclose(back, numpy_frames(noise, window), rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [1536, 1512, 2048, 392, 1025, 997, 4096])
def test_float32_is_as_accurate_as_one_large_matrix(n: int) -> None:
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    frames = random_frames(n, 1, 8).float()
    turns = 2 * np.pi * (np.outer(np.arange(n // 2 + 1), np.arange(n)) % n) / n
    matrix = torch.from_numpy(np.concatenate([np.cos(turns), -np.sin(turns)])).float()
    exact = numpy_spectrum(frames.double(), window)
    error = (WindowedDFT(window)(frames) - exact).norm()
    plain = (frames * torch.from_numpy(window).float()) @ matrix.T
    # A prime is one large matrix; the 2 % are for sums taken in another order.
    assert error < 1.02 * (plain.transpose(1, 2) - exact).norm()
    assert error < 10 ** (-130 / 20) * exact.norm()
    spectrum = exact.float()
    wanted = numpy_frames(spectrum, window)
    there = WindowedInverseDFT(window)(spectrum).double().numpy()
    assert np.linalg.norm(there - wanted) < 10 ** (-130 / 20) * np.linalg.norm(wanted)


def test_a_change_of_type_makes_the_tables_anew() -> None:
    window = np.hanning(100)
    frames = random_frames(100)
    there, back = WindowedDFT(window), WindowedInverseDFT(np.ones(100))
    for module in (there, back):
        module.half()
        module.double()
    error = back(there(frames)) - frames * torch.from_numpy(window)
    assert error.abs().max() < 1e-14
    narrow = copy.deepcopy(there).float()
    assert torch.equal(narrow.outer, WindowedDFT(window).outer)


def test_runs_of_frames_make_no_difference() -> None:
    window = np.hanning(12)
    frames = random_frames(12, 2, 2 * FRAMES_AT_ONCE + 3)
    there, back = WindowedDFT(window).double(), WindowedInverseDFT(window).double()
    spectrum = there(frames)
    assert torch.equal(spectrum[..., -3:], there(frames[:, -3:]))
    torch.testing.assert_close(back(spectrum)[:, 300:310], back(spectrum[..., 300:310]), rtol=0, atol=1e-14)


def test_tables_are_small() -> None:
    """The whole point: 0.24 MB of float32 for 1536 points, where one matrix takes 9.4 MB."""
    module = WindowedDFT(np.ones(1536))
    assert module.inner.shape == (98, 96)
    assert module.outer.shape == (49, 32, 32)
    assert factors(97) == (97, 1)


def test_gradients_are_the_transposes() -> None:
    window = np.hanning(30)
    there, back = WindowedDFT(window).double(), WindowedInverseDFT(window).double()
    assert torch.autograd.gradcheck(there, (random_frames(30, 1, 2).requires_grad_(),))
    spectrum = torch.randn(1, 32, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(back, (spectrum,))
