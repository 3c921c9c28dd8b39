"""Samples as bytes: their encodings, and the headers of WAV in a stream that cannot be rewound."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from astrape.audio.headers import CHUNKS, LONGEST, says_length
from astrape.errors import AudioError

__all__ = ["ENCODINGS", "Pcm", "PcmReader", "encoded", "read_wav_header", "wav_header"]

Samples = npt.NDArray[np.float32]

ENCODINGS = {
    "u8": ("u1", 1),
    "s8": ("i1", 1),
    "s16le": ("<i2", 2),
    "s16be": (">i2", 2),
    "s24le": ("<i4", 3),
    "s24be": (">i4", 3),
    "s32le": ("<i4", 4),
    "s32be": (">i4", 4),
    "f32le": ("<f4", 4),
    "f32be": (">f4", 4),
    "f64le": ("<f8", 8),
    "f64be": (">f8", 8),
}
"""NumPy type and bytes of a sample, by the names that ffmpeg has for them."""

SUBTYPES = {"u8": "PCM_U8", "s8": "PCM_S8", "s16": "PCM_16", "s24": "PCM_24", "s32": "PCM_32"}
SUBTYPES |= {"f32": "FLOAT", "f64": "DOUBLE"}
"""The same formats by soundfile's names."""

PCM, IEEE_FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
LOWEST_RATE, HIGHEST_RATE = 1, 1 << 31
MOST_CHANNELS = 1024
LARGEST_HEADER = 1 << 24
ENDLESS = 0xFFFFFFFF


@dataclass(frozen=True)
class Pcm:
    """A form of samples in a stream.

    Attributes:
        encoding: of ``ENCODINGS``, ``s16le`` for instance.
        rate: Hz.
        channels: 1 or more.

    Raises:
        AudioError: for any other text.

    >>> Pcm.parse("s16le:48000:2")
    Pcm(encoding='s16le', rate=48000, channels=2)
    """

    encoding: str
    rate: int
    channels: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise AudioError("format", f"'{self.encoding[:40]}': is not an encoding of samples: {', '.join(ENCODINGS)}")
        if not LOWEST_RATE <= self.rate < HIGHEST_RATE:
            raise AudioError("format", f"{self.rate} Hz: a rate is at least {LOWEST_RATE} and below {HIGHEST_RATE}")
        if not 1 <= self.channels <= MOST_CHANNELS:
            raise AudioError("format", f"{self.channels} channels: there must be 1 to {MOST_CHANNELS}")

    @classmethod
    def parse(cls, text: str) -> Pcm:
        """Parse ``ENCODING:RATE`` or ``ENCODING:RATE:CHANNELS``."""
        encoding, *numbers = text.split(":")
        if len(numbers) not in (1, 2) or not all(one.isascii() and one.isdigit() and len(one) < 11 for one in numbers):
            raise AudioError("format", f"'{text[:60]}': write raw samples as ENCODING:RATE:CHANNELS, s16le:48000:1 say")
        return cls(encoding, *map(int, numbers))

    @property
    def frame_bytes(self) -> int:
        return ENCODINGS[self.encoding][1] * self.channels

    @property
    def subtype(self) -> str:
        return SUBTYPES[self.encoding.removesuffix("le").removesuffix("be")]


class PcmReader:
    """Samples out of a stream of bytes, as they come.

    Args:
        file: with ``read1``: a pipe, standard input.
        pcm: their form; ``None``: the stream begins with a WAV header.
        name: for messages.

    Attributes:
        pcm: the form.
        promised: frames that the header speaks of; ``None`` where it leaves that open.
        unfinished: its length is 0, as in a header that nobody came back to, and not as a stream marks it.
        torn: bytes of a last frame that is not whole.

    Raises:
        AudioError: for a stream that begins with anything but the header of a WAV file of plain samples.
    """

    def __init__(self, file: Any, pcm: Pcm | None = None, name: str = "standard input") -> None:
        self._file, self._name = file, name
        said = None
        if pcm is None:
            pcm, said = read_wav_header(file, name)
        self.pcm = pcm
        self.unfinished = said == 0
        length = None if said is None or not says_length(said) else said
        self.promised = None if length is None else length // pcm.frame_bytes
        self._left = length
        self._begins = self.unfinished
        self._held = b""
        self.torn = 0

    def read(self, frames: int) -> Samples:
        """Up to ``frames``, as many as there are; waits for one at least. ``(n, channels)``; none at the end."""
        size = self.pcm.frame_bytes
        if self._begins:
            self._begin()
        while len(self._held) < size:
            wanted = frames * size - len(self._held)
            if self._left is not None:
                wanted = min(wanted, self._left)
            data = self._file.read1(wanted) if wanted else b""
            if not data:
                self.torn = len(self._held)
                self._held = b""
                return np.zeros((0, self.pcm.channels), np.float32)
            self._held += data
            if self._left is not None:
                self._left -= len(data)
        whole = len(self._held) // size * size
        data, self._held = self._held[:whole], self._held[whole:]
        return _decoded(data, self.pcm.encoding).reshape(-1, self.pcm.channels)

    def _begin(self) -> None:
        """Behind a length of 0 there is sound, unless a chunk begins there: the file is empty then."""
        self._begins = False
        while len(self._held) < 4 and (data := self._file.read1(4 - len(self._held))):
            self._held += data
        if self._held in CHUNKS:
            self._held, self._left, self.promised = b"", 0, 0


