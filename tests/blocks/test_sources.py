"""Noise and pulses, against sums written out harmonic by harmonic, and far into a stream."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from astrape.blocks import Noise, PulseSource, Stream
from astrape.errors import RateError
from tests.blocks.chunks import chunk_lists, run_chunks

FRAMES = Stream(100, 1)
Array = npt.NDArray[np.float64]


def sources(seed: int = 0, hop: int = 441, channels: int = 1) -> Noise:
    return Noise(FRAMES, hop=hop, channels=channels, seed=seed)


def ticks(frames: int, dtype: torch.dtype = torch.float64, batch: int = 1) -> Tensor:
    return torch.zeros(batch, 1, frames, dtype=dtype)


# Noise


def word(number: int) -> int:
    """One word of the noise, in Python's own whole numbers."""
    mask = (1 << 64) - 1
    number &= mask
    for turn in range(3):
        if turn:
            number = number * 0xD6E8FEB86659FD93 & mask
        number ^= number >> 32
    return number


def sample(position: int, seed: int, channel: int = 0) -> float:
    """A sample of the noise as the block's page defines it."""
    gamma = 0x9E3779B97F4A7C15
    made = word(position * gamma + word((seed + channel * (1 << 24) + 1) * gamma))
    upper, lower = (half - (1 << 32) if half >> 31 else half for half in (made >> 32, made & 0xFFFFFFFF))
    return math.sqrt(-2 * math.log(abs(upper) * 2.0**-31 + 2.0**-32)) * math.cos(lower * math.pi * 2.0**-31)


@settings(max_examples=30, deadline=None)
@given(position=st.integers(0, 1 << 62), seed=st.integers(0, 2**24 - 1), channel=st.integers(0, 2))
def test_noise_is_a_function_of_position_seed_and_channel(position: int, seed: int, channel: int) -> None:
    block = sources(seed, hop=5, channels=3)
    y, after = block.step(ticks(2), torch.full((1, 1), position), block.prepare({}))
    want = [sample(position + place, seed, channel) for place in range(10)]
    np.testing.assert_allclose(y[0, channel].numpy(), want, atol=1e-12)
    assert after.item() == position + 10


@settings(max_examples=20, deadline=None)
@given(chunks=chunk_lists, seed=st.integers(0, 2**24 - 1))
def test_noise_is_the_same_however_it_is_cut(chunks: list[int], seed: int) -> None:
    block = sources(seed, hop=5, channels=2)
    x = ticks(sum(chunks), batch=2)
    assert torch.equal(block(x), run_chunks(block, x, chunks)[""])


@pytest.mark.parametrize("start", [0, 10**12, (1 << 62) + 7])
def test_noise_is_normal_and_white_wherever_in_the_stream(start: int) -> None:
    block = sources(3)
    y = block.step(ticks(500), torch.full((1, 1), start), block.prepare({}))[0][0, 0].numpy()
    assert stats.kstest(y, "norm").pvalue > 0.01
    assert stats.kstest(y**2, "chi2", args=(1,)).pvalue > 0.01
    # Any lag: a sum of n products of independent numbers deviates by sqrt(n).
    spectrum = np.abs(np.fft.rfft(y, 2 * len(y))) ** 2
    lags = np.fft.irfft(spectrum)[1:5000] / math.sqrt(len(y))
    assert np.abs(lags).max() < 5
    # Power by thirds of the band, whose relative deviation is that of a mean of so many exponential numbers.
    bands = np.array([part.mean() for part in np.array_split(np.abs(np.fft.rfft(y)) ** 2, 3)]) / len(y)
    assert np.abs(bands - 1).max() < 5 / math.sqrt(len(y) / 6)


def test_seeds_and_channels_are_independent() -> None:
    rows = [sources(seed)(ticks(200))[0, 0] for seed in (0, 1, 2, 2**24 - 1)]
    rows += list(sources(0, channels=3)(ticks(200))[0, 1:])
    shared = np.corrcoef(torch.stack(rows).numpy()) - np.eye(len(rows))
    assert np.abs(shared).max() < 5 / math.sqrt(200 * 441)


