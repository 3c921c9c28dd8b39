"""Losses on waveforms, against numpy's FFT and the published formulas in float64."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.blocks.mel import mel_filters
from astrape.training.objectives import LossContext, Objective, build_loss

RATE = 16000
FLOOR = 1e-5
SMALL = {
    "multi_resolution_stft": {"sizes": [64, 128]},
    "log_mel": {"bins": 12, "n_fft": 128},
    "log_magnitude": {"n_fft": 64, "hop": 16},
    "anti_wrapping_phase": {"n_fft": 64, "hop": 16},
    "group_delay": {"n_fft": 64, "hop": 16},
}


def build(name: str, **params) -> Objective:
    spec = {"use": name, "of": "wav", **(params or SMALL[name])}
    return build_loss(spec, LossContext({"wav": 1}, {"wav": Fraction(RATE)})).double()


def spectra(wave: np.ndarray, size: int, hop: int) -> np.ndarray:
    """Frames within the wave, ``(frames, bins)``, with a Hann window of unit energy."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    window /= np.sqrt((window**2).sum())
    starts = range(0, len(wave) - size + 1, hop)
    return np.array([np.fft.rfft(window * wave[at : at + size]) for at in starts]).reshape(-1, size // 2 + 1)


def frame_weights(weights: np.ndarray, size: int, hop: int) -> np.ndarray:
    return np.array([weights[at : at + size].min() for at in range(0, len(weights) - size + 1, hop)])


def stft_row(s, t, w, sizes):
    total = count = 0.0
    for size in sizes:
        hop = size // 4
        made, wanted = (np.abs(spectra(x, size, hop)).clip(FLOOR) for x in (s, t))
        weight = frame_weights(w, size, hop)
        if not weight.sum():
            continue
        norm = np.sqrt((weight[:, None] * wanted**2).sum())
        least = 1e-3 * np.sqrt(weight.sum() * wanted.shape[1])
        convergence = np.sqrt((weight[:, None] * (wanted - made) ** 2).sum()) / max(norm, least)
        log = (weight * np.abs(np.log(wanted) - np.log(made)).mean(axis=1)).sum() / weight.sum()
        total += (convergence + log) * weight.sum() * hop
        count += weight.sum() * hop
    return total, count


def mel_row(s, t, w):
    filters = mel_filters(12, 128, RATE)
    filters /= filters.sum(axis=1, keepdims=True)
    made, wanted = (np.log((np.abs(spectra(x, 128, 32)).clip(FLOOR) @ filters.T).clip(FLOOR)) for x in (s, t))
    weight = frame_weights(w, 128, 32)
    return (weight * np.abs(made - wanted).mean(axis=1)).sum(), weight.sum()


def magnitude_row(s, t, w):
    made, wanted = (np.log(np.abs(spectra(x, 64, 16)).clip(FLOOR)) for x in (s, t))
    weight = frame_weights(w, 64, 16)
    return (weight * np.abs(made - wanted).mean(axis=1)).sum(), weight.sum()


def unwrapped(x: np.ndarray) -> np.ndarray:
    """Ai & Ling's f: how far from a whole number of turns."""
    return np.abs(x - 2 * np.pi * np.round(x / (2 * np.pi)))


def phase_row(s, t, w):
    made, wanted = spectra(s, 64, 16), spectra(t, 64, 16)
    weight = np.abs(wanted) * frame_weights(w, 64, 16)[:, None]
    return (weight * unwrapped(np.angle(made) - np.angle(wanted))).sum(), weight.sum()


def delay_row(s, t, w):
    made, wanted = spectra(s, 64, 16), spectra(t, 64, 16)
    weight = np.abs(wanted) * frame_weights(w, 64, 16)[:, None]
    weight = np.minimum(weight[:, 1:], weight[:, :-1])
    return (weight * unwrapped(np.diff(np.angle(made)) - np.diff(np.angle(wanted)))).sum(), weight.sum()


ORACLES = {
    "multi_resolution_stft": lambda s, t, w: stft_row(s, t, w, [64, 128]),
    "log_mel": mel_row,
    "log_magnitude": magnitude_row,
    "anti_wrapping_phase": phase_row,
    "group_delay": delay_row,
}


def draw(seed: int, samples: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two rows of noise at levels apart, the second valid in part only."""
    rng = np.random.default_rng(seed)
    signal, target = (torch.from_numpy(rng.standard_normal((2, 1, samples)) * rng.uniform(0.01, 1)) for _ in range(2))
    weights = torch.ones(2, 1, samples, dtype=torch.float64)
    weights[1, :, rng.integers(0, samples + 1) :] = 0
    weights[0, :, : samples // 3] = 1.5
    return signal, target, weights


@pytest.mark.parametrize("name", SMALL)
@given(seed=st.integers(0, 10**6), samples=st.integers(16, 500))
@settings(max_examples=20)
def test_equals_the_formula(name: str, seed: int, samples: int) -> None:
    signal, target, weights = draw(seed, samples)
    total, weight = build(name)(signal, target, weights)
    rows = [
        ORACLES[name](s.numpy()[0], t.numpy()[0], w.numpy()[0])
        for s, t, w in zip(signal, target, weights, strict=True)
        if samples >= 128
    ]
    if samples >= 128:
        assert total.item() == pytest.approx(sum(row[0] for row in rows), rel=1e-9, abs=1e-9)
        assert weight.item() == pytest.approx(sum(row[1] for row in rows), rel=1e-12)
    elif samples < 64:
        assert (total.item(), weight.item()) == (0, 0)


@pytest.mark.parametrize("name", SMALL)
@given(seed=st.integers(0, 10**6), junk=st.sampled_from([np.nan, np.inf, 1e9]), padding=st.integers(0, 200))
@settings(max_examples=10)
def test_absent_samples_change_nothing(name: str, seed: int, junk: float, padding: int) -> None:
    loss = build(name)
    signal, target, weights = (torch.nn.functional.pad(x, (0, padding)) for x in draw(seed, 400))
    values = []
    for filler in (0.1, junk):
        leaf = signal.masked_fill(weights == 0, filler).requires_grad_()
        total, weight = loss(leaf, target.masked_fill(weights == 0, filler), weights)
        (gradient,) = torch.autograd.grad(total, leaf)
        assert torch.isfinite(gradient).all()
        assert not gradient[weights == 0].any()
        values.append((total.detach(), weight, gradient))
    for before, after in zip(*values, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("name", SMALL)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_parts_add_up_to_the_whole(name: str, seed: int) -> None:
    loss = build(name)
    batch = draw(seed, 300)
    whole = loss(*batch)
    parts = [loss(*(x[row : row + 1] for x in batch)) for row in range(2)]
    for index in range(2):
        assert whole[index].item() == pytest.approx(parts[0][index].item() + parts[1][index].item(), rel=1e-9)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_those_of_the_value(name: str) -> None:
    signal, target, weights = draw(2, 150)
    loss = build(name)
    assert torch.autograd.gradcheck(lambda x: loss(x, target, weights).total, signal.requires_grad_(), atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("made", "wanted"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1e-6, 1e-6)])
def test_silence_gives_finite_gradients(name: str, made: float, wanted: float) -> None:
    torch.manual_seed(1)
    noise = torch.randn(1, 1, 400)
    leaf = (noise * made).requires_grad_()
    loss = build(name).float()
    total, weight = loss(leaf, noise * wanted, torch.ones(1, 1, 400))
    total.backward()
    assert torch.isfinite(total)
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    assert leaf.grad.abs().max() <= 1e5 * max(1.0, float(weight))


@pytest.mark.parametrize("name", SMALL)
def test_a_perfect_signal_scores_nothing(name: str) -> None:
    wave = torch.randn(2, 1, 400, dtype=torch.float64, requires_grad=True)
    total, weight = build(name)(wave, wave.detach(), torch.ones(2, 1, 400))
    total.backward()
    assert total.item() < 1e-9 * weight.item()
    assert torch.isfinite(wave.grad).all()


def test_half_the_level_scores_as_documented() -> None:
    wave = torch.randn(1, 1, 8192, dtype=torch.float64)
    total, weight = build("multi_resolution_stft", sizes=[512, 1024, 2048])(wave / 2, wave, torch.ones(1, 1, 8192))
    assert (total / weight).item() == pytest.approx(0.5 + np.log(2), abs=1e-9)


def test_the_default_resolutions_are_those_of_the_paper() -> None:
    loss = build_loss({"use": "multi_resolution_stft", "of": "wav"}, LossContext({"wav": 1}, {"wav": Fraction(44100)}))
    assert [(s.n_fft, s.hop) for s in loss.spectra] == [(512, 128), (1024, 256), (2048, 512)]
    mel = build_loss({"use": "log_mel", "of": "wav"}, LossContext({"wav": 1}, {"wav": Fraction(44100)}))
    assert (tuple(mel.filters.shape), mel.spectrum.n_fft) == ((80, 1025), 2048)
    for name in ("anti_wrapping_phase", "group_delay", "log_magnitude"):
        grid = build_loss({"use": name, "of": "wav"}, LossContext({"wav": 1}, {"wav": Fraction(44100)})).spectrum
        assert (grid.n_fft, grid.hop) == (392, 98)


def test_a_constant_turn_is_all_phase_and_no_group_delay() -> None:
    """A sign change turns every bin by half a turn: pi of phase error, none of group delay."""
    wave = torch.randn(1, 1, 4000, dtype=torch.float64)
    ones = torch.ones(1, 1, 4000)
    turned = build("anti_wrapping_phase")(-wave, wave, ones)
    assert (turned.total / turned.weight).item() == pytest.approx(np.pi, abs=1e-9)
    steps = build("group_delay")(-wave, wave, ones)
    assert steps.total.item() < 1e-9


def test_a_delay_shows_as_group_delay() -> None:
    """Pulses a sample late: every bin's step is 2 pi / 64 more, as a pulse has one delay at all frequencies."""
    pulses = torch.zeros(1, 1, 4000, dtype=torch.float64)
    pulses[..., 40::64] = 1.0
    steps = build("group_delay", n_fft=64, hop=64)(pulses.roll(1, -1), pulses, torch.ones(1, 1, 4000))
    assert (steps.total / steps.weight).item() == pytest.approx(2 * np.pi / 64, rel=1e-6)


@pytest.mark.parametrize(
    ("use", "more"), [("multi_resolution_stft", {"sizes": [256, 512]}), ("log_mel", {"bins": 20, "n_fft": 512})]
)
def test_what_lies_above_a_target_s_band_has_no_part(use: str, more: dict[str, object]) -> None:
    """Added above the band, to signal or target, it changes neither the value nor a gradient below; in it, it does."""
    rate = 16000
    context = LossContext({"wav": 1}, {"wav": Fraction(rate)})
    loss = build_loss({"use": use, "of": "wav", **more}, context).double()
    draw = torch.Generator().manual_seed(1)
    time = torch.arange(8000, dtype=torch.float64) / rate
    low = torch.randn(2, 1, 8000, generator=draw, dtype=torch.float64)
    low = torch.fft.irfft(torch.fft.rfft(low) * (torch.fft.rfftfreq(8000, 1 / rate) < 2500), 8000)
    other = torch.roll(low, 50, -1) * 0.5
    high = 0.3 * torch.sin(2 * math.pi * 6000 * time)
    weights = torch.ones(2, 1, 8000, dtype=torch.float64)
    band = torch.tensor([4000.0, 8000.0])

    def value(signal: torch.Tensor, target: torch.Tensor, row: int) -> float:
        total = loss(signal[row : row + 1], target[row : row + 1], weights[:1], band[row : row + 1])
        return float(total.total / total.weight)

    # A Hann window leaks a little of 6 kHz to below 4 kHz.
    assert value(low + high, other, 0) == pytest.approx(value(low, other, 0), rel=0.02)
    assert abs(value(low + high, other, 1) - value(low, other, 1)) > 0.1 * value(low, other, 1)
    # The whole band is what comes out without bands.
    both = loss(low, other, weights, torch.full((2,), 8000.0))
    plain = loss(low, other, weights)
    torch.testing.assert_close(both.total, plain.total)
    torch.testing.assert_close(both.weight, plain.weight)