def read_wav_header(file: BinaryIO, name: str) -> tuple[Pcm, int]:
    """Read up to the samples of a WAV file: their form, and the bytes of them that the header speaks of.

    Raises:
        AudioError: for anything else.
    """
    begin = _exactly(file, 12, name)
    if begin[:4] not in (b"RIFF", b"RF64") or begin[8:] != b"WAVE":
        raise _no_wav(name, f"begins with {begin[:4]!r} and not with b'RIFF'")
    pcm = wide = None
    read = 0
    while read < LARGEST_HEADER:
        chunk, length = struct.unpack("<4sI", _exactly(file, 8, name))
        if chunk == b"data":
            if pcm is None:
                raise _no_wav(name, "has samples before it says of which form they are")
            if wide is not None and length in (0, ENDLESS):
                return pcm, wide if wide < LONGEST else ENDLESS
            return pcm, length
        padded = length + length % 2
        read += padded + 8
        if read >= LARGEST_HEADER:
            break
        content = _exactly(file, padded, name)
        if chunk == b"fmt ":
            pcm = _format(content, name)
        elif chunk == b"ds64" and length >= 24:
            wide = int(struct.unpack("<QQQ", content[:24])[1])
    raise _no_wav(name, f"has no samples in its first {LARGEST_HEADER >> 20} MiB")


def wav_header(pcm: Pcm) -> bytes:
    """A WAV header for samples without end, as sox and ffmpeg write it to a pipe: sizes are the largest there are.

    Raises:
        AudioError: for an encoding that WAV does not have.
    """
    size = ENCODINGS[pcm.encoding][1]
    if pcm.encoding.endswith("be") or pcm.encoding == "s8":
        raise AudioError("format", f"{pcm.encoding}: WAV holds u8 and little-endian samples: write it raw")
    tag = IEEE_FLOAT if pcm.encoding[0] == "f" else PCM
    form = struct.pack("<HHIIHH", tag, pcm.channels, pcm.rate, pcm.rate * pcm.frame_bytes, pcm.frame_bytes, 8 * size)
    begin = struct.pack("<4sI4s4sI", b"RIFF", ENDLESS, b"WAVE", b"fmt ", len(form))
    return begin + form + struct.pack("<4sI", b"data", ENDLESS)


def encoded(samples: npt.NDArray[Any], encoding: str) -> bytes:
    """``(frames, channels)`` as bytes: rounded to the nearest step, and cut off at full scale but for floats."""
    kind, size = ENCODINGS[encoding]
    if encoding[0] == "f":
        return np.ascontiguousarray(samples, dtype=kind).tobytes()
    bits = 8 * size
    full = float(1 << bits - 1)
    steps = np.rint(np.asarray(samples, np.float64) * full).clip(-full, full - 1)
    if encoding == "u8":
        return (steps + full).astype("u1").tobytes()
    if size == 3:
        wide = np.ascontiguousarray(steps, dtype=kind).view("u1").reshape(-1, 4)
        return (wide[:, :3] if encoding.endswith("le") else wide[:, 1:]).tobytes()
    return np.ascontiguousarray(steps, dtype=kind).tobytes()


def _decoded(data: bytes, encoding: str) -> Samples:
    kind, size = ENCODINGS[encoding]
    if encoding[0] == "f":
        with np.errstate(over="ignore"):
            return np.frombuffer(data, kind).astype(np.float32)
    if size == 3:
        wide = np.zeros((len(data) // 3, 4), "u1")
        # They become the upper three bytes of four.
        wide[:, 1:] = np.frombuffer(data, "u1").reshape(-1, 3)[:, :: 1 if encoding.endswith("le") else -1]
        return (wide.view("<i4").reshape(-1) / 2.0**31).astype(np.float32)
    steps = np.frombuffer(data, kind).astype(np.float64)
    if encoding == "u8":
        steps -= 128
    return (steps / float(1 << 8 * size - 1)).astype(np.float32)


def _format(content: bytes, name: str) -> Pcm:
    if len(content) < 16:
        raise _no_wav(name, f"has {len(content)} bytes of format where 16 are due")
    tag, channels, rate, _, align, bits = struct.unpack("<HHIIHH", content[:16])
    if tag == EXTENSIBLE and len(content) >= 26:
        tag = struct.unpack("<H", content[24:26])[0]
    kinds = {(PCM, 8): "u8", (PCM, 16): "s16le", (PCM, 24): "s24le", (PCM, 32): "s32le"}
    kinds |= {(IEEE_FLOAT, 32): "f32le", (IEEE_FLOAT, 64): "f64le"}
    if (tag, bits) not in kinds:
        raise _no_wav(name, f"has samples of form {tag} with {bits} bits, which are not plain ones")
    try:
        pcm = Pcm(kinds[tag, bits], rate, channels)
    except AudioError as error:
        raise AudioError("format", f"{name}: {error}") from None
    if align != pcm.frame_bytes:
        wanted = f"{channels} channels of {bits} bits take {pcm.frame_bytes}"
        raise _no_wav(name, f"has frames of {align} bytes where {wanted}")
    return pcm


def _exactly(file: BinaryIO, count: int, name: str) -> bytes:
    data = b""
    while len(data) < count:
        more = file.read(count - len(data))
        if not more:
            what = "is empty (0 bytes)" if not data and count == 12 else "ends within the header"
            raise AudioError("empty" if what.startswith("is") else "format", f"{name}: {what}: it should be WAV")
        data += more
    return data


def _no_wav(name: str, why: str) -> AudioError:
    return AudioError(
        "format",
        f"{name}: {why}: hint: for raw samples say which with --from, such as --from s16le:48000:1; for other formats "
        f"put ffmpeg before it: ffmpeg -i FILE -f wav -",
    )
