"""Partitioned convolution against scipy, and a room against its geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from astrape.blocks import Stream
from astrape.blocks.convolve import MOST_AT_ONCE, SOUND, Convolve, Room, room_response
from astrape.errors import RateError
from tests.blocks.chunks import assert_chunks_agree, chunk_lists

RATE = 16000


def impulse_response(block: Room, frames: int) -> np.ndarray:
    x = torch.zeros(1, 1, frames, dtype=torch.float64)
    x[..., 0] = 1
    return block.double()(x)[0].numpy()


@settings(deadline=None, max_examples=25)
@given(
    length=st.integers(1, 300),
    partition=st.sampled_from([16, 30, 64]),
    channels=st.sampled_from([(1, 1), (2, 1), (2, 2), (1, 3)]),
    seed=st.integers(0, 99),
)
def test_it_is_scipys_convolution(length, partition, channels, seed):
    inputs, responses = channels
    random = np.random.default_rng(seed)
    taps, x = random.standard_normal((responses, length)), random.standard_normal((2, inputs, 40 * partition))
    block = Convolve(Stream(RATE, inputs), taps=taps.tolist(), partition=partition).double()
    y = block(torch.from_numpy(x)).numpy()
    assert y.shape == (2, max(inputs, responses), 40 * partition)
    for row in range(2):
        for channel in range(y.shape[1]):
            heard, tap = x[row, channel if inputs > 1 else 0], taps[channel if responses > 1 else 0]
            assert np.abs(y[row, channel] - signal.lfilter(tap, [1.0], heard)).max() < 1e-11


def test_single_precision_keeps_it_clean():
    random = np.random.default_rng(1)
    taps = random.standard_normal(8000) * np.exp(-np.arange(8000) / 1500)
    x = random.standard_normal(20 * 256)
    y = Convolve(Stream(RATE, 1), taps=taps.tolist())(torch.from_numpy(x).float()[None, None])[0, 0].numpy()
    expected = signal.lfilter(taps, [1.0], x)
    assert np.abs(y - expected).max() < 1e-5 * np.abs(expected).max()


@settings(deadline=None, max_examples=12)
@given(chunks=chunk_lists, channels=st.sampled_from([(1, 1), (2, 1), (2, 2), (1, 2)]))
def test_chunking_never_matters(chunks, channels):
    inputs, responses = channels
    taps = np.random.default_rng(2).standard_normal((responses, 70)).tolist()
    assert_chunks_agree(Convolve(Stream(RATE, inputs), taps=taps, partition=16), chunks)


def test_a_batch_that_is_computed_some_rows_at_a_time_goes_on_row_by_row():
    random = np.random.default_rng(5)
    taps, x = random.standard_normal((2, 40_000)), random.standard_normal((5, 2, 1024))
    block = Convolve(Stream(RATE, 2), taps=taps.tolist(), partition=16).double()
    assert MOST_AT_ONCE // (block.channels_out * 17 * 2 * block.parts * 32) <= 1  # rows at once, of 32 quanta
    first, state = block.step(torch.from_numpy(x[..., :512]), block.init_state(5, dtype=torch.float64), ())
    second, _ = block.step(torch.from_numpy(x[..., 512:]), state, ())
    y = torch.cat([first, second], dim=-1).numpy()
    expected = [[signal.lfilter(taps[c], [1.0], row[c]) for c in range(2)] for row in x]
    assert np.abs(y - np.array(expected)).max() < 1e-10


def test_a_response_comes_from_a_file(tmp_path):
    taps = np.random.default_rng(3).uniform(-0.5, 0.5, (100, 2))
    soundfile.write(tmp_path / "hall.wav", taps, RATE, subtype="DOUBLE")
    block = Convolve(Stream(RATE, 1), file=str(tmp_path / "hall.wav"), partition=32)
    assert np.allclose(block.responses, taps.T)
    with pytest.raises(RateError, match="resample"):
        Convolve(Stream(44100, 1), file=str(tmp_path / "hall.wav"))
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(ValueError, match="readable"):
        Convolve(Stream(RATE, 1), file=str(tmp_path / "text.wav"))
    with pytest.raises(ValueError, match="there is none"):
        Convolve(Stream(RATE, 1), file=str(tmp_path / "nothing.wav"))
    soundfile.write(tmp_path / "empty.wav", taps[:0], RATE)
    with pytest.raises(ValueError, match="holds no samples"):
        Convolve(Stream(RATE, 1), file=str(tmp_path / "empty.wav"))


def test_a_response_that_was_cut_short_is_refused(tmp_path):
    whole, cut = tmp_path / "whole.wav", tmp_path / "cut.wav"
    soundfile.write(whole, np.random.default_rng(0).standard_normal(4000) * 0.1, 8000, subtype="FLOAT")
    cut.write_bytes(whole.read_bytes()[:-4000])
    Convolve(Stream(8000, 1), file=str(whole))
    with pytest.raises(ValueError, match=r"has 1000 samples fewer than its header says: copy it again"):
        Convolve(Stream(8000, 1), file=str(cut))


def test_a_room_has_its_direct_sound_first_and_reflections_where_mirrors_are():
    size, voice, microphone = (6.0, 5.0, 3.0), (1.5, 1.2, 1.4), (4.0, 3.1, 1.7)
    y = room_response(*(np.array(where) for where in (size, voice)), [np.array(microphone)], 0.8, 2400, 48000)[0]
    direct = math.dist(voice, microphone)
    assert y[0] == pytest.approx(1)
    mirrors = []
    for axis in range(3):
        for wall in (0.0, size[axis]):
            image = list(voice)
            image[axis] = 2 * wall - voice[axis]
            mirrors.append(math.dist(image, microphone))
    for distance in mirrors:
        index = round((distance - direct) / SOUND * 48000)
        assert y[index] >= 0.8 * direct / distance - 1e-9, "a wall leaves 0.8 of an amplitude"
    # Before the first of them there is nothing but the direct sound.
    first = round((min(mirrors) - direct) / SOUND * 48000)
    assert np.abs(y[1:first]).max() < 1e-12


def test_a_room_is_a_sum_over_its_mirror_images():
    size, voice, microphone, kept = (2.0, 3.0, 2.5), (0.4, 1.0, 1.1), (1.5, 2.2, 0.7), 0.7
    found = room_response(*(np.array(where) for where in (size, voice)), [np.array(microphone)], kept, 160, 8000)
    direct, expected = math.dist(voice, microphone), np.zeros(160)

    def along(axis: int) -> list[tuple[float, int]]:
        """Places of images, by reflecting again and again, and how often each was."""
        found = {round(voice[axis], 9): 0}
        for bounce in range(1, 9):
            for place, count in list(found.items()):
                if count == bounce - 1:
                    for wall in (0.0, size[axis]):
                        found.setdefault(round(2 * wall - place, 9), bounce)
        return list(found.items())

    for x, i in along(0):
        for y, j in along(1):
            for z, k in along(2):
                distance = math.dist((x, y, z), microphone)
                index = round((distance - direct) / SOUND * 8000)
                if 0 <= index < 160:
                    expected[index] += direct / distance * kept ** (i + j + k)
    assert np.abs(found[0] - expected).max() < 1e-9
    # The block's own response is that with less rumble in all but the direct sound.
    block = Room(
        Stream(8000, 1), size=size, voice=voice, microphones=[microphone], absorption=1 - kept**2, seconds=0.02
    )
    expected[0] -= 1
    passed = signal.sosfilt(signal.butter(2, 100, "high", fs=8000, output="sos"), expected)
    passed[0] += 1
    assert np.abs(impulse_response(block, 256)[0, :160] - passed).max() < 1e-9


def test_a_room_dies_away_as_eyring_and_sabine_say():
    size, absorption = (5.0, 4.0, 2.6), 0.3
    block = Room(Stream(RATE, 1), size=size, absorption=absorption, seconds=0.5)
    energy = np.cumsum(block.responses[0][::-1] ** 2)[::-1]
    decibels = 10 * np.log10(energy / energy[0])
    start, stop = np.argmax(decibels < -5), np.argmax(decibels < -25)
    seconds = 3 * (stop - start) / RATE
    volume = math.prod(size)
    walls = 2 * (size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    eyring, sabine = -0.161 * volume / (walls * math.log(1 - absorption)), 0.161 * volume / (walls * absorption)
    assert 0.95 * eyring < seconds < 1.05 * sabine


def test_two_microphones_are_two_channels():
    block = Room(Stream(RATE, 1), microphones=[[2.0, 2.0, 1.2], [2.2, 2.0, 1.2]], seconds=0.1, partition=64)
    y = impulse_response(block, 640)
    assert y.shape == (2, 640)
    assert np.abs(y[0] - y[1]).max() > 0.1


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("size", {"size": [5.0, 4.0]}),
        ("size", {"size": [0.1, 4.0, 3.0]}),
        ("voice", {"voice": [9.0, 1.0, 1.0]}),
        ("microphones", {"microphones": []}),
        ("absorption", {"absorption": 0.0}),
        ("images", {"size": [0.5, 0.5, 0.5], "seconds": 10.0}),
    ],
)
def test_what_is_wrong_with_a_room_is_named(name, params):
    with pytest.raises(ValueError, match=name):
        Room(Stream(RATE, 1), **params)


def test_what_is_wrong_with_a_response_is_named():
    for params in ({}, {"taps": [1.0], "file": "x.wav"}, {"taps": []}, {"taps": [[1.0], [1.0, 2.0]]}):
        with pytest.raises(ValueError, match="taps"):
            Convolve(Stream(RATE, 1), **params)
    with pytest.raises(RateError, match="responses"):
        Convolve(Stream(RATE, 3), taps=[[1.0], [1.0]])
    with pytest.raises(ValueError, match="partition"):
        Convolve(Stream(RATE, 1), taps=[1.0], partition=1)
