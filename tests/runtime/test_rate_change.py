"""Two devices with two rates: what one hears, the other plays at the told delay, and nothing else."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from astrape.errors import RateError
from astrape.runtime.rate_change import Crossing, RateChange, whole_block

PAIRS = [(44100, 48000), (48000, 44100), (16000, 48000), (8000, 44100), (96000, 48000), (22050, 48000)]


def tone(frames: np.ndarray, rate: int) -> np.ndarray:
    """Samples of a 1 kHz tone at a clock's instants."""
    return 0.5 * np.sin(2 * np.pi * 1000 * frames / rate)


@pytest.mark.parametrize(("rate_in", "rate_out"), PAIRS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_tone_comes_out_as_the_same_tone_late_by_what_is_told(rate_in: int, rate_out: int, whole: bool) -> None:
    """The oracle is the tone itself: frame m is what it was ``late`` frames ago, at any block."""
    block = whole_block(rate_in, rate_out, rate_in // 100) if whole else rate_in // 100 + 1
    change = RateChange(2, rate_in, rate_out, block)
    count = 0
    made = []
    for number in range(150):
        x = tone(np.arange(number * block, (number + 1) * block), rate_in).astype(np.float32)
        y = change.push(np.stack((x, -x)))
        assert y.shape[1] <= change.most
        count += y.shape[1]
        # Whole quanta give what they last, to the frame; others one less at most.
        assert 0 <= (number + 1) * block * Fraction(rate_out, rate_in) - count <= (0 if whole else 2)
        made.append(y)
    got = np.concatenate(made, axis=1)
    np.testing.assert_allclose(got[0], -got[1], rtol=0, atol=1e-6)
    at = np.arange(got.shape[1])
    settled = at > 2 * change.late + 100
    off = got[0] - tone(at - change.late, rate_out)
    assert np.abs(off[settled]).max() < 1e-4
    # A frame sooner or later is another sound.
    assert np.abs((got[0] - tone(at - change.late - 1, rate_out))[settled]).max() > 0.03


def test_what_is_not_finite_is_silence_and_stays_in_no_filter() -> None:
    change = RateChange(1, 44100, 48000, 441)
    spoiled = np.full((1, 441), np.nan, np.float32)
    spoiled[0, 7] = np.inf
    change.push(spoiled)
    assert not change.push(np.zeros((1, 441), np.float32)).any()


def test_rates_without_a_workable_ratio_are_refused() -> None:
    with pytest.raises(RateError, match="1000003"):
        RateChange(1, 1000003, 48000, 480)


@pytest.mark.parametrize("rates", [(44100, 48000), (16000, 48000), (48000, 44100)])
@pytest.mark.parametrize("fast", [-3e-4, 3e-4])
def test_a_device_of_another_rate_and_clock_is_heard_at_the_told_delay(rates: tuple[int, int], fast: float) -> None:
    """A device whose crystal is fast by so much, and one of another nominal rate, in simulated time."""
    rate_in, rate_out = rates
    block_in, block_out = whole_block(rate_in, rate_out, rate_in // 100), 480
    crossing = Crossing(1, rate_in, rate_out, block_in, block_out)
    source = rate_in * (1 + fast)
    sent = read = 0
    played = []
    while read * block_out < 40 * rate_out:
        # Whichever callback is due first; a source's block is there when its last frame is.
        due_in, due_out = (sent + 1) * block_in / source, read * block_out / rate_out
        if due_in <= due_out:
            instants = (sent * block_in + np.arange(block_in)) / source
            crossing.write(np.sin(2 * np.pi * 440 * instants).astype(np.float32)[None], due_in)
            sent += 1
        else:
            y = np.zeros((1, block_out), np.float32)
            crossing.read(y, due_out)
            played.append(y[0])
            read += 1
    assert abs(crossing.ratio - 1 - fast) < 3e-6
    y = np.concatenate(played).astype(np.float64)
    time = np.arange(len(y)) / rate_out
    for begin in (20, 30, 39):
        part = slice(begin * rate_out, (begin + 1) * rate_out)
        phase = 2 * np.pi * 440 * (time[part] - crossing.late / rate_out)
        basis = np.stack([np.sin(phase), np.cos(phase)], axis=1)
        fitted, *_ = np.linalg.lstsq(basis, y[part], rcond=None)
        rest = y[part] - basis @ fitted
        assert abs(np.arctan2(fitted[1], fitted[0]) / (2 * np.pi * 440) * rate_out) < 0.5
        assert 10 * np.log10(np.mean(rest**2) / np.mean(y[part] ** 2)) < -60


def test_equal_rates_cross_without_a_resampler() -> None:
    crossing = Crossing(1, 48000, 48000, 480, 512)
    assert (crossing.resampled, crossing.entering) == (0, 480)
