"""The shipped de-esser, robot voice and room, whole; and the denoiser after a mute.

That their graphs keep the contract, `tests/testing/test_every_recipe.py` checks, as of every recipe.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import signal

import astrape

RATE = 44100


def level(x: torch.Tensor) -> float:
    return 10 * math.log10(float(x.square().mean()) + 1e-20)


def hiss(seconds: float, decibels: float) -> torch.Tensor:
    """Noise above 6 kHz, as an s is."""
    noise = np.random.default_rng(1).standard_normal(round(seconds * RATE))
    x = signal.sosfilt(signal.butter(8, 6000, "high", fs=RATE, output="sos"), noise)
    return torch.from_numpy(x / x.std() * 10 ** (decibels / 20)).float()[None, None]


def vowel(seconds: float, decibels: float) -> torch.Tensor:
    """Harmonics of 130 Hz below 3 kHz."""
    t = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    x = torch.stack([torch.sin(2 * math.pi * 130 * h * t + h * h) / h for h in range(1, 23)]).sum(0)
    return (x / x.std() * 10 ** (decibels / 20)).float()[None, None]


@pytest.mark.parametrize(
    ("recipe", "algorithmic", "host"), [("de-esser", 0, 0), ("robot-voice", 132, 132), ("room", 132, 259)]
)
def test_latency_is_what_the_header_says_and_cutting_never_matters(recipe, algorithmic, host):
    graph = astrape.load(recipe)
    assert graph.latency * RATE == algorithmic
    assert graph.host_latency * RATE == host
    x = vowel(0.3, -12)
    with torch.no_grad():
        whole, session = graph(x), graph.stream()
        parts = torch.cat([session.push(piece) for piece in x.split(300, dim=-1)], dim=-1)
    assert torch.allclose(parts, whole[..., : parts.shape[-1]], atol=1e-5)


def test_the_de_esser_turns_an_s_down_and_a_vowel_not():
    graph = astrape.load("de-esser")
    with torch.no_grad():
        s, a, quiet = hiss(1, -15), vowel(1, -15), hiss(1, -60)
        assert level(graph(s)[..., RATE // 4 :]) < level(s) - 12
        assert abs(level(graph(a)[..., RATE // 4 :]) - level(a)) < 0.2
        assert abs(level(graph(quiet)[..., RATE // 4 :]) - level(quiet)) < 0.3
        # An s within a vowel is turned down without the vowel.
        both = graph(s + a)[..., RATE // 4 :]
        power = np.abs(np.fft.rfft(both[0, 0].numpy())) ** 2
        clean = np.abs(np.fft.rfft(a[0, 0, RATE // 4 :].numpy())) ** 2
        below = np.fft.rfftfreq(both.shape[-1], 1 / RATE) < 3000
        assert abs(10 * math.log10(power[below].sum() / clean[below].sum())) < 0.3


def test_the_robot_voice_makes_two_frequencies_of_one():
    graph = astrape.load("robot-voice")
    x = 0.01 * torch.sin(2 * math.pi * 1000 * torch.arange(RATE) / RATE)[None, None]
    with torch.no_grad():
        y = graph(x, hertz=70.0, drive=0.0)
        power = np.abs(np.fft.rfft(y[0, 0].double().numpy() * np.hanning(RATE))) ** 2
        near = {f: power[f - 4 : f + 5].sum() for f in (930, 1000, 1070)}
        assert near[930] + near[1070] > 0.98 * power.sum()
        assert near[1000] < 1e-4 * power.sum()
        plain = graph(x, amount=0.0)[..., 132:]
        assert torch.allclose(plain, x[..., :-132], atol=1e-6)
        assert float(graph(vowel(1, -3), drive=40.0).abs().max()) <= 10 ** (-1 / 20)


def test_the_room_has_two_sides_and_dies_away():
    graph = astrape.load("room")
    x = torch.zeros(1, 1, RATE)
    x[..., 0] = 0.5
    with torch.no_grad():
        y = graph(x, amount=1.0)[..., 132:]
        plain = graph(vowel(0.5, -20), amount=0.0)
    assert y.shape[1] == 2
    assert torch.allclose(y[..., 0], torch.full((1, 2), 0.5), atol=1e-4), "the voice is in the middle"
    early, late = y[..., 1 : RATE // 10], y[..., RATE // 2 : RATE * 3 // 5]
    assert level(late) < level(early) - 40
    sides = np.corrcoef(y[0, :, RATE // 50 : RATE // 5].numpy())[0, 1]
    assert sides < 0.6, "and the room is around"
    assert torch.allclose(plain[:, 0], plain[:, 1])


def test_the_shipped_denoiser_holds_over_a_mute():
    graph = astrape.load("denoiser")
    x = 0.01 * torch.randn(1, 1, 5 * RATE, generator=torch.Generator().manual_seed(2))
    x[..., 2 * RATE : 3 * RATE] = 0
    with torch.no_grad():
        y = graph(x)[..., 768:]
    before, after = (slice(round(a * RATE), round(b * RATE)) for a, b in ((1.0, 1.9), (3.1, 4.0)))
    assert level(y[..., before]) - level(x[..., before]) < -16
    assert level(y[..., after]) - level(x[..., after]) < -16
