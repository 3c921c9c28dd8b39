"""m4a, webm and mp4: read by PyAV, cut short or whole, and named where nothing is there that decodes them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astrape.audio import decoding
from astrape.audio.decoding import FfmpegSource, is_container
from astrape.audio.reader import AudioReader
from astrape.errors import AudioError

av = pytest.importorskip("av")

KINDS = {"m4a": ("aac", 44100), "webm": ("libopus", 48000), "mp4": ("aac", 44100), "mka": ("pcm_s16le", 44100)}


def sine(frames: int, rate: int) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(frames) / rate)).astype(np.float32)


def encode(path: Path, samples: np.ndarray, codec: str, rate: int) -> Path:
    # The index in front, as files from the web have it.
    options = {"movflags": "faststart"} if path.suffix in (".m4a", ".mp4") else {}
    with av.open(str(path), "w", options=options) as container:
        stream: Any = container.add_stream(codec, rate=rate, layout="mono")
        form = "s16" if codec == "pcm_s16le" else "fltp" if codec == "aac" else "flt"
        resampler = av.AudioResampler(format=form, layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout="mono")
        frame.sample_rate = rate
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def read(path: Path) -> tuple[np.ndarray, AudioReader]:
    with AudioReader(path) as audio:
        return np.concatenate(list(audio.blocks(0.1)) or [np.zeros((0, 1))])[:, 0], audio


@pytest.mark.parametrize("ending", KINDS)
def test_what_libsndfile_does_not_read_is_decoded(tmp_path: Path, ending: str) -> None:
    codec, rate = KINDS[ending]
    x = sine(2 * rate, rate)
    path = encode(tmp_path / f"a.{ending}", x, codec, rate)
    y, audio = read(path)
    assert (audio.rate, audio.channels, audio.fault()) == (rate, 1, None)
    assert abs(len(y) - len(x)) <= 0.06 * rate
    # Encoders delay by a frame or so: the tone is there, at its level.
    assert np.sqrt(np.square(y[rate // 2 : rate]).mean()) == pytest.approx(0.3 / np.sqrt(2), rel=0.02)
    with AudioReader(path) as audio:
        assert audio.count() == len(y)
        audio.seek(rate // 3)
        np.testing.assert_array_equal(audio.read(1000)[:, 0], y[rate // 3 : rate // 3 + 1000])
        audio.seek(100)
        np.testing.assert_array_equal(audio.read(1000)[:, 0], y[100:1100])


@pytest.mark.parametrize("ending", KINDS)
def test_cut_at_any_length_it_is_an_error_or_told(tmp_path: Path, ending: str) -> None:
    codec, rate = KINDS[ending]
    whole = encode(tmp_path / f"a.{ending}", sine(2 * rate, rate), codec, rate).read_bytes()
    path = tmp_path / f"cut.{ending}"
    told = 0
    for share in np.linspace(0.02, 0.9, 12):
        path.write_bytes(whole[: int(share * len(whole))])
        try:
            y, audio = read(path)
        except AudioError:
            told += 1
            continue
        assert len(y) < 2 * rate
        told += audio.is_cut
    assert told == 12


def test_damage_is_an_error_in_words_or_samples(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for ending, (codec, rate) in KINDS.items():
        whole = encode(tmp_path / f"a.{ending}", sine(rate // 2, rate), codec, rate).read_bytes()
        path = tmp_path / f"bad.{ending}"
        for _ in range(25):
            made = bytearray(whole)
            for place in generator.integers(0, len(made), generator.integers(1, 10)):
                made[place] = generator.integers(0, 256)
            path.write_bytes(made)
            try:
                y, _ = read(path)
            except AudioError as error:
                assert str(error).startswith(str(path))  # noqa: PT017 - either will do
            else:
                assert len(y) < 100 * rate


def test_without_a_decoder_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.m4a", sine(4410, 44100), "aac", 44100)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "av" else real(name, *more))
    monkeypatch.setattr(decoding.shutil, "which", lambda name: None)
    with pytest.raises(
        AudioError, match=r"a\.m4a: its form, m4a, takes PyAV or ffmpeg: hint: pip install av"
    ) as caught:
        AudioReader(path)
    assert caught.value.kind == "decoder"


def test_a_program_in_the_place_of_ffmpeg_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ffmpeg writes a WAV stream of floats; here a script does, and then fails or complains."""
    from astrape.audio.pcm import Pcm, encoded, wav_header

    x = np.random.default_rng(0).uniform(-0.5, 0.5, (5000, 2)).astype(np.float32)
    (tmp_path / "stream").write_bytes(wav_header(Pcm("f32le", 22050, 2)) + encoded(x, "f32le"))
    program = tmp_path / "ffmpeg"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for tail, kind in (("", None), ("echo broken >&2", "cut"), ("echo broken >&2; exit 3", "damaged")):
        program.write_text(f"#!/bin/sh\ncat {tmp_path}/stream\n{tail}\n")
        program.chmod(0o755)
        source = FfmpegSource("a.webm", "a.webm")
        try:
            if kind == "damaged":
                np.testing.assert_array_equal(source.read(5000), x)
                with pytest.raises(AudioError, match=r"beyond 0\.227 s: broken"):
                    source.read(1)
            else:
                np.testing.assert_array_equal(source.read(6000), x)
                assert source.cut == (kind == "cut")
                source.seek(100)
                np.testing.assert_array_equal(source.read(10), x[100:110])
        finally:
            source.close()
    program.write_text("#!/bin/sh\necho no such codec >&2\nexit 1\n")
    with pytest.raises(AudioError, match=r"a\.webm: is not a readable audio file: no such codec"):
        FfmpegSource("a.webm", "a.webm")


def test_playlists_are_no_containers() -> None:
    for begin in (b"#EXTM3U\nhttp://x", b"ffconcat version", b"RIFF\0\0\0\0WAVE", b"hello", b""):
        assert not is_container(begin)
