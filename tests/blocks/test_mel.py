"""The mel front end against a filterbank built filter by filter from the definition."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from astrape.blocks import Stream
from astrape.blocks.mel import Mel, mel_filters
from astrape.errors import RateError
from astrape.testing import check_block


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hertz_to_mel(hertz: float, scale: str) -> float:
    if scale == "htk":
        return 1127.0104805 * math.log(1 + hertz / 700)
    return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000, 6.4)


def edge_frequency(mel: float, scale: str, top: float) -> float:
    """The frequency of a mel value by bisection, so that the inverse needs no formula of its own."""
    low, high = 0.0, top
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if hertz_to_mel(middle, scale) < mel else (low, middle)
    return low


def naive_filters(bins: int, n_fft: int, rate: float, fmin: float, fmax: float, scale: str) -> np.ndarray:
    first, last = hertz_to_mel(fmin, scale), hertz_to_mel(fmax, scale)
    edges = [edge_frequency(first + (last - first) * i / (bins + 1), scale, 2 * fmax) for i in range(bins + 2)]
    filters = np.zeros((bins, n_fft // 2 + 1))
    for j in range(bins):
        lower, centre, upper = edges[j : j + 3]
        for k in range(n_fft // 2 + 1):
            f = k * rate / n_fft
            if lower < f <= centre:
                filters[j, k] = (f - lower) / (centre - lower)
            elif centre < f < upper:
                filters[j, k] = (upper - f) / (upper - centre)
        if scale == "slaney":
            filters[j] *= 2 / (upper - lower)
    return filters


CASES = [
    {"hop": 882},
    {"hop": 441, "bins": 40, "n_fft": 1024, "fmin": 50.0, "fmax": 11025.0, "scale": "slaney", "power": 2},
    {"hop": 300, "bins": 64, "n_fft": 2000, "scale": "htk", "log": False},
    {"hop": 512, "bins": 20, "n_fft": 512, "scale": "htk", "power": 2, "floor": 1e-3},
]


@pytest.mark.parametrize("options", CASES)
def test_mel_is_the_definition_on_torchs_transform(options: dict[str, Any]) -> None:
    x = noise(2, 1, 6 * options["hop"])
    x[1] = 0
    n_fft, hop = options.get("n_fft", 2048), options["hop"]
    padded = nn.functional.pad(x[:, 0], (n_fft - hop, 0))
    spectrum = torch.stft(padded, n_fft, hop, window=torch.hann_window(n_fft), center=False, return_complex=True)
    scale = options.get("scale", "slaney")
    fmin, fmax = options.get("fmin", 0.0), options.get("fmax", 22050.0)
    filters = torch.from_numpy(naive_filters(options.get("bins", 80), n_fft, 44100, fmin, fmax, scale))
    expected = filters @ spectrum.abs() ** options.get("power", 1)
    if options.get("log", True):
        expected = expected.clamp(min=options.get("floor", 1e-5)).log()
    actual = Mel(Stream(44100, 1), **options)(x)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


def test_made_in_float32_it_is_exact_after_it_is_widened() -> None:
    x = noise(1, 1, 6 * 300)
    exact = Mel(Stream(44100, 1), hop=300, bins=40)(x)
    torch.set_default_dtype(torch.float32)
    block = Mel(Stream(44100, 1), hop=300, bins=40).double()
    torch.testing.assert_close(block(x.double()), exact, rtol=0, atol=1e-13)


def test_slaney_landmarks() -> None:
    """1 kHz is mel 15 and 6.4 kHz mel 42, so 41 filters over 0 to 6.4 kHz peak one mel apart."""
    filters = mel_filters(41, 16000, 16000.0, 0.0, 6400.0)
    peaks = filters.argmax(axis=1)
    assert peaks[14] == 1000
    assert peaks[0] == 67
    areas = filters.sum(axis=1)
    np.testing.assert_allclose(areas, 1.0, atol=0.01)


def test_htk_filters_peak_at_one() -> None:
    assert mel_filters(10, 8192, 16000.0, scale="htk").max() == pytest.approx(1.0, abs=0.01)


@given(quanta=st.lists(st.integers(0, 3), max_size=5), hop=st.integers(1, 64), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_any_chunking_gives_the_same_frames(quanta: list[int], hop: int, seed: int) -> None:
    block = Mel(Stream(8000, 1), hop=hop, bins=8, n_fft=64)
    x = noise(2, 1, (sum(quanta) + 2) * hop, seed=seed)
    state, parts, position = block.init_state(2, dtype=x.dtype), [], 0
    for count in [*quanta, 2]:
        y, state = block.step(x[..., position : position + count * hop], state, {})
        position += count * hop
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=-1), block(x), rtol=0, atol=1e-10)


def test_declared_numbers_are_the_measured_ones() -> None:
    block = Mel(Stream(8000, 1), hop=24, bins=8, n_fft=64)
    x = noise(1, 1, 24 * 5).requires_grad_()
    (gradient,) = torch.autograd.grad(block(x)[..., 4].sum(), x)
    touched = gradient.flatten().nonzero().flatten()
    assert int(touched[-1]) == 24 * 5 - 1
    assert int(touched[0]) == 24 * 4 + block.oldest_input(0)
    assert block.receptive_field == Fraction(24 * 5 - int(touched[0]), 8000)
    assert block.latency == Fraction(20, 8000)
    centre = Fraction(int(touched[0] + touched[-1] + 1), 2)
    assert abs(Fraction(9 * 24, 2) - centre - 20) <= 1


def test_gradients_are_finite_in_silence_and_the_same_in_both_modes() -> None:
    block = Mel(Stream(8000, 1), hop=16, bins=8, n_fft=64)
    silence = torch.zeros(1, 1, 96, requires_grad=True)
    block(silence).sum().backward()
    assert silence.grad is not None
    assert torch.equal(silence.grad, torch.zeros_like(silence))
    x = noise(1, 1, 96).requires_grad_()
    whole = torch.autograd.grad(block(x).square().sum(), x)[0]
    first, state = block.step(x[..., :32], block.init_state(1), {})
    rest, _ = block.step(x[..., 32:], state, {})
    cut = torch.autograd.grad(first.square().sum() + rest.square().sum(), x)[0]
    torch.testing.assert_close(cut, whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"log": False, "power": 2, "scale": "htk"}])
def test_the_contract_holds(options: dict[str, Any]) -> None:
    torch.set_default_dtype(torch.float32)
    check_block(Mel(Stream(8000, 1), hop=24, bins=8, n_fft=64, fmin=50.0, **options))


def test_export_takes_one_step() -> None:
    block = Mel(Stream(8000, 1), hop=16, bins=8, n_fft=64)

    class OneStep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            return self.block.step(x, state, {})

    x = noise(1, 1, 96)
    state = block.init_state(1, dtype=x.dtype)
    exported = torch.export.export(OneStep(), (x[..., :16], state)).module()
    parts = []
    for piece in x.split(16, dim=-1):
        y, state = exported(piece, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=-1), block(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"bins": 0}, ValueError, "bins must be a whole number from 1 to 1024, not 0"),
        ({"bins": 200, "n_fft": 256}, ValueError, "bins must be fewer than 200, or n_fft more than 256"),
        ({"fmin": 9000.0, "fmax": 100.0}, ValueError, "fmin and fmax must rise"),
        ({"fmax": 30000.0}, ValueError, "at most 22050 Hz"),
        ({"scale": "bark"}, ValueError, "scale must be one of slaney, htk, not 'bark'"),
        ({"power": 3}, ValueError, "power must be 1"),
        ({"floor": 0.0}, ValueError, "floor must be positive"),
        ({"hop": 4096}, ValueError, "hop must be a whole number from 1 to 2048"),
    ],
)
def test_hostile_parameters_are_refused_in_words(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Mel(Stream(44100, 1), **{"hop": 100, **options})


def test_stereo_is_refused() -> None:
    with pytest.raises(RateError, match="one channel, not 2"):
        Mel(Stream(44100, 2), hop=100)
