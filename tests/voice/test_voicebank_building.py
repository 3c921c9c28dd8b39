"""Voicebanks from audio: windows, averages and measures, against what NumPy and soxr find on the whole recording."""

from __future__ import annotations

import hashlib
import math
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from astrape.voice.building import build_voicebank
from astrape.voice.errors import VoicebankError
from astrape.voice.quality import ReferenceMeter
from astrape.voice.speaker import MelStatistics, SpeakerEncoder, speaker_encoder


class Windows:
    """An encoder that keeps what it hears; embeddings are all ones times the window's number."""

    name = "windows"

    def __init__(self, sample_rate: int = 16000) -> None:
        self.sample_rate = sample_rate
        self.heard: list[Tensor] = []

    def embed(self, audio: Tensor) -> Tensor:
        self.heard.append(audio.clone())
        return torch.full((128,), float(len(self.heard)))


def noise(seconds: float, rate: int, channels: int = 1, level: float = 0.1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, (round(seconds * rate), channels)).clip(-0.99, 0.99)


def voice(seconds: float, rate: int, pitch: float, tilt: float, seed: int = 0) -> np.ndarray:
    """A hum with harmonics that fall by ``tilt`` dB an octave, in syllables, with a little noise."""
    t = np.arange(round(seconds * rate)) / rate
    count = int(min(rate / 2, 7000) / pitch)
    hum = sum(10 ** (-tilt * math.log2(k) / 20) * np.sin(2 * np.pi * k * pitch * t + k) for k in range(1, count))
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * t)
    return 0.05 * hum * syllables + np.random.default_rng(seed).normal(0, 1e-4, len(t))


def wav(path: Path, samples: np.ndarray, rate: int, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.mark.parametrize(
    ("seconds", "spans"),
    [
        (5, [(0, 5)]),
        (8, [(0, 8)]),
        (8.5, [(0, 8), (0.5, 8.5)]),
        (12, [(0, 8), (4, 12)]),
        (19, [(0, 8), (4, 12), (8, 16), (11, 19)]),
    ],
)
def test_windows_of_8_s_every_4_s(tmp_path: Path, seconds: float, spans: list[tuple[float, float]]) -> None:
    samples = noise(seconds, 16000).astype(np.float32)
    encoder = Windows()
    bank = build_voicebank(wav(tmp_path / "a.wav", samples, 16000), encoder)
    assert [len(window) for window in encoder.heard] == [round((end - start) * 16000) for start, end in spans]
    for window, (start, end) in zip(encoder.heard, spans, strict=True):
        assert np.array_equal(window.numpy(), samples[round(start * 16000) : round(end * 16000), 0])
    assert np.allclose(bank.embedding, np.mean(range(1, len(spans) + 1)))


def test_the_mean_is_over_all_windows_of_all_files(tmp_path: Path) -> None:
    paths = [wav(tmp_path / f"{i}.wav", noise(length, 16000), 16000) for i, length in enumerate((12, 2, 3))]
    encoder = Windows()
    bank = build_voicebank(paths, encoder)
    assert len(encoder.heard) == 4
    assert np.allclose(bank.embedding, 2.5)
    assert bank.metadata.duration_seconds == 17.0
    assert bank.metadata.source_path == "; ".join(map(str, paths))
    joined = b"".join(path.read_bytes() for path in paths)
    assert bank.metadata.reference_sha256 == hashlib.sha256(joined).hexdigest()


def test_quiet_windows_are_skipped(tmp_path: Path) -> None:
    just_over, just_under = 10 ** (-44.9 / 20), 10 ** (-45.1 / 20)
    tone = math.sqrt(2) * np.sin(np.arange(8 * 16000) * 0.05)
    samples = np.concatenate((just_over * tone, just_under * tone, just_over * tone))
    encoder = Windows()
    build_voicebank(wav(tmp_path / "a.wav", samples, 16000), encoder)
    # Windows at 0, 4, 8, 12 and 16 s; only the one at 8 s is all quiet, and those at 4 and 12 s are just below.
    levels = [10 * math.log10(float(window.square().mean())) for window in encoder.heard]
    assert len(levels) == 4
    assert min(levels) == pytest.approx(-45.0, abs=0.01)
    with pytest.raises(VoicebankError, match=r"b\.wav: no window reaches -45 dBFS \(the loudest has -45\.1\)"):
        build_voicebank(wav(tmp_path / "b.wav", just_under * tone, 16000), Windows())


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (48000, 6), (11025, 1), (192000, 1)])
def test_any_rate_is_brought_to_the_encoders_as_soxr_does(tmp_path: Path, rate: int, channels: int) -> None:
    t = np.arange(6 * rate) / rate
    tones = sum(np.sin(2 * np.pi * f * t + f) for f in (100, 440, 1234, 3000)) / 8
    samples = np.stack([tones * (1 + 0.2 * i) for i in range(channels)], axis=1).clip(-0.999, 0.999)
    encoder = Windows()
    bank = build_voicebank(wav(tmp_path / "a.wav", samples, rate, "DOUBLE"), encoder)
    (window,) = encoder.heard
    expected = soxr.resample(samples.mean(axis=1), rate, 16000, quality="VHQ")
    assert len(window) == 6 * 16000
    inner = slice(800, -800)
    assert np.abs(window.numpy()[inner] - expected[inner]).max() < 2e-3
    assert bank.metadata.source_sample_rate == rate


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "a.aiff"])
def test_other_formats(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, voice(6, 44100, 150, 9), 44100)
    bank = build_voicebank(tmp_path / name, speaker_encoder())
    assert bank.metadata.duration_seconds == pytest.approx(6, abs=0.1)


