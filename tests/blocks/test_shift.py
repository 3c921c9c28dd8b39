"""The spectral shifter on synthetic voices: pitch, level, formants, transparency, exact phases."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.blocks.base import Stream
from astrape.blocks.pitch import PitchTracker
from astrape.blocks.shift import TURN, SpectralShift
from astrape.blocks.spectral import ISTFT, STFT
from astrape.errors import RateError

RATE, N_FFT, HOP = 16000, 640, 160


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def vowel(
    f0: float | torch.Tensor, seconds: float = 1.0, formants: tuple[float, ...] = (600.0, 1200.0)
) -> torch.Tensor:
    """Harmonics of zero phase with resonances 150 Hz wide: a pulse train through a vocal tract."""
    f0 = torch.as_tensor(f0) * torch.ones(round(seconds * RATE))
    phase = 2 * math.pi * f0.cumsum(0) / RATE
    x = torch.zeros(len(f0))
    for h in range(1, 100):
        frequency = h * f0
        height = sum(1 / (1 + ((frequency - formant) / 150) ** 2) for formant in formants)
        x = x + torch.cos(h * phase) * height * (frequency < 7000)
    return (0.1 * x)[None, None]


def shifted(x: torch.Tensor, **params: float) -> torch.Tensor:
    """Analysis, shift and synthesis, with the latency taken off in front."""
    source = Stream(RATE, 1)
    analysis = STFT(source, n_fft=N_FFT, hop=HOP)
    shift = SpectralShift(analysis.output, hop=HOP, **params)
    synthesis = ISTFT(shift.output, n_fft=N_FFT, hop=HOP)
    x = torch.nn.functional.pad(x, (0, N_FFT))
    return synthesis(shift(analysis(x)))[..., N_FFT - HOP :]


def level(x: torch.Tensor) -> float:
    return 10 * math.log10(float(x.square().mean()))


@settings(deadline=None, max_examples=12)
@given(f0=st.floats(95, 260), semitones=st.sampled_from([-12.0, -5.0, -0.5, 3.0, 5.0, 12.0]))
def test_the_pitch_moves_by_the_ratio_at_the_same_level(f0, semitones):
    x = vowel(f0)
    y = shifted(x, pitch=semitones)[..., 2000:14000]
    goal = f0 * 2 ** (semitones / 12)
    tracked = PitchTracker(Stream(RATE, 1), fmin=goal / 1.8, fmax=goal * 1.8)(y)[0, :, 14:]
    assert (tracked[0] / goal - 1).abs().median() < 0.003
    assert tracked[1].median() > 0.9
    assert abs(level(y) - level(x[..., 2000:14000])) < 1


def test_energy_lies_on_the_new_harmonics_and_not_between():
    y = shifted(vowel(150.0, 2.0), pitch=5.0)[0, 0, 4000:28000]
    f0 = 150 * 2 ** (5 / 12)
    power = np.abs(np.fft.rfft(y.numpy() * np.blackman(len(y)))) ** 2
    frequency = np.fft.rfftfreq(len(y), 1 / RATE)
    away = np.abs(frequency / f0 - np.round(frequency / f0)) * f0
    voiced = (frequency > f0 / 2) & (frequency < 3000)
    assert power[voiced & (away < 5)].sum() > 300 * power[voiced & (away >= 5)].sum()


def test_pulses_stay_pulses():
    x = vowel(120.0, 1.5)
    crest = [float(part.abs().max() / part.square().mean().sqrt()) for part in (x, shifted(x, pitch=4.0))]
    assert crest[1] > 0.8 * crest[0]


def test_unity_passes_spectra_unchanged():
    random = torch.Generator().manual_seed(1)
    x = vowel(140.0) + 0.05 * torch.randn(1, 1, RATE, generator=random)
    error = shifted(x)[..., :RATE] - x
    assert level(error) < level(x) - 100


@pytest.mark.parametrize("semitones", [-4.0, 4.0])
def test_formants_move_without_the_pitch(semitones):
    x = vowel(125.0, formants=(800.0, 2000.0))
    y = shifted(x, formant=semitones)[..., 2000:14000]
    tracked = PitchTracker(Stream(RATE, 1))(y)[0, 0, 14:]
    assert (tracked / 125 - 1).abs().median() < 0.002
    power = np.abs(np.fft.rfft(y[0, 0].numpy() * np.hanning(y.shape[-1]))) ** 2
    frequency = np.fft.rfftfreq(y.shape[-1], 1 / RATE)
    for formant in (800.0, 2000.0):
        goal = formant * 2 ** (semitones / 12)
        near = np.abs(frequency - goal) < 400
        centre = (frequency * power)[near].sum() / power[near].sum()
        assert abs(centre - goal) < 0.06 * goal


def test_noise_is_not_moved():
    x = 0.1 * torch.randn(1, 1, RATE, generator=torch.Generator().manual_seed(2))
    error = shifted(x, pitch=7.0)[..., 1000:RATE] - x[..., 1000:]
    assert level(error) < level(x) - 20


@settings(deadline=None, max_examples=15)
@given(sizes=st.lists(st.integers(0, 15), max_size=8), seed=st.integers(0, 2**31))
def test_chunking_never_matters(sizes, seed):
    random = torch.Generator().manual_seed(seed)
    x = vowel(130 + 60 * torch.rand(6, generator=random).repeat_interleave(1600), 0.6)
    x = torch.cat([x, 0.1 * torch.randn(x.shape, generator=random)])
    analysis = STFT(Stream(RATE, 1), n_fft=N_FFT, hop=HOP)
    block = SpectralShift(analysis.output, hop=HOP, pitch="p", formant="f")
    spectra, controls = analysis(x), {"p": torch.tensor([[4.0], [-7.0]]), "f": 2.0}
    prepared = block.prepare(block.read_controls(controls, spectra))
    state, parts, at = block.init_state(2, dtype=x.dtype), [], 0
    for size in [*sizes, spectra.shape[-1]]:
        y, state = block.step(spectra[..., at : at + size], state, prepared)
        parts.append(y)
        at = min(at + size, spectra.shape[-1])
    assert torch.allclose(torch.cat(parts, dim=-1), block(spectra, **controls), atol=1e-10, rtol=1e-10)


def test_phases_add_up_exactly_over_a_week():
    block = SpectralShift(Stream(100, N_FFT + 2), hop=HOP, pitch=7.0)
    ratio = block.prepare({}).pitch
    f0 = torch.full((1, 5000), 123.456)
    advance = round((float(ratio) - 1) * 123.456 * (TURN / 100.0))
    week = 7 * 24 * 3600 * 100
    # As late in a week as the count of frames says, and once more from there.
    state = {"f0": f0[:, :1], "turns": torch.tensor([[week * advance % TURN]])}
    turns, after = block._accumulate(f0, ratio, state)
    exact = [(week + frame + 1) * advance % TURN for frame in range(5000)]
    assert turns[0].tolist() == exact
    assert int(after["turns"]) == exact[-1]


def test_phases_start_anew_with_each_onset():
    block = SpectralShift(Stream(100, N_FFT + 2), hop=HOP, pitch=7.0)
    f0 = torch.tensor([[0.0, 100.0, 100.0, 0.0, 100.0, 100.0]])
    turns, _ = block._accumulate(f0, block.prepare({}).pitch, block.init_state(1))
    assert turns[0, [0, 1, 3, 4]].eq(0).all()
    assert turns[0, 2] == turns[0, 5] != 0


def test_gradients_are_finite_even_in_silence():
    block = SpectralShift(Stream(100, N_FFT + 2), hop=HOP, pitch="p")
    x = torch.randn(1, N_FFT + 2, 6, generator=torch.Generator().manual_seed(3))
    x[..., :3] = 0
    x.requires_grad_()
    p = torch.tensor([[3.0]], requires_grad=True)
    y, _ = block.step(x, block.init_state(1), block.prepare({"p": p}))
    y.square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("wrong", [{"pitch": 30.0}, {"formant": -25.0}, {"hop": 0}, {"fmin": 30.0}, {"fmax": 5000.0}])
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SpectralShift(Stream(100, N_FFT + 2), **{"hop": HOP, **wrong})


def test_channels_must_be_a_spectrum():
    with pytest.raises(RateError, match="spectral_shift"):
        SpectralShift(Stream(100, 641), hop=HOP)


@pytest.mark.parametrize("offset", [0.02, -0.2])
def test_an_offset_does_not_hide_the_voice(offset):
    y = shifted(vowel(140.0) + offset, pitch=5.0)[..., 4 * N_FFT : RATE - 2 * N_FFT]
    tracked = PitchTracker(Stream(RATE, 1))(y)[0, :, 8:]
    assert (tracked[0] / (140 * 2 ** (5 / 12)) - 1).abs().max() < 0.01
    assert tracked[1].min() > 0.9


def test_silence_with_an_offset_has_no_pitch():
    x = 0.2 + 1e-5 * torch.randn(1, 1, RATE, generator=torch.Generator().manual_seed(3))
    error = (shifted(x, pitch=7.0)[..., :RATE] - x)[..., 2 * N_FFT : -2 * N_FFT]
    assert level(error) < -100


def hum(frequency: float, height: float, samples: int) -> torch.Tensor:
    return height * torch.sin(2 * math.pi * frequency / RATE * torch.arange(samples))


@pytest.mark.parametrize("f0", [90.0, 140.0, 210.0])
@pytest.mark.parametrize("frequency", [50.0, 60.0])
@pytest.mark.parametrize("height", [0.2, 0.5])
def test_hum_does_not_hide_the_voice(f0, frequency, height):
    """Hum of up to half the peak of a voice that lasts from the first sample on, or comes later and pauses."""
    steady = vowel(f0, 4.0)
    steady = steady / steady.abs().max()
    pausing = steady * (torch.arange(4 * RATE) % RATE > RATE // 2)
    for voice in (steady, pausing):
        x = voice + hum(frequency, height, 4 * RATE)
        y = shifted(x, pitch=5.0)[..., 4 * N_FFT : 4 * RATE - 2 * N_FFT]
        sounding = (voice[..., 4 * N_FFT : 4 * RATE - 2 * N_FFT] != 0).double()
        tracked = PitchTracker(Stream(RATE, 1), fmin=100.0)(y)[0]
        inside = torch.nn.functional.max_pool1d(1 - sounding, 2 * N_FFT + 1, 1, N_FFT)[0, 0, ::HOP][: tracked.shape[1]]
        found = tracked[0, (inside == 0) & (torch.arange(tracked.shape[1]) > 8)]
        assert len(found) > 50
        assert ((found / (f0 * 2 ** (5 / 12)) - 1).abs() < 0.015).double().mean() > 0.97


@pytest.mark.parametrize("frequency", [50.0, 60.0])
def test_hum_alone_is_no_voice(frequency):
    x = hum(frequency, 0.1, 3 * RATE)[None, None] + 1e-5 * torch.randn(1, 1, 3 * RATE)
    error = (shifted(x, pitch=7.0)[..., : 3 * RATE] - x)[..., 2 * N_FFT : -2 * N_FFT]
    assert level(error) < level(x) - 60
    # Neither after a mute, whose zeros are not a pause of the hum.
    x[..., RATE : 2 * RATE] = 0
    error = (shifted(x, pitch=7.0)[..., : 3 * RATE] - x)[..., 2 * RATE + 2 * N_FFT : -2 * N_FFT]
    assert level(error) < level(x) - 60
