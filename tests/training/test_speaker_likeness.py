"""The loss that hears who speaks, against the package's own way from samples to an embedding."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from numpy.typing import NDArray

import astrape
from astrape.training.errors import TrainingError
from astrape.training.objectives import LossContext, Objective, build_loss
from astrape.training.objectives.likeness import SpeakerLikeness

resemblyzer = pytest.importorskip("resemblyzer", reason="resemblyzer is not installed")

SAMPLE = Path(astrape.__file__).parent / "recipes" / "audio" / "sense-and-sensibility.flac"


def build(rate: int, **given: float) -> Objective:
    return build_loss(
        {"use": "speaker_likeness", "of": "wav", **given}, LossContext({"wav": 1}, {"wav": Fraction(rate)})
    )


@pytest.fixture(scope="module")
def speech() -> NDArray[np.float32]:
    """1.6 s at 16 kHz."""
    samples, rate = soundfile.read(SAMPLE, dtype="float32")
    resampled: NDArray[np.float32] = soxr.resample(samples, rate, 16000, "HQ")
    return 0.2 * resampled[8000 : 8000 + 25440]


def own(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The package's embedding of 1.6 s: raised to its level, 40 bands by librosa, its network."""
    raised = resemblyzer.normalize_volume(samples, -30, increase_only=True)
    mel = torch.from_numpy(resemblyzer.wav_to_mel_spectrogram(raised))[None]
    with torch.no_grad():
        found: NDArray[np.float32] = resemblyzer.VoiceEncoder("cpu", verbose=False)(mel)[0].numpy()
    return found


def test_it_hears_what_the_package_hears(speech: NDArray[np.float32]) -> None:
    loss = build(16000)
    assert isinstance(loss, SpeakerLikeness)
    with torch.no_grad():
        for level in (1.0, 0.01):
            heard = loss.voice(torch.from_numpy(level * speech).reshape(1, 1, -1))[0]
            np.testing.assert_allclose(heard.numpy(), own(level * speech), atol=2e-4)


def test_it_hears_the_same_at_another_rate(speech: NDArray[np.float32]) -> None:
    loss, other = build(16000), build(44100)
    assert isinstance(loss, SpeakerLikeness)
    assert isinstance(other, SpeakerLikeness)
    up = torch.from_numpy(soxr.resample(speech, 16000, 44100, "HQ")).reshape(1, 1, -1)
    with torch.no_grad():
        cosine = (loss.voice(torch.from_numpy(speech).reshape(1, 1, -1)) * other.voice(up)).sum()
    assert cosine > 0.99


def test_the_same_voice_scores_0_another_more_and_silence_does_not_count(speech: NDArray[np.float32]) -> None:
    loss = build(16000)
    same = torch.from_numpy(speech).reshape(1, 1, -1)
    # A tape at 1.4 times its speed is another speaker.
    fast = torch.from_numpy(np.resize(soxr.resample(speech, 22400, 16000, "HQ"), len(speech))).reshape(1, 1, -1)
    weights = torch.ones_like(same)
    assert float(loss(same, same, weights).total / weights.sum()) == pytest.approx(0, abs=1e-5)
    assert float(loss(fast, same, weights).total / weights.sum()) > 0.1
    total, weight = loss(torch.cat((fast, same)), torch.cat((same, torch.zeros_like(same))), weights.repeat(2, 1, 1))
    assert float(weight) == weights.sum()
    assert float(total) == pytest.approx(float(loss(fast, same, weights).total), rel=1e-4)
    nothing = loss(same, same, torch.zeros_like(same))
    assert (float(nothing.total), float(nothing.weight)) == (0.0, 0.0)


def test_its_gradient_leads_to_the_target(speech: NDArray[np.float32]) -> None:
    loss = build(16000, seconds=0.6)
    target = torch.from_numpy(speech[:9600]).reshape(1, 1, -1)
    colour = torch.zeros(40, requires_grad=True)
    spectrum = torch.fft.rfft(torch.flip(target, (-1,)) + 0.5 * target)
    optimiser = torch.optim.Adam([colour], lr=0.1)
    scores = []
    for _ in range(12):
        gains = torch.nn.functional.interpolate(colour[None, None].exp(), spectrum.shape[-1], mode="linear")
        total, weight = loss(torch.fft.irfft(spectrum * gains, 9600), target, torch.ones_like(target))
        optimiser.zero_grad()
        (total / weight).backward()
        optimiser.step()
        scores.append(float(total / weight))
    assert scores[-1] < 0.9 * scores[0]


def test_the_network_is_neither_trained_nor_saved(speech: NDArray[np.float32]) -> None:
    loss = build(16000)
    wave = torch.from_numpy(speech).reshape(1, 1, -1).requires_grad_()
    loss(wave, wave.detach() * 0.5 + 0.01, torch.ones_like(wave)).total.backward()
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}
    assert wave.grad is not None


def test_what_it_cannot_hear_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match="hears up to 8000 Hz, and 8000 Hz holds 4000"):
        build(8000)
    with pytest.raises(TrainingError, match="seconds"):
        build(16000, seconds=100)
    monkeypatch.setitem(__import__("sys").modules, "resemblyzer", None)
    with pytest.raises(TrainingError, match=r"hint: pip install 'astrape\[default\]'"):
        build(16000)
