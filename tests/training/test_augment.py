"""Augmentations: each does what it says, measured from outside, and nothing it does makes the source late."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch

from astrape.training.augment import augmentation_names, augmented, build_augmentation
from astrape.training.augment.filters import RandomRoom, convolved, fast_length, minimum_phase_response
from astrape.training.errors import TrainingError

RATE = 16000.0


def noise(seconds: float = 2.0, seed: int = 0) -> torch.Tensor:
    draw = np.random.default_rng(seed)
    return torch.from_numpy(0.1 * draw.standard_normal(int(seconds * RATE), dtype=np.float32))


def applied(use: str, wave: torch.Tensor, seed: int = 0, **params: Any) -> tuple[torch.Tensor, float]:
    return augmented(
        wave, RATE, [build_augmentation({"use": use, **params})], (seed,), lambda draw: noise(2.0, 9)[: len(wave)]
    )


def level(wave: torch.Tensor) -> float:
    return 10 * math.log10(float(wave.double().square().mean()) + 1e-20)


@pytest.mark.parametrize("use", augmentation_names())
def test_every_one_keeps_length_type_and_place(use: str) -> None:
    """The strongest peak of the correlation with what went in is at no delay; silence stays finite."""
    wave = noise()
    for seed in range(5):
        made, _ = applied(use, wave, seed)
        assert (made.shape, made.dtype) == (wave.shape, wave.dtype)
        correlation = scipy.signal.correlate(made.numpy(), wave.numpy(), mode="full")
        assert abs(int(np.abs(correlation).argmax()) - (len(wave) - 1)) <= 2
        quiet, _ = applied(use, torch.zeros(8000), seed)
        assert bool(torch.isfinite(quiet).all())
        again, _ = applied(use, wave, seed)
        assert torch.equal(made, again)
    assert torch.equal(applied(use, wave, chance=0.0)[0], wave)


@pytest.mark.parametrize("tilt", [0.0, 1.0, 2.0])
def test_noise_has_its_ratio_and_its_tilt(tilt: float) -> None:
    wave = noise()
    made, _ = applied("noise", wave, snr=12.0, tilt=tilt)
    added = made - wave
    assert level(wave) - level(added) == pytest.approx(12.0, abs=0.1)
    hertz, power = scipy.signal.welch(added.numpy(), RATE, nperseg=2048)
    band = (hertz > 100) & (hertz < 6000)
    slope = np.polyfit(np.log2(hertz[band]), np.log2(power[band]), 1)[0]
    assert slope == pytest.approx(-tilt, abs=0.15)


def test_pauses_have_no_part_in_the_level_of_speech() -> None:
    wave = torch.cat([noise(), torch.zeros(32000)])
    made, _ = applied("noise", wave, snr=12.0, tilt=0.0)
    assert level(noise()) - level(made - wave) == pytest.approx(12.0, abs=0.3)


def test_babble_is_another_recording_at_its_ratio() -> None:
    wave = noise()
    made, _ = applied("babble", wave, snr=6.0, voices=1)
    added = made - wave
    assert level(wave) - level(added) == pytest.approx(6.0, abs=0.3)
    assert abs(np.corrcoef(added.numpy(), noise(2.0, 9).numpy())[0, 1]) > 0.999


def test_a_room_begins_with_the_sound_and_dies_away_in_its_time() -> None:
    room = RandomRoom(rt60=0.4, ratio=3.0)
    direct, tails = [], []
    for seed in range(20):
        response = room.response(RATE, np.random.default_rng(seed)).double()
        late = response.clone()
        late[: int(0.001 * RATE)] = 0
        direct.append(float(response[0] ** 2))
        tails.append(late)
        # The tail's few samples before 1 ms are left out of what is counted, and so is what it adds to the first.
        assert 10 * math.log10(float(response[0] ** 2) / float(late.square().sum())) == pytest.approx(3.0, abs=0.6)
        assert float(response.square().sum()) == pytest.approx(1.0, abs=0.05)
    decay = torch.stack(tails).square().mean(dim=0).flip(0).cumsum(0).flip(0)
    drop = 10 * torch.log10(decay[int(0.05 * RATE)] / decay[int(0.25 * RATE)])
    assert float(drop) == pytest.approx(60 * 0.2 / 0.4, abs=2.5)


def test_a_band_lets_its_middle_through_and_nothing_else() -> None:
    made, _ = applied("band", noise(), low=200.0, high=3000.0, order=6)
    hertz, transfer = scipy.signal.csd(noise().numpy(), made.numpy(), RATE, nperseg=4096)
    _, power = scipy.signal.welch(noise().numpy(), RATE, nperseg=4096)
    gain = 20 * np.log10(np.abs(transfer) / power)
    at = lambda f: float(gain[np.argmin(np.abs(hertz - f))])  # noqa: E731
    assert abs(at(1000)) < 0.5
    assert at(3000) == pytest.approx(-3, abs=0.7)
    # Order 6, an octave off: 36 dB.
    assert at(6000) == pytest.approx(-36, abs=2)
    assert at(100) < -30


def test_an_equaliser_stays_within_its_gain() -> None:
    impulse = torch.zeros(16384)
    impulse[0] = 1
    spread = []
    for seed in range(10):
        made, _ = applied("eq", impulse, seed, gain=6.0)
        gain = 20 * np.log10(np.abs(np.fft.rfft(made.double().numpy())))
        assert np.abs(gain[50:]).max() < 6.2
        spread.append(gain.max() - gain.min())
    assert np.mean(spread) > 5


def test_minimum_phase_has_the_magnitude_and_the_shortest_response() -> None:
    """Against a filter that is of minimum phase by its poles and zeros."""
    b, a = [0.3, -0.12, 0.05], np.poly([0.9, 0.6 + 0.5j, 0.6 - 0.5j])
    assert np.abs(np.roots(b)).max() < 1
    points = np.linspace(0, np.pi, 4097)
    _, wanted = scipy.signal.freqz(b, a, points)
    found = minimum_phase_response(np.abs(wanted)).double().numpy()
    impulse = np.zeros(200)
    impulse[0] = 1
    expected = scipy.signal.lfilter(b, a, impulse)
    assert np.abs(found[:200] - expected).max() < 1e-6
    wave = noise()
    torch.testing.assert_close(
        convolved(wave, torch.from_numpy(found[:500]).float()).double(),
        torch.from_numpy(scipy.signal.lfilter(found[:500], 1, wave.double().numpy())),
        atol=1e-6,
        rtol=1e-4,
    )


def test_gain_is_for_the_target_too() -> None:
    made, gain = applied("gain", noise(), db=-6.0)
    assert gain == pytest.approx(10 ** (-6 / 20))
    torch.testing.assert_close(made, noise() * gain)
    for use in augmentation_names():
        if use != "gain":
            assert applied(use, noise())[1] == 1.0


def test_saturation_keeps_peaks_and_adds_odd_harmonics() -> None:
    tone = 0.5 * torch.sin(2 * math.pi * 500 * torch.arange(16000) / RATE)
    made, _ = applied("saturation", tone, drive=10.0)
    assert float(made.abs().max()) == pytest.approx(0.5, rel=1e-3)
    spectrum = np.abs(np.fft.rfft(made.numpy())) / 8000
    drive = 10 ** (10 / 20)
    expected = np.abs(np.fft.rfft(0.5 * np.tanh(drive * np.sin(2 * np.pi * np.arange(32) / 32)) / np.tanh(drive))) / 16
    for harmonic in (1, 3, 5):
        assert spectrum[500 * harmonic] == pytest.approx(expected[harmonic], abs=1e-4)
    assert spectrum[1000] < 1e-4


def test_a_codec_has_the_band_and_the_noise_of_its_line() -> None:
    """Eight bits by the mu-law: 38 dB, whatever the level (G.711, figure 3); nothing above half the rate."""
    voice = torch.from_numpy(scipy.signal.sosfilt(scipy.signal.butter(8, 2500, output="sos", fs=RATE), noise()).copy())
    for loudness in (1.0, 0.03):
        wave = (voice * loudness).float()
        made, _ = applied("codec", wave, rates=[8000], bits=8)
        middle = slice(4000, 28000)
        assert 36 < level(wave[middle]) - level((made - wave)[middle]) < 40
    made, _ = applied("codec", noise(), rates=[8000], bits=8)
    hertz, power = scipy.signal.welch(made.numpy(), RATE, nperseg=1024)
    assert 10 * np.log10(power[hertz > 4300].max() / power[hertz < 3500].mean()) < -40


def test_formants_move_and_the_pitch_stays() -> None:
    """Pulses at 125 Hz through a resonance at 1500 Hz: the resonance moves, the harmonics stay."""
    pulses = np.zeros(32000)
    pulses[::128] = 1
    pole = 0.97 * np.exp(2j * np.pi * 1500 / RATE)
    voice = torch.from_numpy(scipy.signal.lfilter([1], [1, -2 * pole.real, abs(pole) ** 2], pulses).astype(np.float32))
    made, _ = applied("formants", voice, factor=1.15)
    hertz, power = scipy.signal.welch(made.numpy(), RATE, nperseg=4096)
    harmonics = power[hertz % 125 < 1e-9]
    assert harmonics.sum() > 0.9 * power.sum() / 3, "the energy is at the harmonics of 125 Hz and their neighbours"
    peak = 125 * int(np.argmax(harmonics))
    assert peak == pytest.approx(1500 * 1.15, abs=130)


def test_fast_lengths_are_enough_and_products_of_small_primes() -> None:
    for least in [97, 1000, 44101, 88200, 88201]:
        length = fast_length(least)
        assert least <= length <= 1.1 * least
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"use": "nose"}, "unknown augmentation 'nose': did you mean 'noise'"),
        ({"use": "noise", "snr": [20, 5]}, "snr must go upwards, not from 20 to 5"),
        ({"use": "noise", "snr": "loud"}, "snr must be two numbers"),
        ({"use": "noise", "chance": 2}, "chance must be a number from 0 to 1, not 2"),
        ({"use": "room", "rt": 1}, "has no parameter 'rt': did you mean 'rt60'"),
        ({"use": "codec", "rates": []}, "rates must be a list of Hz"),
        ({"use": "gain", "db": [0, math.nan]}, "db must be a number from -120 to 60, not nan"),
    ],
)
def test_what_cannot_be_is_said(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        build_augmentation(spec)
