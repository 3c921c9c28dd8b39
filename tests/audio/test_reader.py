"""The reader: what a header promises and a file does not hold, at every length, and damage of every kind."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.audio.pipes import PipeReader
from astrape.audio.reader import AudioReader
from astrape.errors import AudioError

FRAMES = 150
PLAIN = [
    ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "PCM_U8"), ("WAV", "ULAW"), ("WAVEX", "PCM_16"),
    ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("AU", "DOUBLE"), ("NIST", "PCM_16"),
]  # fmt: skip
BYTES = {"PCM_U8": 1, "ULAW": 1, "PCM_16": 2, "PCM_24": 3, "FLOAT": 4, "DOUBLE": 8}


def noise(frames: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (frames, channels)).astype(np.float32)


def content(samples: np.ndarray, form: str, subtype: str, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=form)
    return file.getvalue()


def read(path: Path) -> tuple[np.ndarray, AudioReader]:
    with AudioReader(path) as audio:
        blocks = list(audio.blocks(0.005))
        return np.concatenate(blocks) if blocks else np.zeros((0, audio.channels), np.float32), audio


@pytest.mark.parametrize(("form", "subtype"), PLAIN)
def test_at_every_length_what_is_missing_is_counted_to_the_frame(tmp_path: Path, form: str, subtype: str) -> None:
    whole = content(noise(FRAMES), form, subtype)
    path = tmp_path / "a.audio"
    path.write_bytes(whole)
    samples, audio = read(path)
    assert (len(samples), audio.missing, audio.surplus, audio.fault()) == (FRAMES, 0, 0, None)
    begin = len(whole) - FRAMES * 2 * BYTES[subtype]
    counted = refused = 0
    kinds: set[str] = set()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            part, audio = read(path)
        except AudioError as error:
            kinds.add(error.kind)
            # What cannot be opened has lost its header, or all of its samples.
            refused = length
            continue
        np.testing.assert_array_equal(part, samples[: len(part)])
        assert audio.is_cut
        assert len(part) + audio.missing == FRAMES or (len(part) == 0 and length < begin), length
        assert audio.fault() is not None
        assert "cut short" in str(audio.fault())
        counted += 1
    assert counted > 0.9 * FRAMES * 2 * BYTES[subtype]
    assert kinds <= {"format", "empty"}
    assert refused <= begin + 2 * 2 * BYTES[subtype]


@pytest.mark.parametrize(("form", "at", "order"), [("WAV", 40, "<"), ("AIFF", 42, ">"), ("AU", 8, ">")])
@given(promised=st.integers(0, FRAMES - 1))
@settings(max_examples=30, deadline=None)
def test_a_header_that_promises_less_than_there_is(
    tmp_path_factory: pytest.TempPathFactory, form: str, at: int, order: str, promised: int
) -> None:
    whole = bytearray(content(noise(FRAMES), form, "PCM_16"))
    size = 4 * promised + (8 if form == "AIFF" else 0)
    assert struct.unpack_from(f"{order}I", whole, at)[0] == 4 * FRAMES + (8 if form == "AIFF" else 0)
    struct.pack_into(f"{order}I", whole, at, size)
    path = tmp_path_factory.mktemp("short") / "a.audio"
    path.write_bytes(whole)
    if not promised:
        # 0 says nothing: see below.
        return
    samples, audio = read(path)
    assert len(samples) == (promised if form != "AIFF" else len(samples))
    assert audio.surplus == FRAMES - promised
    assert "does not speak of" in str(audio.fault())
    with pytest.raises(AudioError, match="copy or decode it again"):
        audio.refuse_faults()


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFFFF - 36, 0x80000000])
def test_lengths_of_a_pipe_promise_nothing(tmp_path: Path, size: int) -> None:
    whole = bytearray(content(noise(FRAMES), "WAV", "PCM_16"))
    struct.pack_into("<I", whole, 40, size)
    (tmp_path / "a.wav").write_bytes(whole)
    samples, audio = read(tmp_path / "a.wav")
    assert (len(samples), audio.fault(), audio.unsized) == (FRAMES, None, True)


OPEN = [
    ("WAV", b"data", 4, "<I", (0, 0xFFFFFFFF, 0x7FFFFFFF)),
    ("WAVEX", b"data", 4, "<I", (0, 0xFFFFFFFF)),
    ("RF64", b"ds64", 16, "<Q", (0, 2**64 - 1, 2**63 - 1)),
    ("W64", b"data\xf3\xac", 16, "<Q", (0, 24, 2**64 - 1, 2**63 - 1)),
    ("AIFF", b"SSND", 4, ">I", (0, 8, 0xFFFFFFFF, 0x7FFFFFFF)),
    ("AU", b".snd", 8, ">I", (0, 0xFFFFFFFF)),
    ("CAF", b"data", 4, ">q", (0, 4, -1)),
]
"""Fields of a format that hold its length, with the values that mean an unknown length."""


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize(("form", "mark", "at", "kind", "sizes"), OPEN, ids=[one[0] for one in OPEN])
def test_of_an_open_length_all_is_read_in_every_format(
    tmp_path: Path, form: str, mark: bytes, at: int, kind: str, sizes: tuple[int, ...], subtype: str
) -> None:
    x = noise(FRAMES)
    whole = content(x, form, subtype)
    path = tmp_path / "a.audio"
    path.write_bytes(whole)
    expected, audio = read(path)
    assert not audio.unsized
    place = whole.index(mark) + at
    for size in sizes:
        made = bytearray(whole)
        struct.pack_into(kind, made, place, size)
        path.write_bytes(made)
        samples, audio = read(path)
        np.testing.assert_array_equal(samples, expected)
        assert (audio.unsized, audio.fault(), audio.surplus, audio.count()) == (True, None, 0, FRAMES), size
        with AudioReader(path) as audio:
            audio.seek(71)
            np.testing.assert_array_equal(audio.read(1000), expected[71:])


@pytest.mark.parametrize(("form", "subtype"), [*PLAIN, ("WAV", "PCM_32"), ("WAV", "DOUBLE"), ("FLAC", "PCM_24")])
def test_exact_samples_are_those_of_libsndfile_in_float64(tmp_path: Path, form: str, subtype: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content(np.random.default_rng(1).uniform(-0.5, 0.5, (1000, 2)), form, subtype))
    with AudioReader(path) as audio:
        found = np.concatenate([audio.read_exactly(600), audio.read_exactly(600)])
        assert (audio.frames, audio.fault()) == (1000, None)
    assert found.dtype == np.float64
    assert np.array_equal(found, soundfile.read(path, dtype="float64")[0])


@pytest.mark.parametrize("behind", [b"LIST\4\0\0\0INFO", b"id3 \4\0\0\0ID3\4"])
def test_an_empty_wav_is_empty_though_a_chunk_follows(tmp_path: Path, behind: bytes) -> None:
    whole = bytearray(content(noise(0), "WAV", "PCM_16"))
    struct.pack_into("<I", whole, 4, len(whole) - 8 + len(behind))
    (tmp_path / "a.wav").write_bytes(bytes(whole) + behind)
    samples, audio = read(tmp_path / "a.wav")
    assert (len(samples), audio.unsized, audio.fault()) == (0, False, None)
    piped = PipeReader(io.BytesIO(bytes(whole) + behind))
    assert (len(piped.read(100)), piped.unsized, piped.is_cut) == (0, False, False)


@pytest.mark.parametrize("form", ["WAV", "RF64"])
@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
@given(frames=st.integers(1, 40), silent=st.integers(0, 8))
@settings(max_examples=20, deadline=None)
def test_a_file_and_a_pipe_agree_on_an_open_length(
    tmp_path_factory: pytest.TempPathFactory, form: str, size: int, frames: int, silent: int
) -> None:
    x = noise(frames, 1, seed=frames)
    x[:silent] = 0
    whole = bytearray(content(x, form, "PCM_16"))
    struct.pack_into("<I", whole, whole.index(b"data") + 4, size)
    if form == "RF64":
        struct.pack_into("<Q", whole, whole.index(b"ds64") + 16, 0)
    path = tmp_path_factory.mktemp("open") / "a.wav"
    path.write_bytes(whole)
    samples, _ = read(path)
    assert len(samples) == frames
    piped, parts = PipeReader(io.BytesIO(bytes(whole))), []
    while len(part := piped.read(100)):
        parts.append(part)
    np.testing.assert_array_equal(np.concatenate(parts), samples)


@pytest.mark.parametrize(
    "behind", [b"", b"\0", b"\0" * 500, b"LIST\4\0\0\0INFO", b"TAG" + bytes(125), b"ID3\4" + b"x" * 90]
)
def test_what_follows_the_samples_rightly_is_no_fault(tmp_path: Path, behind: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content(noise(FRAMES), "WAV", "PCM_16") + behind)
    samples, audio = read(tmp_path / "a.wav")
    assert (len(samples), audio.fault()) == (FRAMES, None)


def flac(count: int, samples: np.ndarray) -> bytes:
    """A FLAC file that says it has ``count`` samples."""
    made = bytearray(content(samples, "FLAC", "PCM_16", 44100))
    made[21] = made[21] & 0xF0 | count >> 32
    made[22:26] = (count & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(made)


@pytest.mark.parametrize("frames", [1, 4095, 4096, 4097, 44100, 50_001])
def test_flac_without_a_count_is_read_to_its_end(tmp_path: Path, frames: int) -> None:
    x = noise(frames, 1)
    (tmp_path / "right.flac").write_bytes(flac(frames, x))
    (tmp_path / "open.flac").write_bytes(flac(0, x))
    right, _ = read(tmp_path / "right.flac")
    found, audio = read(tmp_path / "open.flac")
    np.testing.assert_array_equal(found, right)
    assert len(found) == frames
    assert (audio.fault(), audio.unsized) == (None, True)


@pytest.mark.parametrize("promised", [1, 4096, 20_000, 44_099])
def test_flac_that_promises_less(tmp_path: Path, promised: int) -> None:
    (tmp_path / "a.flac").write_bytes(flac(promised, noise(44100, 1)))
    with AudioReader(tmp_path / "a.flac") as audio:
        assert audio.surplus == 44100 - promised


def test_flac_that_is_cut_cannot_be_read_to_its_end(tmp_path: Path) -> None:
    whole = flac(44100, noise(44100, 1))
    for share in np.linspace(0.01, 0.999, 23):
        (tmp_path / "a.flac").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(AudioError, match=r"cannot be read beyond|not a readable audio file"):
            read(tmp_path / "a.flac")


def test_ogg_that_is_cut_is_known_by_its_last_page(tmp_path: Path) -> None:
    whole = content(noise(60_000, 1), "OGG", "VORBIS", 44100)
    (tmp_path / "a.ogg").write_bytes(whole)
    assert read(tmp_path / "a.ogg")[1].fault() is None
    told = 0
    for share in np.linspace(0.3, 0.9999, 40):
        (tmp_path / "a.ogg").write_bytes(whole[: int(share * len(whole))])
        try:
            samples, audio = read(tmp_path / "a.ogg")
        except AudioError:
            continue
        assert len(samples) <= 60_000
        assert audio.is_cut
        told += 1
    assert told > 20


def test_mp3_is_held_against_its_frames(tmp_path: Path) -> None:
    pytest.importorskip("av")
    whole = content(noise(100_000, 1), "MP3", "MPEG_LAYER_III", 44100)
    (tmp_path / "a.mp3").write_bytes(whole)
    assert read(tmp_path / "a.mp3")[1].fault() is None
    (tmp_path / "a.mp3").write_bytes(whole[: len(whole) // 2])
    samples, audio = read(tmp_path / "a.mp3")
    assert len(samples) + audio.missing == 100_000
    with AudioReader(tmp_path / "a.mp3") as audio:
        assert audio.count() == len(samples)
        assert audio.is_cut
    # Without its first frame, which has the count, libsndfile takes an estimate, a third of the length here.
    second = whole.index(b"\xff\xfb", 4)
    (tmp_path / "b.mp3").write_bytes(whole[second:])
    assert soundfile.info(tmp_path / "b.mp3").frames < 90_000
    samples, audio = read(tmp_path / "b.mp3")
    assert 100_000 <= len(samples) < 103_000
    assert audio.fault() is None


FUZZED = [*PLAIN[:1], *PLAIN[4:], ("CAF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]


@pytest.mark.parametrize(("form", "subtype"), FUZZED)
def test_damage_is_an_error_in_words_or_samples(tmp_path: Path, form: str, subtype: str) -> None:
    whole = content(noise(3000, 1), form, subtype)
    generator = np.random.default_rng(3)
    path = tmp_path / "a.audio"
    told: list[str] = []
    for turn in range(60):
        made = bytearray(whole)
        most = 64 if turn % 2 else len(made)
        for place in generator.integers(0, min(most, len(made)), generator.integers(1, 8)):
            made[place] = generator.integers(0, 256)
        if turn % 3 == 0:
            made = made[: generator.integers(1, len(made))]
        path.write_bytes(made)
        try:
            with AudioReader(path) as audio:
                held = 0
                for block in audio.blocks(0.5):
                    assert block.dtype == np.float32
                    held += len(block)
                    # Rates of gigahertz read in blocks of gigabytes otherwise.
                    if held > 100_000:
                        break
                audio.fault()
        except AudioError as error:
            told.append(str(error))
    assert all(line.startswith(str(path)) and "\n" not in line for line in told)
    assert told


def test_paths_that_are_no_audio_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("hello, hello")
    cases = {"none.wav": "missing", "empty.wav": "empty", "text.wav": "format", "": "irregular"}
    for name, kind in cases.items():
        with pytest.raises(AudioError) as caught:
            AudioReader(tmp_path / name)
        assert caught.value.kind == kind
