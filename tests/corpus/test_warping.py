"""Pseudo-speakers: formants and pitch move as they should, and time does not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("pyworld")
from scipy.signal import find_peaks, lfilter

from astrape.corpus.warping import fundamental, warped

RATE = 24000


def vowel(hertz: float, formants: tuple[float, ...], seconds: float = 1.0) -> NDArray[np.float32]:
    """Pulses through resonances, 100 ms of silence at both ends."""
    x = np.zeros(int(RATE * seconds))
    x[:: round(RATE / hertz)] = 1.0
    for formant in formants:
        pole = np.exp(-np.pi * 90 / RATE) * np.exp(2j * np.pi * formant / RATE)
        x = lfilter([1.0], np.poly([pole, pole.conjugate()]).real, x)
    x *= 0.3 / np.abs(x).max()
    x[: RATE // 10] = x[-RATE // 10 :] = 0
    return x.astype(np.float32)


def formants_of(audio: NDArray[np.float32], near: tuple[float, ...]) -> list[float]:
    """Peaks of a smooth spectrum (linear prediction of the middle), those nearest to where they are looked for."""
    middle = audio[len(audio) // 4 : 3 * len(audio) // 4].astype(np.float64)
    power = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) ** 2
    lags = np.fft.irfft(power)[:13]
    lags[0] *= 1 + 1e-6
    matrix = lags[np.abs(np.subtract.outer(np.arange(12), np.arange(12)))]
    whitening = np.concatenate(([1.0], -np.linalg.solve(matrix, lags[1:])))
    response = -np.log(np.abs(np.fft.rfft(whitening, 1 << 14)))
    peaks = find_peaks(response)[0] * RATE / (1 << 14)
    return [float(peaks[np.abs(peaks - hertz).argmin()]) for hertz in near]


@pytest.mark.parametrize("stretch", [0.8, 1.0, 1.25])
def test_formants_move_by_the_stretch_and_pitch_by_its_own_factor(stretch: float) -> None:
    formants = (700.0, 1500.0, 2800.0)
    audio = vowel(120.0, formants)
    f0 = np.full(80, 120.0, np.float32)
    f0[:8] = f0[-8:] = 0
    made, moved = warped(audio, f0, RATE, stretch, stretch**2)
    assert made.shape == audio.shape
    assert made.dtype == np.float32
    np.testing.assert_allclose(moved, f0 * stretch**2, rtol=1e-6)
    near = tuple(stretch * hertz for hertz in formants)
    np.testing.assert_allclose(formants_of(audio, formants), formants, rtol=0.04)
    np.testing.assert_allclose(formants_of(made, near), near, rtol=0.06)
    heard = fundamental(made, RATE, 80)
    np.testing.assert_allclose(np.median(heard[heard > 0]), 120 * stretch**2, rtol=0.01)


def test_time_stays() -> None:
    """A sound that begins at 0.3 s begins there in every pseudo-speaker."""
    audio = vowel(150.0, (600.0, 1700.0))
    audio[: int(0.3 * RATE)] = 0
    f0 = np.full(80, 150.0, np.float32)
    f0[:24] = f0[-8:] = 0
    made, _ = warped(audio, f0, RATE, 1.15, 1.3)
    levels = np.sqrt((made.reshape(-1, 300) ** 2).mean(1))
    begins = int(np.flatnonzero(levels > 0.1 * levels.max())[0])
    assert 22 <= begins <= 25


def test_silence_stays_silence() -> None:
    made, f0 = warped(np.zeros(RATE // 2, np.float32), np.zeros(40, np.float32), RATE, 1.2, 1.4)
    assert np.isfinite(made).all()
    assert np.abs(made).max() < 1e-3
    assert (f0 == 0).all()


def test_a_fundamental_is_that_of_the_middle_of_its_frame() -> None:
    seconds = np.arange(2 * 16000) / 16000
    hertz = 100 + 60 * seconds
    audio = np.sin(2 * np.pi * np.cumsum(hertz) / 16000) + 0.5 * np.sin(4 * np.pi * np.cumsum(hertz) / 16000)
    found = fundamental(audio.astype(np.float32), 16000, 160)
    middles = (np.arange(160) + 0.5) / 80
    inside = slice(20, 140)
    np.testing.assert_allclose(found[inside], 100 + 60 * middles[inside], rtol=0.005)
    assert len(fundamental(audio[:8000].astype(np.float32), 16000, 60)) == 60
