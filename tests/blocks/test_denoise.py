"""The denoiser on speech-like signals in white and coloured noise, and its parts against oracles."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, special

from astrape.blocks.base import Stream
from astrape.blocks.denoise import SpectralDenoise, exponential_integral
from astrape.blocks.spectral import ISTFT, STFT
from astrape.errors import RateError

RATE, N_FFT, HOP = 16000, 512, 128
SYLLABLE = RATE * 3 // 10


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def babble(seconds: float = 4.0) -> torch.Tensor:
    """Syllables of 0.3 s, every other one a pause: gliding harmonics under two formants that move."""
    t = torch.arange(round(seconds * RATE)) / RATE
    f0 = 130 + 25 * torch.sin(2 * math.pi * 0.7 * t)
    phase = 2 * math.pi * f0.cumsum(0) / RATE
    x = torch.zeros_like(t)
    for h in range(1, 40):
        for formant in (500 + 200 * torch.sin(2 * math.pi * 1.1 * t), 1700 + 500 * torch.sin(2 * math.pi * 0.9 * t)):
            x = x + torch.sin(h * phase + h * h) / (1 + ((h * f0 - formant) / 120) ** 2)
    on = (t * RATE).long() // SYLLABLE % 2
    swing = torch.sin(math.pi * ((t * RATE) % SYLLABLE) / SYLLABLE)
    return (0.1 * x * on * swing)[None, None]


def noise(kind: str, like: torch.Tensor, snr_db: float) -> torch.Tensor:
    white = torch.randn(like.shape, generator=torch.Generator().manual_seed(5))
    if kind == "coloured":
        white = torch.from_numpy(signal.lfilter([1.0], [1.0, -0.9], white.numpy(), axis=-1))
    return white * (like.std() / white.std() * 10 ** (-snr_db / 20))


def denoised(x: torch.Tensor, **params: float) -> torch.Tensor:
    analysis = STFT(Stream(RATE, 1), n_fft=N_FFT, hop=HOP)
    block = SpectralDenoise(analysis.output, **params)
    synthesis = ISTFT(block.output, n_fft=N_FFT, hop=HOP)
    return synthesis(block(analysis(torch.nn.functional.pad(x, (0, N_FFT)))))[..., N_FFT - HOP :][..., : x.shape[-1]]


def segmental_snr(clean: torch.Tensor, other: torch.Tensor) -> float:
    """Mean SNR of 32 ms segments with speech in them, each held within -10 and 35 dB."""
    c, o = (part[..., : part.shape[-1] // 512 * 512].reshape(-1, 512) for part in (clean, other))
    active = c.square().mean(1) > 0.01 * c.square().mean()
    snr = 10 * torch.log10(c.square().sum(1) / (c - o).square().sum(1).clamp(min=1e-12))
    return float(snr.clamp(-10, 35)[active].mean())


@pytest.mark.parametrize("kind", ["white", "coloured"])
@pytest.mark.parametrize("snr_db", [5.0, 10.0])
def test_noise_falls_and_speech_stays(kind, snr_db):
    clean = babble()
    noisy = clean + noise(kind, clean, snr_db)
    y = denoised(noisy)
    assert segmental_snr(clean, y) > segmental_snr(clean, noisy) + 3
    # The middle of the pauses, past the tails of windows and the fading of the speech.
    pause = torch.zeros(clean.shape[-1], dtype=torch.bool)
    for start in range(2 * SYLLABLE, clean.shape[-1], 2 * SYLLABLE):
        pause[start + SYLLABLE // 3 : start + SYLLABLE * 5 // 6] = True
    reduction = 10 * math.log10(float(y[..., pause].square().mean() / noisy[..., pause].square().mean()))
    assert -22 < reduction < -12
    loud = ~pause
    level = 10 * math.log10(float(y[..., loud].square().mean() / clean[..., loud].square().mean()))
    assert abs(level) < 1


def test_speech_in_little_noise_is_hardly_touched():
    clean = babble()
    noisy = clean + noise("white", clean, 45.0)
    assert segmental_snr(clean, denoised(noisy)) > 20


def test_strength_zero_passes_everything_and_the_floor_holds():
    x = babble(1.0) + noise("white", babble(1.0), 5.0)
    assert torch.allclose(denoised(x, strength=0.0), x, atol=1e-12)
    spectra = STFT(Stream(RATE, 1), n_fft=N_FFT, hop=HOP)(x)
    for strength in (1.0, 0.5):
        y = SpectralDenoise(Stream(125, N_FFT + 2), strength=strength, floor_db=-12.0)(spectra)
        bins = N_FFT // 2 + 1
        gain_db = 10 * torch.log10(
            (y[:, :bins].square() + y[:, bins:].square()) / (spectra[:, :bins].square() + spectra[:, bins:].square())
        )
        assert float(gain_db.min()) == pytest.approx(-12 * strength, abs=1e-6)
        assert float(gain_db.max()) < 1e-6


def test_noise_that_rises_is_followed_within_a_second():
    random = torch.Generator().manual_seed(6)
    quiet = 0.003 * torch.randn(1, 1, 2 * RATE, generator=random)
    loud = 0.01 * torch.randn(1, 1, 3 * RATE, generator=random)
    x = torch.cat([quiet, loud], dim=-1)
    y = denoised(x)
    late = slice(2 * RATE + RATE * 3 // 2, None)
    assert 10 * math.log10(float(y[..., late].square().mean() / x[..., late].square().mean())) < -14


def test_digital_silence_first_does_not_spoil_the_estimate():
    random = torch.Generator().manual_seed(7)
    hiss = 0.01 * torch.randn(1, 1, 2 * RATE, generator=random)
    y = denoised(torch.cat([torch.zeros(1, 1, RATE), hiss], dim=-1))
    assert float(y[..., : RATE // 2].abs().max()) == 0
    assert 10 * math.log10(float(y[..., -RATE:].square().mean() / hiss[..., -RATE:].square().mean())) < -14


def suppression(y: torch.Tensor, x: torch.Tensor, start: float, stop: float) -> float:
    """Level of ``y`` relative to ``x`` between two moments, dB."""
    part = slice(round(start * RATE), round(stop * RATE))
    return 10 * math.log10(float(y[..., part].square().mean() / x[..., part].square().mean()))


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.3, 1.0, 20.0])
@pytest.mark.parametrize("rest_db", [-math.inf, -98.0])
def test_a_mute_does_not_spoil_the_estimate(seconds, rest_db):
    random = torch.Generator().manual_seed(9)
    x = 0.01 * torch.randn(1, 1, round((4 + seconds) * RATE), generator=random)
    mute = slice(2 * RATE, 2 * RATE + round(min(seconds, 9.0 if rest_db > -math.inf else seconds) * RATE))
    x[..., mute] *= 10 ** (rest_db / 20) / 0.01
    y, back = denoised(x), mute.stop / RATE
    before = suppression(y, x, 1, 2)
    assert before < -17
    assert suppression(y, x, back + 0.05, back + 0.5) < before + 1.5
    assert suppression(y, x, back + 0.5, back + 1.5) < before + 1


def test_a_mute_while_it_learns_does_not_spoil_the_estimate():
    random = torch.Generator().manual_seed(10)
    x = 0.01 * torch.randn(1, 1, 3 * RATE, generator=random)
    x[..., RATE // 25 : RATE] = 0
    assert suppression(denoised(x), x, 1.2, 3) < -15


def test_a_level_that_stays_fallen_is_learned_in_the_end():
    random = torch.Generator().manual_seed(11)
    x = 0.1 * torch.randn(1, 1, 14 * RATE, generator=random)
    x[..., 2 * RATE :] *= 1e-3
    clean = 1e-3 * torch.randn(1, 1, RATE // 2, generator=random)
    x[..., -RATE // 2 :] += clean
    y = denoised(x)
    assert suppression(y, x, 13, 13.4) < -17
    # What is 20 dB above the new noise is passed.
    assert suppression(y, x, 13.55, 13.7) > -3


def test_exponential_integral_equals_scipy():
    x = torch.logspace(-5, 2, 2000)
    assert np.abs(exponential_integral(x).numpy() / special.exp1(x.numpy()) - 1).max() < 6e-5


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.integers(0, 20), max_size=8), seed=st.integers(0, 2**31))
def test_chunking_never_matters_and_rows_keep_apart(sizes, seed):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 66, 60, generator=random) * torch.rand(2, 1, 60, generator=random) ** 3
    block = SpectralDenoise(Stream(100, 66), strength="s")
    prepared = block.prepare(block.read_controls({"s": torch.tensor([[1.0], [0.3]])}, x))
    state, parts, at = block.init_state(2, dtype=x.dtype), [], 0
    for size in [*sizes, 60]:
        y, state = block.step(x[..., at : at + size], state, prepared)
        parts.append(y)
        at = min(at + size, 60)
    assert torch.allclose(torch.cat(parts, dim=-1), block(x, s=torch.tensor([[1.0], [0.3]])), atol=1e-10)
    alone = SpectralDenoise(Stream(100, 66), strength=0.3)(x[1:])
    assert torch.allclose(torch.cat(parts, dim=-1)[1:], alone, atol=1e-10)


def test_gradients_are_finite_even_in_silence():
    x = torch.randn(1, 66, 20, generator=torch.Generator().manual_seed(8))
    x[..., 5:10] = 0
    x.requires_grad_()
    SpectralDenoise(Stream(100, 66))(x).square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("wrong", [{"strength": 1.5}, {"floor_db": 3.0}])
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SpectralDenoise(Stream(100, 66), **wrong)


def test_channels_must_be_pairs():
    with pytest.raises(RateError, match="real and imaginary"):
        SpectralDenoise(Stream(100, 65))