def test_measures_are_those_of_the_whole(tmp_path: Path) -> None:
    rate = 44100
    samples = voice(7, rate, 120, 6) + 0.02
    samples[rate : 3 * rate] = 0.001
    samples[5 * rate : 5 * rate + 100] = 1.0
    path = wav(tmp_path / "a.wav", samples, rate, "DOUBLE")
    created = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    found = build_voicebank(path, Windows(), created=created).metadata
    x = samples.astype(np.float32).astype(np.float64)
    frames = [x[start : start + 882] for start in range(0, len(x) - 881, 441)]
    active = np.mean([np.sqrt(np.mean(frame**2)) >= 10 ** (-50 / 20) for frame in frames])
    assert found.peak_amplitude == np.abs(x).max()
    assert found.rms_dbfs == pytest.approx(20 * np.log10(np.sqrt(np.mean(x**2))), abs=1e-9)
    assert found.clipping_fraction == pytest.approx(np.mean(np.abs(x) >= 0.999), rel=1e-12)
    assert found.active_speech_ratio == active
    assert found.dc_offset == pytest.approx(x.mean(), rel=1e-9)
    assert found.created_utc == "2026-01-02T03:04:05+00:00"
    assert found.source_path == str(path)
    assert found.reference_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.quality_warnings == ("clipping_detected", "dc_offset_detected")


@settings(max_examples=40)
@given(data=st.data(), rate=st.sampled_from([8000, 11025, 22050, 44100]), channels=st.integers(1, 3))
def test_measures_do_not_depend_on_the_pieces(data: Any, rate: int, channels: int) -> None:
    samples = noise(0.3, rate, channels, 0.5, seed=data.draw(st.integers(0, 99)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(samples)), max_size=8)))
    whole, pieces = ReferenceMeter(rate), ReferenceMeter(rate)
    whole.add(samples)
    for start, end in zip([0, *cuts], [*cuts, len(samples)], strict=True):
        pieces.add(samples[start:end])
    one, other = ReferenceMeter.together([whole]), ReferenceMeter.together([pieces])
    assert one.active_speech_ratio == other.active_speech_ratio
    assert one.peak_amplitude == other.peak_amplitude
    for name in ("rms_dbfs", "clipping_fraction", "dc_offset", "duration_seconds"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9, abs=1e-12)