def test_a_seed_by_row_is_that_seeds_noise() -> None:
    block = Noise(FRAMES, hop=7, seed="seed")
    y = block(ticks(9, batch=3), seed=torch.tensor([[5.0], [9.0], [5.0]]))
    for row, seed in enumerate((5, 9, 5)):
        assert torch.equal(y[row], sources(seed, hop=7)(ticks(9))[0])


def test_noise_does_not_look_at_its_clock_and_is_the_same_in_float32() -> None:
    block = sources(1)
    exact = block(ticks(20))
    assert torch.equal(block(torch.full((1, 1, 20), torch.nan, dtype=torch.float64)), exact)
    assert (block(ticks(20, torch.float32)) - exact).abs().max() < 2e-5
    assert torch.equal(block.train()(ticks(20)), exact)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hop": 0}, "hop must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 1 << 24}, "seed must be"),
        ({"channels": 0}, "channels"),
    ],
)
def test_noise_out_of_range(params: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Noise(FRAMES, **params)


# Pulses


def harmonics(turns: Array, f0: Array, rate: float) -> Array:
    """The definition, harmonic by harmonic, for a phase and a frequency at each sample."""
    y = np.zeros_like(turns)
    for number in range(1, math.ceil(rate / 2 / f0.min())):
        y += np.clip(rate / 2 / f0 - number, 0, 1) * np.cos(2 * np.pi * number * turns)
    return y * 2 * np.sqrt(f0 / rate)


def steady(f0: float, frames: int, batch: int = 1) -> Tensor:
    return torch.full((batch, 1, frames), f0, dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(f0=st.floats(11, 1990), hop=st.sampled_from([80, 147, 441]), contour=st.sampled_from(["slope", "between"]))
def test_a_steady_voice_is_the_sum_of_its_harmonics(f0: float, hop: int, contour: str) -> None:
    got = PulseSource(FRAMES, hop=hop, contour=contour)(steady(f0, 20)).flatten().numpy()
    rate, ramp = 100.0 * hop, round(0.2 * hop)
    turns = np.arange(1, len(got) + 1, dtype=np.float64) * f0 / rate
    want = harmonics(turns, np.full(len(got), f0), rate)
    np.testing.assert_allclose(got[ramp:], want[ramp:], atol=1e-8)
    np.testing.assert_allclose(got[:ramp], (want * np.arange(1, len(got) + 1) / ramp)[:ramp], atol=1e-8)


@pytest.mark.parametrize("contour", ["slope", "between"])
def test_a_glide_is_the_sum_of_harmonics_of_its_integral(contour: str) -> None:
    """F0 that rises on a line: one frame's slope is the next one's, and the phase is the integral of all of it."""
    hop, rate, rise = 100, 10000.0, 1.5
    f0 = 150 + rise * torch.arange(60, dtype=torch.float64)
    got = PulseSource(FRAMES, hop=hop, contour=contour)(f0.view(1, 1, -1)).flatten().numpy()
    n = np.arange(1, len(got) + 1)
    if contour == "slope":
        # Frame k has its F0 in its middle; the first frame, before which there was none, keeps it throughout.
        frequency = np.maximum(150 + rise * (n / hop - 0.5), 0)
        frequency[:hop] = 150
        turns = np.where(n <= hop, 150 * n, 150 * n + rise * ((n / hop - 0.5) ** 2 - 0.25) / 2 * hop) / rate
    else:
        frequency = np.where(n <= hop, 150.0, 150 + rise * (n / hop - 1))
        turns = np.where(n <= hop, 150.0 * n, 150 * n + rise * (n / hop - 1) ** 2 / 2 * hop) / rate
    np.testing.assert_allclose(got[20:], harmonics(turns, frequency, rate)[20:], atol=1e-8)


def test_slope_follows_a_glide_without_delay_and_between_is_half_a_frame_late() -> None:
    assert PulseSource(FRAMES, hop=441).latency == 0
    assert PulseSource(FRAMES, hop=441, contour="between").latency * 200 == 1


@settings(max_examples=20, deadline=None)
@given(chunks=chunk_lists, seed=st.integers(0, 1000), contour=st.sampled_from(["slope", "between"]))
def test_pulses_are_the_same_however_they_are_cut(chunks: list[int], seed: int, contour: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    f0 = 50 + 400 * torch.rand(2, 1, sum(chunks), generator=generator, dtype=torch.float64)
    f0 = f0.masked_fill(torch.rand(f0.shape, generator=generator) < 0.3, 0.0)
    block = PulseSource(FRAMES, hop=40, contour=contour)
    torch.testing.assert_close(block(f0), run_chunks(block, f0, chunks)[""], atol=1e-10, rtol=0)


@settings(max_examples=25, deadline=None)
@given(f0=st.floats(30, 1000))
def test_nothing_aliases_and_the_density_is_that_of_noise(f0: float) -> None:
    rate = 44100.0
    y = PulseSource(FRAMES, hop=441)(steady(f0, 300)).flatten().numpy()[4410:]
    window = np.blackman(len(y))
    power = np.abs(np.fft.rfft(y * window)) ** 2 / (window**2).sum()
    hertz = np.fft.rfftfreq(len(y), 1 / rate)
    near = np.abs(hertz / f0 - np.round(hertz / f0)) * f0 < 3 * 2 * rate / len(y)
    outside = power[~near & (hertz > f0 / 2) & (hertz < rate / 2 - f0 / 2)]
    assert outside.max(initial=0.0) < 1e-6 * power.max()
    # All the power of a band of many harmonics, over its width: 1, as of noise of unit variance.
    first, last = 3.5 * f0, (math.floor(rate / 4 / f0) + 0.5) * f0
    density = power[(hertz > first) & (hertz < last)].mean()
    assert density == pytest.approx(1.0, abs=0.02)


def test_the_number_of_harmonics_changes_without_a_step() -> None:
    """At the F0 at which a harmonic comes or goes, the sum is the same from both sides."""
    rate, hop = 44100.0, 441
    for number in (10, 57, 220):
        edge = rate / 2 / number
        sides = [PulseSource(FRAMES, hop=hop)(steady(f0, 3)).flatten() for f0 in (edge * (1 - 1e-9), edge * (1 + 1e-9))]
        assert (sides[0] - sides[1]).abs().max() < 1e-4


def test_no_step_between_frames_whatever_f0_does() -> None:
    """The phase is continuous: over a boundary a low harmonic moves no further than within a frame."""
    f0 = (
        torch.tensor([100.0, 200.0, 90.0, 350.0, 349.0, 120.0], dtype=torch.float64).repeat_interleave(3).view(1, 1, -1)
    )
    block, hop = PulseSource(FRAMES, hop=441), 441
    turns = []
    state = block.init_state(1, dtype=torch.float64)
    for frame in torch.split(f0, 1, dim=-1):
        before = int(state["turns"])
        _, state = block.step(frame, state, ())
        turns.append((int(state["turns"]) - before) / 2**48)
    np.testing.assert_allclose(turns, (f0.flatten() * hop / 44100).numpy(), atol=1e-12)


def test_silence_is_silent_its_phase_runs_on_and_voice_returns_by_a_ramp() -> None:
    f0 = torch.tensor([200.0] * 5 + [0.0] * 5 + [200.0] * 5, dtype=torch.float64).view(1, 1, -1)
    block = PulseSource(FRAMES, hop=441).double()
    y, voiced = block(f0).flatten(), block(steady(200.0, 15)).flatten()
    assert bool((y[6 * 441 : 10 * 441] == 0).all())
    torch.testing.assert_close(y[11 * 441 :], voiced[11 * 441 :], atol=1e-9, rtol=0)
    ramp = torch.arange(1, 89, dtype=torch.float64) / 88
    torch.testing.assert_close(y[10 * 441 : 10 * 441 + 88], (voiced[10 * 441 :][:88] * ramp), atol=1e-9, rtol=0)
    torch.testing.assert_close(y[5 * 441 : 5 * 441 + 88], (voiced[5 * 441 :][:88] * (1 - ramp)), atol=1e-9, rtol=0)


def test_never_voiced_is_never_heard() -> None:
    assert not bool(PulseSource(FRAMES, hop=441)(torch.zeros(1, 1, 30)).any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_week_of_sound_is_as_exact_as_its_first_minute(dtype: torch.dtype) -> None:
    """Phase after 10^8 frames, eleven days, from the frames' own F0, in Python's whole numbers and fractions."""
    block, f0 = PulseSource(FRAMES, hop=441), 123.456
    frame = torch.full((1, 1, 1), f0, dtype=dtype)
    _, state = block.step(frame, block.init_state(1, dtype=dtype), ())
    advance = int(state["turns"])
    # The advance of a frame, a whole number of units, is the same every time: so is the whole way.
    later = (advance * 10**8 + 2**63) % 2**64 - 2**63
    far = {**state, "turns": torch.full((1, 1), later)}
    y, after = block.step(frame, far, ())
    start = advance * 10**8 % 2**48 / 2**48
    exact = float(frame.double())
    n = np.arange(1, 442)
    want = harmonics(start + n * exact / 44100, np.full(441, exact), 44100.0)
    np.testing.assert_allclose(y.double().flatten().numpy(), want, atol=1e-8 if dtype == torch.float64 else 2e-5)
    assert (int(after["turns"]) - later) % 2**64 == advance
    # And what is lost by the rounding to units is a ten-thousandth of a turn in these eleven days.
    assert abs(advance / 2**48 - exact / 100) * 10**8 < 1e-4


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -5.0, 1e9, 1e-9])
def test_odd_f0_makes_no_odd_sound_and_leaves_nothing_behind(odd: float) -> None:
    f0 = steady(150.0, 12)
    f0[..., 4] = odd
    block = PulseSource(FRAMES, hop=441)
    y = block(f0)
    assert bool(y.isfinite().all())
    assert y.abs().max() < 50


def test_rows_have_their_own_phase() -> None:
    f0 = torch.stack([steady(110.0, 8)[0], steady(220.0, 8)[0]])
    block = PulseSource(FRAMES, hop=441)
    both = block(f0)
    for row, alone in enumerate((block(f0[:1]), block(f0[1:]))):
        torch.testing.assert_close(both[row], alone[0], atol=1e-12, rtol=0)


def test_many_frames_are_what_few_are() -> None:
    """Frames are computed a few at a time, to stay in the cache: where they meet nothing shows."""
    block = PulseSource(FRAMES, hop=20)
    f0 = steady(130.0, 150)
    parts = [block(f0[..., :frames])[0, 0] for frames in (31, 32, 33, 150)]
    for short, long in pairwise(parts):
        torch.testing.assert_close(long[: len(short)], short, atol=1e-12, rtol=0)


def test_no_gradient_goes_to_f0() -> None:
    f0 = steady(150.0, 3).requires_grad_()
    assert not PulseSource(FRAMES, hop=20)(f0).requires_grad


def test_pulses_refuse() -> None:
    with pytest.raises(RateError, match="one channel, F0 in Hz, not 2"):
        PulseSource(Stream(100, 2), hop=441)
    with pytest.raises(ValueError, match="hop must be"):
        PulseSource(FRAMES, hop=0)
    with pytest.raises(ValueError, match="contour must be one of slope, between"):
        PulseSource(FRAMES, hop=441, contour="cubic")
