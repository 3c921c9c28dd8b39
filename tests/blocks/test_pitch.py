"""The pitch tracker on signals whose pitch is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

import astrape
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
@given(f0=st.floats(62, 790), tilt=st.booleans())
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


def test_the_window_has_nearly_all_influence_and_its_middle_is_the_latency():
    block = PitchTracker(Stream(RATE, 1), fmin=100.0)
    x = (0.1 * torch.randn(1, 1, 20 * block.quantum, generator=torch.Generator().manual_seed(3))).requires_grad_()
    block(x)[0, 1, -1].backward()
    assert x.grad is not None
    energy = x.grad[0, 0].square() / x.grad.square().sum()
    assert int(energy.nonzero()[-1]) == x.shape[-1] - 1
    # What the high-pass remembers is older than the window, and little.
    assert energy[: -block.window].sum() < 0.002
    assert energy[-block.window :][:40].sum() > 0
    # From the middle of the newest hop to the middle of the window.
    assert block.latency * RATE == Fraction(block.window - block.quantum, 2)
    age = x.shape[-1] - block.quantum / 2 - (energy * (torch.arange(x.shape[-1]) + 0.5)).sum()
    assert abs(age - float(block.latency) * RATE) < block.window / 10


@settings(deadline=None, max_examples=40)
@given(f0=st.floats(815, 3900), harmonics=st.integers(1, 5), tilt=st.booleans(), fmax=st.sampled_from([800.0, 400.0]))
def test_a_pitch_above_the_range_is_none(f0, harmonics, tilt, fmax):
    time = torch.arange(RATE // 2) / RATE
    parts = [torch.sin(2 * math.pi * f0 * h * time + h * h) / (h if tilt else 1) for h in range(1, harmonics + 1)]
    x = 0.05 * torch.stack([part for h, part in enumerate(parts, 1) if h * f0 < 7600]).sum(0)[None, None]
    y = PitchTracker(Stream(RATE, 1), fmax=fmax)(x)[0, :, 8:]
    assert not y[0].any()
    assert y[1].max() < 0.5


@pytest.mark.parametrize("f0", [520.0, 600.0, 700.0, 999.0, 1000.0, 1500.0])
def test_a_voice_above_the_range_is_not_read_as_a_fraction_of_itself(f0):
    x = voice(torch.full((RATE // 2,), f0))
    y = PitchTracker(Stream(RATE, 1), fmax=500.0)(x)[0, :, 8:]
    assert not y[0].any()
    assert y[1].max() < 0.5
    y = PitchTracker(Stream(RATE, 1), fmax=1600.0)(x)[0, :, 8:]
    assert (y[0] / f0 - 1).abs().max() < 0.002


@pytest.mark.parametrize(("fmin", "fmax"), [(300.0, 900.0), (150.0, 600.0)])
def test_short_windows_read_no_fraction_either(fmin, fmax):
    block = PitchTracker(Stream(RATE, 1), fmin=fmin, fmax=fmax)
    for f0 in (1.03 * fmax, 1400.0, 2063.0, 2754.0, 2800.0, 2864.0, 2897.0, 3400.0):
        y = block(voice(torch.full((RATE // 2,), f0)))[0, :, 16:]
        assert not y[0].any()
        assert y[1].max() < 0.5


def test_a_glide_out_of_the_range_and_back_ends_and_returns():
    f0 = 400 * 2 ** (1.5 * torch.sin(math.pi * torch.arange(2 * RATE) / (2 * RATE)))
    y = PitchTracker(Stream(RATE, 1))(voice(f0))[0, 0]
    true = f0[(torch.arange(len(y)) * 160 - 240).clamp(min=0)]
    assert not y[true > 850].any()
    inside = (true < 760) & (torch.arange(len(y)) > 6)
    assert (y[inside] / true[inside] - 1).abs().max() < 0.03


def speech() -> torch.Tensor:
    """Recorded speech with a peak of 0.1."""
    path = Path(astrape.__file__).parent / "recipes/audio/sense-and-sensibility.flac"
    samples, rate = soundfile.read(path)
    x = signal.resample_poly(samples, RATE, rate)
    return torch.from_numpy(0.1 * x / abs(x).max())[None, None]


def changed(clean: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Shares of the voiced frames that are lost or off by 5 %, and of the others that are voiced now."""
    voiced = clean > 0
    wrong = voiced & ((y / clean.clamp(min=1) - 1).abs() > 0.05)
    return float(wrong.sum() / voiced.sum()), float((~voiced & (y > 0)).sum() / (~voiced).sum())