THRESHOLDS = {
    "clipping_detected": (lambda x: x.__setitem__(slice(0, 6 * 16), 1.0), lambda x: x.__setitem__(slice(0, 9), 1.0)),
    "dc_offset_detected": (lambda x: x.__iadd__(0.011), lambda x: x.__iadd__(0.009)),
    "reference_too_quiet": (lambda x: x.__imul__(10 ** (-15.5 / 20)), lambda x: x.__imul__(10 ** (-14.5 / 20))),
    "reference_too_loud": (lambda x: x.__imul__(10 ** (12.5 / 20)), lambda x: x.__imul__(10 ** (11.5 / 20))),
    "low_active_speech_ratio": (
        lambda x: x.__setitem__(slice(0, round(0.42 * len(x))), 0.0),
        lambda x: x.__setitem__(slice(0, round(0.38 * len(x))), 0.0),
    ),
}


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("over", [True, False])
def test_warnings_begin_at_their_thresholds(tmp_path: Path, name: str, over: bool) -> None:
    samples = 0.1 * math.sqrt(2) * np.sin(np.arange(6 * 16000) * 2 * np.pi / 100)
    THRESHOLDS[name][0 if over else 1](samples)
    bank = build_voicebank(wav(tmp_path / "a.wav", samples, 16000), Windows())
    assert bank.metadata.quality_warnings == ((name,) if over else ())


def test_clipping_on_one_channel_is_seen(tmp_path: Path) -> None:
    samples = noise(6, 16000, 2)
    samples[:1000, 0] = 1.0
    found = build_voicebank(wav(tmp_path / "a.wav", samples, 16000), Windows()).metadata
    assert found.clipping_fraction == pytest.approx(500 / (6 * 16000))
    assert found.peak_amplitude < 1


def test_rates_are_mixed_by_seconds(tmp_path: Path) -> None:
    paths = [
        wav(tmp_path / "a.wav", np.full(3 * 8000, 0.5), 8000),
        wav(tmp_path / "b.wav", np.full(3 * 48000, 0.1), 48000),
    ]
    found = build_voicebank(paths, Windows()).metadata
    assert found.source_sample_rate == 8000
    assert found.dc_offset == pytest.approx(0.3)


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(300, 8000), 8000, "PCM_16")
    encoder = MelStatistics()
    build_voicebank(wav(tmp_path / "b.wav", noise(6, 8000), 8000), encoder)
    tracemalloc.start()
    try:
        build_voicebank(path, encoder)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def cut_off(path: Path) -> Path:
    soundfile.write(path, noise(6, 16000), 16000, format="FLAC")
    path.write_bytes(path.read_bytes()[:60_000])
    return path


def not_finite(path: Path) -> Path:
    samples = noise(6, 16000)
    samples[40_000] = np.nan
    return wav(path, samples, 16000)


REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": (lambda folder: [], "no reference"),
    "missing": (lambda folder: folder / "none.wav", r"none\.wav: there is no such file"),
    "folder": (lambda folder: folder, "is a folder"),
    "no audio": (
        lambda folder: (folder / "a.wav").write_text("hello") and folder / "a.wav",
        "not a readable audio file",
    ),
    "short": (lambda folder: wav(folder / "a.wav", noise(4.99, 16000), 16000), r"a\.wav: 4\.99 s .* at least 5"),
    "one too short": (
        lambda folder: [wav(folder / f"{s}.wav", noise(s, 16000), 16000) for s in (6, 0.9)],
        r"0\.9\.wav: 0\.90 s",
    ),
    "empty": (lambda folder: wav(folder / "a.wav", noise(0, 16000), 16000), r"0\.00 s"),
    "silence": (lambda folder: wav(folder / "a.wav", np.zeros(96000), 16000), r"the loudest has -240\.0"),
    "not finite": (lambda folder: not_finite(folder / "a.wav"), r"2\.500 s is not finite"),
    "several not finite": (
        lambda folder: wav(folder / "a.wav", np.full(96000, np.inf), 16000),
        r"16000 samples are not finite, the first at 0\.000 s",
    ),
    "beyond float32's squares": (
        lambda folder: wav(folder / "a.wav", noise(6, 16000) * 1e30, 16000),
        r"a\.wav: a sample is \d.*e\+(29|30), and full scale is 1: hint: ",
    ),
    "too low a rate": (lambda folder: wav(folder / "a.wav", noise(6, 4000), 4000), "4000 Hz"),
    "twice": (lambda folder: [wav(folder / "a.wav", noise(6, 16000), 16000)] * 2, "twice"),
    "cut off": (lambda folder: cut_off(folder / "a.flac"), r"a\.flac"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_recordings_that_cannot_be_used_are_refused(tmp_path: Path, case: str) -> None:
    make, said = REFUSED[case]
    with pytest.raises(VoicebankError, match=said):
        build_voicebank(make(tmp_path), Windows())


@pytest.mark.parametrize(
    "given",
    [torch.ones(64), torch.ones(1, 128), torch.zeros(128), torch.full((128,), math.nan), torch.ones(128).long()],
)
def test_an_encoder_that_gives_no_embedding_is_named(tmp_path: Path, given: Tensor) -> None:
    class Wrong(Windows):
        name = "some-encoder"

        def embed(self, audio: Tensor) -> Tensor:
            return given

    with pytest.raises(VoicebankError, match="'some-encoder'"):
        build_voicebank(wav(tmp_path / "a.wav", noise(6, 16000), 16000), Wrong())


@pytest.mark.parametrize("change", [{"name": ""}, {"sample_rate": 0}, {"sample_rate": 16000.0}, {"sample_rate": 10**9}])
def test_an_encoder_without_a_name_or_a_rate_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    encoder = Windows()
    for name, value in change.items():
        setattr(encoder, name, value)
    with pytest.raises(VoicebankError):
        build_voicebank(wav(tmp_path / "a.wav", noise(6, 16000), 16000), encoder)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def test_mel_statistics_are_deterministic_and_do_not_hear_the_level() -> None:
    audio = torch.from_numpy(voice(6, 16000, 120, 9)).float()
    one = MelStatistics().embed(audio)
    assert one.shape == (128,)
    assert one.dtype == torch.float32
    assert torch.equal(one, MelStatistics().embed(audio))
    assert torch.allclose(one, MelStatistics().embed(audio * 0.1), atol=1e-3)
    assert "untrained" in MelStatistics.name


def test_mel_statistics_tell_spectra_apart() -> None:
    encoder = MelStatistics()

    def embed(pitch: float, tilt: float, seed: int) -> Tensor:
        return encoder.embed(torch.from_numpy(voice(6, 16000, pitch, tilt, seed)).float())

    assert cosine(embed(110, 6, 0), embed(110, 6, 1)) > 0.999
    assert cosine(embed(110, 6, 0), embed(112, 6, 1)) > cosine(embed(110, 6, 0), embed(220, 14, 1))


class Rateless:
    name = "rateless"


NOTHING = 3


def test_encoders_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    import astrape.voice.speaker as speaker

    point = EntryPoint("theirs", "tests.voice.test_voicebank_building:Windows", speaker.ENTRY_POINTS)
    monkeypatch.setattr(speaker, "entry_points", lambda group: [point] if group == speaker.ENTRY_POINTS else [])
    for name, kind in {
        "mel-statistics": "MelStatistics",
        "theirs": "Windows",
        "tests.voice.test_voicebank_building:Windows": "Windows",
    }.items():
        encoder = speaker_encoder(name)
        assert isinstance(encoder, SpeakerEncoder)
        assert type(encoder).__name__ == kind
    for name, said in {
        "none": "choose from: astrape-speaker, mel-statistics, theirs",
        "none:None": "cannot be imported",
        "tests.voice.test_voicebank_building:none": "cannot be imported",
        "tests.voice.test_voicebank_building:Rateless": "Rateless",
        "tests.voice.test_voicebank_building:NOTHING": "int",
        "tests.voice.test_voicebank_building:": "no speaker encoder",
        "..:x": "cannot be imported",
    }.items():
        with pytest.raises(VoicebankError, match=said):
            speaker_encoder(name)
