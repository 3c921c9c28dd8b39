"""The shipped voice changer and denoiser, whole: latency as their headers say, and what they do to a voice."""

from __future__ import annotations

import math

import pytest
import torch

import astrape

RATE = 44100


def voice(seconds: float) -> torch.Tensor:
    """A pulse-like voice at 130 Hz."""
    t = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    x = sum(torch.cos(2 * math.pi * 130 * h * t) / h for h in range(1, 60))
    return (0.05 * torch.as_tensor(x)).float()[None, None]


@pytest.mark.parametrize(("recipe", "n_fft", "hop"), [("voice-changer", 1536, 384), ("denoiser", 1024, 256)])
def test_latency_is_the_window_and_cutting_never_matters(recipe, n_fft, hop):
    graph = astrape.load(recipe)
    assert graph.lookahead == 0
    assert graph.latency * RATE == n_fft - hop
    assert graph.host_latency * RATE == n_fft - 1
    x = voice(0.4)
    with torch.no_grad():
        whole = graph(x)
        session = graph.stream(batch_size=1)
        parts = torch.cat([session.push(piece) for piece in x.split(441, dim=-1)], dim=-1)
    assert torch.allclose(parts, whole[..., : parts.shape[-1]], atol=2e-5)


def test_the_pitch_control_moves_the_pitch():
    graph = astrape.load("voice-changer")
    x = voice(1.0)
    with torch.no_grad():
        y = graph(x, pitch=7.0)
    tracker = astrape.blocks.PitchTracker(astrape.blocks.Stream(RATE, 1))
    f0 = tracker(y)[0, 0, 30:]
    assert float((f0 / (130 * 2 ** (7 / 12)) - 1).abs().median()) < 0.002


def test_strength_zero_of_the_denoiser_leaves_its_high_pass_alone():
    graph = astrape.load("denoiser")
    x = voice(0.5)
    with torch.no_grad():
        y = graph(x, strength=0.0)
        high_pass = astrape.blocks.Biquad(astrape.blocks.Stream(RATE, 1), kind="highpass", frequency=50.0)(x)
    delay = 1024 - 256
    assert torch.allclose(y[..., delay:], high_pass[..., : y.shape[-1] - delay], atol=1e-5)
