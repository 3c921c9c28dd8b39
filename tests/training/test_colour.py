"""Coloured targets: the numbers of a filtered voice are those that the encoder gives of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from scipy.signal import firwin2, lfilter

import astrape
from astrape.training.colour import KNOTS, coloured, draw_colour
from astrape.training.errors import TrainingError
from astrape.voice.own_encoder import AstrapeSpeaker

SAMPLE = Path(astrape.__file__).parent / "recipes" / "audio" / "sense-and-sensibility.flac"
RATE = 44100


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    """In a quiet hiss, so that no band of the mel spectrum is at its floor, where no filter moves it."""
    samples, rate = soundfile.read(SAMPLE, dtype="float32")
    resampled = soxr.resample(samples, rate, RATE, "HQ")[: 6 * RATE]
    hiss = 3e-3 * np.random.default_rng(0).normal(size=len(resampled))
    return torch.from_numpy((resampled + hiss).astype(np.float32)).reshape(1, -1)


@pytest.mark.parametrize("seed", range(4))
def test_the_tone_moves_as_the_encoder_hears_it_move(speech: torch.Tensor, seed: int) -> None:
    colour = 0.4 * np.random.default_rng(seed).normal(size=len(KNOTS))
    encoder = AstrapeSpeaker()
    before = encoder.embed(speech[0])
    filtered, moved = coloured(speech, before, colour, RATE)
    heard = encoder.embed(filtered[0])
    assert torch.equal(moved[:96], before[:96])
    far = (heard - before)[96:].norm()
    # Not to the last bit: a colour weighs frames anew.
    assert torch.nn.functional.cosine_similarity((moved - before)[96:120], (heard - before)[96:120], dim=0) > 0.97
    assert (heard - moved)[96:120].norm() < 0.25 * far
    # Speakers are 0.1 apart in each number, so this is another voice.
    assert far > 0.15


def test_the_filter_has_the_gains_that_were_drawn(speech: torch.Tensor) -> None:
    """By a linear-phase filter of SciPy's with the same gains at the same frequencies."""
    colour = 0.6 * np.random.default_rng(7).normal(size=len(KNOTS))
    filtered, _ = coloured(speech, torch.zeros(128), colour, RATE)
    grid = np.geomspace(41, 22000, 300)
    gains = np.exp(np.interp(np.log(grid), np.log(KNOTS), colour))
    taps = firwin2(8191, [0, *grid, RATE / 2], [gains[0], *gains, gains[-1]], fs=RATE)
    expected = lfilter(taps, 1.0, np.pad(speech[0].numpy(), (0, 4095)))[4095:]
    middle = slice(RATE // 2, -RATE // 2)
    error = filtered[0].numpy()[middle] - expected[middle]
    assert np.sqrt((error**2).mean()) < 0.01 * np.sqrt((expected[middle] ** 2).mean())


def test_colours_are_of_the_strength_that_is_asked_for_and_some_are_none() -> None:
    random = np.random.default_rng(0)
    drawn = np.array([draw_colour(random, 4.0) for _ in range(4000)])
    still = ~drawn.any(axis=1)
    assert still.mean() == pytest.approx(0.35, abs=0.03)
    np.testing.assert_allclose(drawn[:, 1:7].mean(axis=1), 0, atol=1e-12)
    # Of N(0, 4 dB) times a share that is uniform: 4 / sqrt(3), less what the mean of six takes.
    assert drawn[~still, 4].std() * 20 / np.log(10) == pytest.approx(4 / 3**0.5 * (5 / 6) ** 0.5, rel=0.05)


def test_a_speaker_without_tone_is_refused(speech: torch.Tensor) -> None:
    with pytest.raises(TrainingError, match="a speaker has 2 numbers, and the last 32 of 128 are the tone"):
        coloured(speech, torch.zeros(2), draw_colour(np.random.default_rng(0), 4.0), RATE)
