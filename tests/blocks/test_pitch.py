"""The pitch tracker on signals whose pitch is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.blocks.base import Stream
from astrape.blocks.pitch import PitchTracker
from astrape.errors import RateError

RATE = 16000


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def voice(f0: torch.Tensor, rate: int = RATE) -> torch.Tensor:
    """Harmonics below 4 kHz, falling by 6 dB an octave, at a pitch given sample by sample."""
    phase = 2 * math.pi * f0.cumsum(0) / rate
    harmonics = [torch.sin(h * phase + h * h) * (f0 * h < 4000) / h for h in range(1, 80)]
    return 0.1 * torch.stack(harmonics).sum(0)[None, None]


@settings(deadline=None, max_examples=20)
@given(f0=st.floats(62, 490), tilt=st.booleans())
def test_steady_tones_within_two_thousandths(f0, tilt):
    x = voice(torch.full((RATE // 2,), f0))
    if not tilt:
        x = 0.1 * torch.sin(2 * math.pi * f0 * torch.arange(RATE // 2) / RATE)[None, None]
    y = PitchTracker(Stream(RATE, 1))(x)[0, :, 8:]
    assert (y[0] / f0 - 1).abs().max() < 0.002
    assert y[1].min() > 0.98


def test_a_glide_is_followed_at_the_declared_latency():
    block = PitchTracker(Stream(RATE, 1))
    f0 = 100 * 2 ** (torch.arange(2 * RATE) / (2 * RATE) * 1.5)
    y = block(voice(f0))[0, 0]
    frame = torch.arange(len(y))
    # A frame stands for the middle of its hop, less the latency.
    when = (frame + 0.5) * block.quantum - float(block.latency) * RATE
    keep = when > block.window
    expected = 100 * 2 ** (when[keep] / (2 * RATE) * 1.5)
    assert (y[keep] / expected - 1).abs().max() < 0.003


def test_noise_and_silence_have_no_pitch():
    noise = 0.1 * torch.randn(1, 1, 3 * RATE, generator=torch.Generator().manual_seed(1))
    y = PitchTracker(Stream(RATE, 1))(noise)[0]
    assert (y[0] > 0).double().mean() < 0.02
    assert y[1].mean() < 0.5
    y = PitchTracker(Stream(RATE, 1))(torch.zeros(1, 1, RATE))[0]
    assert not y.any()


def test_a_voice_in_noise_keeps_its_octave():
    x = voice(torch.full((3 * RATE,), 130.0))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)) * x.std() * 10 ** (-10 / 20)
    y = PitchTracker(Stream(RATE, 1))(x + noise)[0, 0, 8:]
    assert ((y / 130 - 1).abs() < 0.02).double().mean() > 0.99


def test_voicing_starts_and_stops_with_the_voice():
    tone, rest = voice(torch.full((RATE // 2,), 150.0)), torch.zeros(1, 1, RATE // 2)
    y = PitchTracker(Stream(RATE, 1))(torch.cat([rest, tone, rest], dim=-1))[0, 0]
    assert not y[:48].any()
    assert not y[108:].any()
    assert ((y[56:98] - 150).abs() < 1).all()


@settings(deadline=None, max_examples=15)
@given(sizes=st.lists(st.integers(0, 9), max_size=8), seed=st.integers(0, 2**31))
def test_chunking_never_matters(sizes, seed):
    block = PitchTracker(Stream(RATE, 1), fmin=100.0)
    random = torch.Generator().manual_seed(seed)
    x = voice(100 + 200 * torch.rand(40, generator=random).repeat_interleave(160)).repeat(2, 1, 1)
    x = x + 0.03 * torch.randn(x.shape, generator=random)
    state, parts, at = block.init_state(2, dtype=x.dtype), [], 0
    for size in [*sizes, 40]:
        y, state = block.step(x[..., at : at + size * block.quantum], state, {})
        parts.append(y)
        at = min(at + size * block.quantum, x.shape[-1])
    assert torch.allclose(torch.cat(parts, dim=-1), block(x), atol=1e-10, rtol=1e-10)


def test_the_whole_window_has_influence_and_its_middle_is_the_latency():
    block = PitchTracker(Stream(RATE, 1), fmin=100.0)
    x = (0.1 * torch.randn(1, 1, 10 * block.quantum, generator=torch.Generator().manual_seed(3))).requires_grad_()
    block(x)[0, 1, -1].backward()
    assert x.grad is not None
    seen = x.grad[0, 0].nonzero()[:, 0]
    assert int(seen[-1]) == x.shape[-1] - 1
    assert int(seen[-1] - seen[0]) + 1 == block.window
    # From the middle of the newest hop to the middle of what is seen.
    middle = Fraction(int(seen[0]) + int(seen[-1]) + 1, 2)
    assert block.latency * RATE == x.shape[-1] - Fraction(block.quantum, 2) - middle


@pytest.mark.parametrize("wrong", [{"fmin": 5.0}, {"fmax": 70.0}, {"hop": 0}, {"window_ms": 0.5}, {"silence_db": 3.0}])
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PitchTracker(Stream(RATE, 1), **wrong)


def test_two_channels_are_refused():
    with pytest.raises(RateError, match="one channel"):
        PitchTracker(Stream(RATE, 2))
