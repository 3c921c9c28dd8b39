"""The teacher without packages: an independent oracle, both ways in time, independent of level and voice colour."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import fft as scipy_fft

from astrape.blocks.mel import mel_filters
from astrape.training.errors import TeacherError
from astrape.training.teachers import Teacher, open_teacher
from astrape.voice.speaker import MelStatistics


def speech_like(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose colour and level change every 80 ms."""
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(math.ceil(seconds / 0.08)):
        noise = rng.standard_normal(1280)
        pole = rng.uniform(-0.9, 0.9)
        out = np.zeros_like(noise)
        last = 0.0
        for index, value in enumerate(noise):
            last = value + pole * last
            out[index] = last
        pieces.append(out * rng.uniform(0.01, 0.2))
    return np.concatenate(pieces)[: round(seconds * 16000)].astype(np.float32)


def tensor(audio: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(audio).reshape(1, 1, -1)


def oracle(audio: np.ndarray) -> np.ndarray:
    """The steps of the description, frame by frame."""
    samples = audio.astype(np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    filters = mel_filters(40, 512, 16000.0, 60.0, 7600.0)
    cepstra = []
    for frame in range(len(samples) // 160):
        centre = 160 * frame + 80
        cut = np.zeros(512)
        for index in range(512):
            at = centre - 256 + index
            if 0 <= at < len(samples):
                cut[index] = samples[at]
        power = np.abs(np.fft.rfft(cut * window)) ** 2
        cepstra.append(scipy_fft.dct(np.log(np.maximum(filters @ power, 1e-8)), norm="ortho")[:12])
    count = len(samples) // 640
    weights = [0.5 - 0.5 * math.cos(2 * math.pi * (k + 0.5) / 12) for k in range(12)]
    smooth = np.zeros((count, 12))
    for frame in range(count):
        there = [(w, 4 * frame - 4 + k) for k, w in enumerate(weights) if 0 <= 4 * frame - 4 + k < len(cepstra)]
        smooth[frame] = sum(w * cepstra[at] for w, at in there) / sum(w for w, _ in there)
    slopes = np.zeros_like(smooth)
    for frame in range(count):
        around = [smooth[min(max(frame + step, 0), count - 1)] for step in range(-2, 3)]
        slopes[frame] = np.polyfit(np.arange(-2, 3), np.stack(around), 1)[0]
    features = np.concatenate((smooth, slopes), axis=1)
    return ((features - features.mean(0)) / features.std(0)).T


@pytest.mark.parametrize("seconds", [0.2, 1.0, 1.337])
def test_content_equals_the_description_step_by_step(seconds: float) -> None:
    audio = speech_like(seconds)
    found = open_teacher("spectral").content(tensor(audio))[0].numpy()
    np.testing.assert_allclose(found, oracle(audio), atol=2e-5)


def test_it_is_a_teacher_and_says_what_it_gives() -> None:
    teacher = open_teacher("spectral")
    assert isinstance(teacher, Teacher)
    assert (teacher.sample_rate, teacher.content_rate, teacher.code_count) == (16000, Fraction(25), None)
    content = teacher.content(tensor(speech_like(1.0)))
    assert content.shape == (1, teacher.content_channels, 25)
    assert content.dtype == torch.float32
    assert teacher.speaker(tensor(speech_like(1.0))).shape == (1, teacher.speaker_channels)


def test_the_same_every_time_and_in_a_batch() -> None:
    one, two = speech_like(1.2, 1), speech_like(1.2, 2)
    both = torch.cat((tensor(one), tensor(two)))
    teacher, another = open_teacher("spectral"), open_teacher("spectral")
    assert torch.equal(teacher.content(both), another.content(both))
    torch.testing.assert_close(teacher.content(both)[1:], teacher.content(tensor(two)), rtol=0, atol=1e-6)
    assert torch.equal(teacher.speaker(both)[1:], another.speaker(tensor(two)))


def test_level_and_a_fixed_filter_leave_the_content() -> None:
    """A factor adds to one cepstrum, a short filter a constant to each: both go with the mean."""
    teacher = open_teacher("spectral")
    audio = speech_like(3.0)
    coloured = np.convolve(audio, [1.0, -0.4])[: len(audio)].astype(np.float32)
    plain, louder, other = (teacher.content(tensor(x)) for x in (audio, audio * 4, coloured))
    torch.testing.assert_close(louder, plain, rtol=0, atol=1e-4)
    assert torch.nn.functional.cosine_similarity(other.flatten(1), plain.flatten(1)).item() > 0.98
    assert torch.nn.functional.cosine_similarity(plain[..., 10:].flatten(1), plain[..., :-10].flatten(1)).item() < 0.5


def test_content_looks_both_ways() -> None:
    """A sound 100 ms after a frame's end is in the frame, before any normalisation."""
    teacher = open_teacher("spectral")
    audio = torch.from_numpy(speech_like(2.0)).double()
    changed = audio.clone()
    changed[16000 + 1600 :] *= 3.0
    frames = []
    for signal in (audio, changed):
        smooth = teacher._smoothed(teacher._cepstra(signal.reshape(1, 1, -1)), 50)
        frames.append(torch.cat((smooth, teacher._slopes(smooth)), dim=1))
    moved = (frames[0] - frames[1]).abs().amax((0, 1)) > 1e-9
    # 1.1 s is in frame 27; averages reach one frame and half a window of 32 ms, slopes two frames more.
    assert moved.nonzero().min().item() == 24
    assert moved[26:].all()


def test_silence_is_zero_and_not_infinite() -> None:
    content = open_teacher("spectral").content(torch.zeros(2, 1, 16000))
    assert torch.equal(content, torch.zeros(2, 24, 25))


def test_speakers_are_the_statistics() -> None:
    audio = speech_like(1.0)
    expected = MelStatistics().embed(torch.from_numpy(audio))
    assert torch.equal(open_teacher("spectral").speaker(tensor(audio))[0], expected)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(1, 16000), "shape"),
        (torch.zeros(1, 2, 16000), "shape"),
        (torch.zeros(0, 1, 16000), "shape"),
        (torch.zeros(1, 1, 16000, dtype=torch.int16), "floating"),
        (torch.zeros(1, 1, 600), "0.04 s"),
        (torch.full((1, 1, 16000), float("nan")), "16000 samples that are not finite"),
    ],
)
def test_wrong_audio_is_refused_in_words(audio: torch.Tensor, message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        open_teacher("spectral").content(audio)


def test_what_it_cannot_do_is_said() -> None:
    teacher = open_teacher("spectral")
    assert not teacher.decodes
    with pytest.raises(TeacherError, match="no decoder"):
        teacher.decode(torch.zeros(1, 24, 25), torch.zeros(1, 128))
    with pytest.raises(TeacherError, match="no codes"):
        teacher.codes(torch.zeros(1, 1, 16000))


def test_unknown_names_and_parameters_are_named() -> None:
    with pytest.raises(TeacherError, match="no teacher 'mio': choose from: miocodec, resemblyzer, offline, spectral"):
        open_teacher("mio")
    with pytest.raises(TeacherError, match="no parameter 'folder'"):
        open_teacher("spectral", folder="x")