@pytest.mark.parametrize("offset", [0.02, -0.1, 0.9])
def test_an_offset_changes_nothing(offset):
    x, block = speech(), PitchTracker(Stream(RATE, 1))
    assert (block(x + offset) - block(x)).abs().max() < 1e-6
    # Half way through, it is a click.
    x[..., x.shape[-1] // 2 :] += offset / 10
    wrong, false = changed(block(speech())[0, 0], block(x)[0, 0])
    assert wrong < 0.01
    assert false < 0.01


@pytest.mark.parametrize("frequency", [15.0, 25.0, 33.3, 45.0, 50.0, 55.0, 60.0])
def test_what_sounds_below_the_range_hides_no_voice_and_is_none(frequency):
    x, block = speech(), PitchTracker(Stream(RATE, 1))
    hum = 0.02 * torch.sin(2 * math.pi * frequency * torch.arange(x.shape[-1]) / RATE + 1)
    wrong, false = changed(block(x)[0, 0], block(x + hum)[0, 0])
    assert wrong < 0.015
    assert false < 0.005
    assert not block(hum[None, None])[0, 0].any()


@pytest.mark.parametrize("frequency", [50.0, 60.0])
@pytest.mark.parametrize("name", ["digits/2934z", "librivox/0870", "nsh/ru_0004"])
def test_hum_half_as_loud_as_the_voice_moves_no_more_than_edges_of_voice(name, frequency):
    """The rest of the hum, 40 dB below, changes only frames at the edge of being voiced, or hardly voiced."""
    samples, rate = soundfile.read(Path(__file__).parents[1] / f"audio/speech/{name}.flac")
    x = signal.resample_poly(samples, RATE, rate)
    x = torch.from_numpy(0.1 * x / abs(x).max())[None, None, : len(x) // 160 * 160]
    block = PitchTracker(Stream(RATE, 1))
    clean = block(x)[0]
    hum = 0.05 * torch.sin(2 * math.pi * frequency * torch.arange(x.shape[-1]) / RATE + 1)
    y = block(x + hum)[0, 0]
    voiced = clean[0] > 0
    moved = (voiced != (y > 0)) | (voiced & ((y / clean[0].clamp(min=1) - 1).abs() > 0.05))
    turns = torch.nn.functional.pad((voiced[1:] != voiced[:-1]).double(), (0, 1))
    edge = torch.nn.functional.max_pool1d(turns[None, None], 7, 1, 3)[0, 0] > 0
    assert moved.double().mean() < 0.01
    assert not (moved & ~edge & (clean[1] > 0.7)).any()


def test_single_precision_agrees():
    x, block = speech(), PitchTracker(Stream(RATE, 1))
    clean = block(x)[0, 0]
    assert max(changed(clean, block.float()((x + 0.5).float())[0, 0].double())) < 0.002


@pytest.mark.parametrize("wrong", [{"fmin": 5.0}, {"fmax": 70.0}, {"hop": 0}, {"window_ms": 0.5}, {"silence_db": 3.0}])
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PitchTracker(Stream(RATE, 1), **wrong)


def test_two_channels_are_refused():
    with pytest.raises(RateError, match="one channel"):
        PitchTracker(Stream(RATE, 2))
