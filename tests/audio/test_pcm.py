"""Samples as bytes, and WAV in a stream that cannot be rewound."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.audio.pcm import ENCODINGS, Pcm, PcmReader, encoded, wav_header
from astrape.audio.pipes import PipeReader, PipeTarget
from astrape.errors import AudioError

LIBSNDFILE = {
    "u8": "PCM_U8",
    "s8": "PCM_S8",
    "s16": "PCM_16",
    "s24": "PCM_24",
    "s32": "PCM_32",
    "f32": "FLOAT",
    "f64": "DOUBLE",
}


class Dribble(io.RawIOBase):
    """A pipe that gives a few bytes at a time, as many as it likes."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        self.content, self.sizes, self.at, self.turn = content, sizes, 0, 0

    def read1(self, count: int) -> bytes:
        size = self.sizes[self.turn % len(self.sizes)]
        self.turn += 1
        data = self.content[self.at : self.at + min(count, size)]
        self.at += len(data)
        return data

    def read(self, count: int = -1) -> bytes:
        return self.read1(count)


def drain(reader: PcmReader) -> np.ndarray:
    parts = []
    while len(part := reader.read(64)):
        parts.append(part)
    return np.concatenate(parts) if parts else np.zeros((0, reader.pcm.channels))


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(seed=st.integers(0, 99), channels=st.integers(1, 4), sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_raw_samples_are_what_libsndfile_reads_however_they_come(
    encoding: str, seed: int, channels: int, sizes: list[int]
) -> None:
    x = np.random.default_rng(seed).uniform(-1, 1, (37, channels)).astype(np.float32)
    data = encoded(x, encoding)
    kind = encoding.removesuffix("le").removesuffix("be")
    endian = "BIG" if encoding.endswith("be") else "LITTLE"
    wanted, _ = soundfile.read(
        io.BytesIO(data), dtype="float32", always_2d=True, samplerate=8000, channels=channels, format="RAW",
        subtype=LIBSNDFILE[kind], endian=endian,
    )  # fmt: skip
    found = drain(PcmReader(Dribble(data, sizes), Pcm(encoding, 8000, channels)))
    np.testing.assert_array_equal(found, wanted)
    step = 0 if kind[0] == "f" else 1 / (1 << 8 * ENCODINGS[encoding][1] - 1)
    assert np.abs(found - x).max() <= max(step, 1e-7)
    # What was read is written as the same bytes.
    assert encoded(found, encoding) == data


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if not name.endswith("be") and name != "s8"])
@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, None])
def test_a_wav_stream_is_read_with_any_length_in_its_header(encoding: str, size: int | None) -> None:
    pcm = Pcm(encoding, 44100, 2)
    x = np.random.default_rng(0).uniform(-1, 1, (500, 2)).astype(np.float32)
    data = encoded(x, encoding)
    header = bytearray(wav_header(pcm))
    struct.pack_into("<I", header, 40, len(data) if size is None else size)
    # A chunk before the format, of an odd length, as editors put them there.
    content = bytes(header[:12]) + b"note\3\0\0\0abc\0" + bytes(header[12:]) + data
    reader = PcmReader(Dribble(content, [7, 100, 1]))
    assert reader.pcm == pcm
    assert reader.promised == (500 if size is None else None)
    assert len(drain(reader)) == 500
    # libsndfile takes the header for one of a file that was cut short, and reads what is there.
    assert soundfile.info(io.BytesIO(bytes(header) + data)).subtype == pcm.subtype


@given(data=st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_bytes_are_more_than_an_error(data: bytes) -> None:
    for content in (data, b"RIFF" + data, b"RIFF\0\0\0\0WAVE" + data, wav_header(Pcm("s16le", 8000, 1))[:20] + data):
        try:
            drain(PcmReader(io.BytesIO(content)))
        except AudioError as error:
            assert str(error).startswith("standard input: ")  # noqa: PT017 - either will do


def test_what_a_stream_lacks_is_counted() -> None:
    data = encoded(np.zeros((100, 1)), "s16le")
    header = bytearray(wav_header(Pcm("s16le", 8000, 1)))
    struct.pack_into("<I", header, 40, len(data))
    pipe = PipeReader(io.BytesIO(bytes(header) + data[:51]))
    while len(pipe.read(10)):
        pass
    assert (pipe.frames, pipe.missing, pipe.is_cut) == (25, 75, True)


@pytest.mark.parametrize(
    ("form", "said"),
    [("s16", "not an encoding"), ("s16le", "write raw samples as"), ("s16le:0", "0 Hz"), ("s16le:8000:0", "0 channels"),
     ("s16le:8000:1:1", "write raw"), ("s16le:8e3", "write raw"), ("", "write raw"), ("mp3:8000", "not an encoding")],
)  # fmt: skip
def test_forms_are_checked(form: str, said: str) -> None:
    with pytest.raises(AudioError, match=said):
        PipeReader(io.BytesIO(b""), form if form != "s16" else "s16:8000")


def test_what_goes_out_is_flushed_with_every_piece() -> None:
    class Counting(io.BytesIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed = len(self.getvalue())

    out = Counting()
    source = PipeReader(io.BytesIO(encoded(np.zeros((10, 1)), "s24le")), "s24le:8000")
    with PipeTarget(out).open(8000, 2, source) as written:
        assert written.subtype == "PCM_24"
        for count in (3, 0, 5):
            written.write(np.full((count, 2), 2.0))
            assert out.flushed == len(out.getvalue()) == 6 * written.frames
    assert written.clipped == 16
    with PipeTarget(Counting(), "wav").open(8000, 2, source) as written:
        assert written._file.flushed == 44
