"""The envelope follower against a loop, and dynamics that another signal leads against those that lead themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from astrape.blocks import Compressor, Gate, Stream
from astrape.blocks.sidechain import Envelope, SidechainCompressor, SidechainGate
from astrape.errors import RateError
from tests.blocks.chunks import assert_chunks_agree, chunk_lists

RATE = 8000
PAIR = {"music": Stream(RATE, 2), "voice": Stream(RATE, 1)}


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@settings(deadline=None, max_examples=25)
@given(
    attack_ms=st.sampled_from([0.0, 1.0, 30.0]), release_ms=st.sampled_from([0.0, 5.0, 400.0]), seed=st.integers(0, 99)
)
def test_peak_equals_a_loop(attack_ms, release_ms, seed):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 2, 300, generator=random) * (torch.rand(1, 1, 300, generator=random) > 0.7)
    y = Envelope(Stream(RATE, 2), attack_ms=attack_ms, release_ms=release_ms)(x)
    attack, release = (math.exp(-1 / max(ms * RATE / 1000, 0.02)) for ms in (attack_ms, release_ms))
    for channel in range(2):
        held = level = 0.0
        for n in range(300):
            held = max(abs(float(x[0, channel, n])), release * held)
            level = attack * level + (1 - attack) * held
            assert abs(float(y[0, channel, n]) - level) < 1e-12


def test_rms_equals_scipy_and_has_finite_gradients():
    x = torch.randn(2, 2, 5000, generator=torch.Generator().manual_seed(1))
    x[..., 1000:2000] = 0
    a = math.exp(-1 / (0.05 * RATE))
    expected = np.sqrt(signal.lfilter([1 - a], [1, -a], x.numpy() ** 2))
    y = Envelope(Stream(RATE, 2), kind="rms", release_ms=50.0)(x.requires_grad_())
    assert np.abs(y.detach().numpy() - expected).max() < 1e-12
    y.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_a_steady_tone_has_the_levels_of_the_documentation():
    tone = torch.sin(2 * math.pi * 200 * torch.arange(2 * RATE) / RATE)[None, None]
    for kind, expected in (("peak", 1.0), ("rms", 0.7071)):
        y = Envelope(Stream(RATE, 1), kind=kind)(tone)[..., RATE:]
        assert abs(float(y.mean()) / expected - 1) < 0.02


@settings(deadline=None, max_examples=15)
@given(chunks=chunk_lists)
def test_chunking_never_matters(chunks):
    for block in (
        Envelope(Stream(RATE, 2)),
        Envelope(Stream(RATE, 2), kind="rms"),
        SidechainCompressor(PAIR),
        SidechainGate(PAIR),
    ):
        assert_chunks_agree(block, chunks)


def test_led_by_itself_each_is_the_plain_block():
    x = torch.randn(2, 2, 4000, generator=torch.Generator().manual_seed(2)) * torch.linspace(0, 1, 4000)
    both = {"a": Stream(RATE, 2), "b": Stream(RATE, 2)}
    for led, plain, params in (
        (SidechainCompressor, Compressor, {"threshold_db": -30.0, "ratio": 8.0, "makeup_db": 3.0}),
        (SidechainGate, Gate, {"threshold_db": -10.0, "hold_ms": 3.0, "release_ms": 10.0}),
    ):
        assert torch.equal(led(both, **params)({"a": x, "b": x}), plain(Stream(RATE, 2), **params)(x))


def test_music_ducks_under_a_voice_and_comes_back():
    music = 0.2 * torch.ones(1, 2, 3 * RATE)
    voice = torch.zeros(1, 1, 3 * RATE)
    voice[..., RATE : 2 * RATE] = 10 ** (-10 / 20)
    y = SidechainCompressor(PAIR, threshold_db=-40.0, ratio=1000.0, knee_db=0.0)({"music": music, "voice": voice})
    assert torch.equal(y[..., :RATE], music[..., :RATE])
    assert float(y[0, 0, 2 * RATE - 1]) == pytest.approx(0.2 * 10 ** (-30 * 0.999 / 20), rel=1e-6)
    assert float(y[0, 0, -1]) == pytest.approx(0.2, rel=1e-2)


def test_the_sidechain_opens_the_gate_and_the_signal_does_not():
    loud, quiet = torch.ones(1, 2, RATE), torch.zeros(1, 1, RATE)
    gate = SidechainGate(PAIR)
    assert gate({"music": loud, "voice": quiet}).abs().max() < 1.001e-3
    assert gate({"music": loud, "voice": quiet + 0.5})[..., 200:].min() > 0.99


def test_what_is_wrong_is_named():
    with pytest.raises(RateError, match="two inputs"):
        SidechainGate({"a": Stream(RATE, 1)})
    with pytest.raises(ValueError, match="release_ms"):
        Envelope(Stream(RATE, 1), release_ms=-1.0)
    with pytest.raises(ValueError, match="kind"):
        Envelope(Stream(RATE, 1), kind="mean")
