"""The mean of several channels, and what it takes away."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.audio.downmix import Downmix, checked_channel
from astrape.errors import AudioError

RATE = 16000


def noise(frames: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (frames, channels)).astype(np.float32)


def cut(samples: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    places = np.cumsum(sizes)
    return np.split(samples, places[places < len(samples)])


def test_the_mean_is_taken_in_float64() -> None:
    x = noise(1000, 3)
    mixed = Downmix(RATE, 3).add(x)
    np.testing.assert_array_equal(mixed, x.mean(axis=1, dtype=np.float64).astype(np.float32))


@pytest.mark.parametrize(("channel", "number"), [("left", 0), ("right", 1), ("1", 0), ("2", 1), ("3", 2)])
def test_a_channel_is_taken_as_it_is(channel: str, number: int) -> None:
    x = noise(1000, 3)
    np.testing.assert_array_equal(Downmix(RATE, 3, channel).add(x), x[:, number])


@given(seed=st.integers(0, 99), sizes=st.lists(st.integers(0, 5000), max_size=8), gain=st.floats(0.8, 1.25))
@settings(max_examples=40, deadline=None)
def test_channels_of_opposite_sign_cancel_however_they_are_cut(seed: int, sizes: list[int], gain: float) -> None:
    x = noise(RATE, 1, seed)
    mix = Downmix(RATE, 2)
    for part in cut(np.hstack((x, -gain * x)), sizes):
        mix.add(part)
    assert mix.cancels
    assert mix.cancelled_seconds == mix.heard_seconds == pytest.approx(1)
    assert "--channel left" in str(mix.fault())
    with pytest.raises(AudioError, match="cancel each other"):
        mix.refuse_cancelled()


@given(seed=st.integers(0, 99), channels=st.integers(1, 8), same=st.floats(-0.5, 1))
@settings(max_examples=40, deadline=None)
def test_channels_that_are_alike_or_have_nothing_in_common_do_not(seed: int, channels: int, same: float) -> None:
    own, shared = noise(RATE, channels, seed), noise(RATE, 1, seed + 1)
    mix = Downmix(RATE, channels)
    mix.add(own + same * shared)
    assert not mix.cancels
    assert mix.fault() is None


def test_one_channel_of_many_and_silence_do_not_cancel() -> None:
    x = np.zeros((RATE, 16), np.float32)
    mix = Downmix(RATE, 16)
    mix.add(x)
    assert mix.heard_seconds == 0
    x[:, 3] = noise(RATE, 1)[:, 0]
    mix.add(x)
    assert mix.heard_seconds > 0.9
    assert not mix.cancels


def test_a_part_that_cancels_counts_from_a_tenth_on() -> None:
    x = noise(10 * RATE, 1)
    for share, cancels in ((0.05, False), (0.5, True)):
        flipped = np.hstack((x, x))
        flipped[: int(share * len(x)), 1] *= -1
        mix = Downmix(RATE, 2)
        mix.add(flipped)
        assert mix.cancelled_seconds == pytest.approx(10 * share, abs=0.06)
        assert mix.cancels == cancels


@pytest.mark.parametrize("channel", ["", "middle", "0", "-1", "1e3", "٣", "9999999999", "left "])
def test_channels_have_names(channel: str) -> None:
    with pytest.raises(AudioError, match="must be mean, left, right"):
        checked_channel(channel)


def test_a_channel_must_be_there() -> None:
    with pytest.raises(AudioError, match=r"x\.wav: has 1 channel, and no 'right'"):
        Downmix(RATE, 1, "right", "x.wav")
