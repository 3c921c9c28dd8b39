"""The speaker encoder that ships, with the weights that ship: whom it tells apart, and what a voicebank by it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from scipy.fft import dct

import astrape
from astrape.blocks.mel import mel_filters
from astrape.cli import cli
from astrape.graph.weights import shipped_weights
from astrape.voice.errors import VoicebankError
from astrape.voice.own_encoder import AstrapeSpeaker
from astrape.voice.register import RegisterMeter
from astrape.voice.speaker import speaker_encoder
from astrape.voice.voicebank import read_voicebank

SAMPLE = Path(astrape.__file__).parent / "recipes" / "audio" / "sense-and-sensibility.flac"
RATE = 44100


@pytest.fixture(scope="module")
def speech() -> NDArray[np.float32]:
    samples, rate = soundfile.read(SAMPLE, dtype="float32")
    resampled: NDArray[np.float32] = soxr.resample(samples, rate, RATE, "HQ")
    return resampled


@pytest.fixture(scope="module")
def encoder() -> AstrapeSpeaker:
    found = speaker_encoder("astrape-speaker")
    assert isinstance(found, AstrapeSpeaker)
    return found


def cosine(
    encoder: AstrapeSpeaker, one: NDArray[np.float32], other: NDArray[np.float32], part: slice = slice(None)
) -> float:
    a, b = (encoder.embed(torch.from_numpy(np.ascontiguousarray(samples, np.float32))) for samples in (one, other))
    return float(torch.nn.functional.cosine_similarity(a[part], b[part], dim=0))


def test_halves_of_a_recording_are_alike_and_another_size_of_speaker_is_not(
    encoder: AstrapeSpeaker, speech: NDArray[np.float32]
) -> None:
    half = len(speech) // 2
    same = cosine(encoder, speech[:half], speech[half:])
    # A tape at 1.35 times its speed: a smaller speaker with a higher voice, who says the same words.
    other = cosine(encoder, speech[:half], soxr.resample(speech[:half], 1.35 * RATE, RATE, "HQ"))
    assert same > 0.75
    assert other < same - 0.2
    # Of who speaks, without the tone, which varies with the words.
    assert cosine(encoder, speech[:half], speech[half:], slice(0, 96)) > 0.9


def test_the_level_is_nobodys_voice(encoder: AstrapeSpeaker, speech: NDArray[np.float32]) -> None:
    assert cosine(encoder, speech, 0.1 * speech) > 0.98


def test_it_says_what_resemblyzer_says(encoder: AstrapeSpeaker, speech: NDArray[np.float32]) -> None:
    pytest.importorskip("resemblyzer", reason="resemblyzer is not installed")
    from astrape.training.teachers.resemblyzer import WHO, ResemblyzerTeacher

    hears = ResemblyzerTeacher()
    # The speech, and a tape of it at 1.35 times its speed, which is another speaker.
    teacher, other = (
        torch.from_numpy(hears.who(soxr.resample(speech, rate, 16000, "HQ").astype(np.float32)))
        for rate in (RATE, 1.35 * RATE)
    )
    student = encoder.embed(torch.from_numpy(speech))[:WHO]
    near = float(torch.nn.functional.cosine_similarity(teacher, student, dim=0))
    assert near > 0.65
    assert near > float(torch.nn.functional.cosine_similarity(other, student, dim=0)) + 0.1
    assert 0.6 < student.norm() / teacher.norm() < 1.2


def test_its_tone_is_the_cosine_transform_of_the_long_term_spectrum(
    encoder: AstrapeSpeaker, speech: NDArray[np.float32]
) -> None:
    """By NumPy and SciPy, of frames that are cut here."""
    graph = astrape.load("astrape-speaker")
    samples = torch.from_numpy(speech).reshape(1, 1, -1)
    with torch.no_grad():
        found = graph(samples)[0, 96:, -1].numpy()
        heard = graph.nodes["down"].block(samples)[0, 0].numpy()
    window = np.hanning(513)[:512]
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(heard, (192, 0)), 512)[::320]
    mel = np.log(np.maximum(np.abs(np.fft.rfft(frames * window, axis=1)) @ mel_filters(64, 512, 16000).T, 1e-5))
    level = np.sqrt((frames**2 * window).sum(axis=1) / window.sum())
    weight = level / (1 + level)  # the logistic function of its logarithm
    mean = (weight[:, None] * mel).sum(axis=0) / weight.sum()
    spread = np.sqrt((weight[:, None] * (mel - mean) ** 2).sum(axis=0) / weight.sum())
    coefficients = np.concatenate((dct(mean, norm="ortho")[1:25], dct(spread, norm="ortho")[:8]))
    block = graph.nodes["tone"].block
    matrix, bias = block.weight.detach().numpy(), block.bias.detach().numpy()
    pure = np.concatenate((dct(np.eye(64), axis=0, norm="ortho")[1:25], dct(np.eye(64), axis=0, norm="ortho")[:8]))
    halves = np.concatenate((matrix[:24, :64], matrix[24:, 64:]))
    scale = (halves * pure).sum(axis=1)  # rows of `pure` have length 1
    np.testing.assert_allclose(halves, scale[:, None] * pure, atol=1e-3)
    assert not matrix[:24, 64:].any()
    assert not matrix[24:, :64].any()
    np.testing.assert_allclose(found, scale * coefficients + bias, atol=0.02)


def test_a_stream_ends_with_what_the_whole_gives(encoder: AstrapeSpeaker, speech: NDArray[np.float32]) -> None:
    graph = astrape.load("astrape-speaker")
    samples = torch.from_numpy(speech[: 2 * RATE // 882 * 882]).reshape(1, 1, -1)
    with torch.no_grad():
        whole = graph(samples)
    stream = graph.stream()
    pieces = [stream.push(piece) for piece in samples.split(441, dim=-1)]
    joined = torch.cat(pieces, dim=-1)
    torch.testing.assert_close(joined, whole[..., : joined.shape[-1]], rtol=1e-3, atol=1e-4)
    assert joined.shape[-1] >= 98


def test_a_voicebank_says_encoder_and_register(tmp_path: Path) -> None:
    out = tmp_path / "voice.astrape"
    words = ["voicebank", "build", str(SAMPLE), "-o", str(out), "--encoder", "astrape-speaker", "--json"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    metadata = json.loads(result.stdout)["metadata"]
    assert metadata["embedding_model"] == "astrape-speaker"
    # By WORLD's Harvest 99 Hz, by SwiftF0 97.
    assert metadata["median_f0_hz"] == pytest.approx(98, rel=0.05)
    bank = read_voicebank(out)
    assert bank.metadata.median_f0_hz == metadata["median_f0_hz"]
    assert bank.embedding.shape == (128,)


def test_without_its_weights_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astrape.voice.own_encoder.shipped_weights", lambda name: None)
    with pytest.raises(VoicebankError, match=r"not in this installation .* `astrape train-speaker`"):
        AstrapeSpeaker()


def test_its_weights_are_small() -> None:
    path = shipped_weights("astrape-speaker")
    assert path is not None
    assert path.stat().st_size < 1_000_000


class TestRegister:
    def hum(self, hertz: float, seconds: float) -> torch.Tensor:
        time = torch.arange(round(seconds * RATE)) / RATE
        return sum(torch.cos(2 * torch.pi * k * hertz * time) / k for k in range(1, 20)) * 0.1  # type: ignore[return-value]

    def test_it_is_the_median_whatever_the_pieces(self) -> None:
        low, high = self.hum(110, 2.0), self.hum(180, 1.0)
        both = torch.cat((low, high))
        found = []
        for size in (1000, 44100, len(both)):
            meter = RegisterMeter(RATE)
            assert torch.equal(torch.cat(list(meter.follow(both.split(size)))), both)
            found.append(meter.median)
        assert found == pytest.approx([110.0] * 3, rel=0.01)
        assert found == pytest.approx([found[0]] * 3, rel=1e-5)

    def test_recordings_do_not_run_into_each_other(self) -> None:
        meter = RegisterMeter(RATE)
        for hertz in (110, 180, 180):
            list(meter.follow([self.hum(hertz, 1.0)]))
        assert meter.median == pytest.approx(180, rel=0.01)

    def test_silence_and_a_click_have_none(self) -> None:
        meter = RegisterMeter(RATE)
        list(meter.follow([torch.zeros(RATE), self.hum(110, 0.3)]))
        assert meter.median is None
