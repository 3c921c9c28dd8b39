"""The one reader of audio files: any format, piece by piece, and what in a file is not as its header says."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import soundfile

from astrape.audio.atomic import shown
from astrape.audio.decoding import decoder, is_container
from astrape.audio.endings import DECODED
from astrape.audio.headers import Claim, claim_of
from astrape.audio.packets import flac_frames, mp3_frames, ogg_is_cut
from astrape.audio.places import Where, local_file
from astrape.errors import AudioError, PlaceError
from astrape.wording import reason_of

__all__ = ["AudioReader", "Samples"]

Samples = npt.NDArray[np.float32]

MP3_TOLERANCE = 4 * 1152
"""Samples: an encoder's delay and padding, which a decoder leaves out."""

FLAC_COUNT = 21
"""Offset of the sample count in a FLAC file: 36 bits, the first 4 at the end of the byte before; RFC 9639, 8.2."""


class AudioReader:
    """An audio file, opened for reading from its beginning; closes at the end of a ``with`` block.

    What libsndfile does not read, PyAV decodes where it is installed, or the program ffmpeg.

    Args:
        path: any format that soundfile reads, and m4a, webm, mp4 and their like. Of a URL, a copy on this
            machine is read.

    Attributes:
        path, name: of the file on this machine; the latter as it is shown.
        rate: Hz.
        channels: 1 or more.
        format, subtype: container and sample format, ``WAV`` and ``PCM_16`` for instance.
        promised: frames of each channel that the file says it has, or that its size gives it where its header leaves
            that open; ``None`` if unknown.
        unsized: the header leaves the length open, as what writes to a pipe does and what died before it was done: what
            is there is read, to the end of the file.
        frames: read so far.
        surplus: frames behind those that the header speaks of; they are not read.

    Raises:
        AudioError: for a path that is missing or not a regular file, and a file that is empty or not a readable audio
            file; with what to install where that is what is missing.
    """

    def __init__(self, path: Where) -> None:
        self.name = shown(path)
        self.path = self._local(path)
        self.frames = 0
        self.surplus = 0
        self.promised: int | None
        self.unsized = self._cut = self._ended = False
        self._held = 0
        self._source = self._opened()
        self.rate, self.channels = int(self._source.rate), int(self._source.channels)
        self.format, self.subtype = self._source.format, self._source.subtype
        # Streams without a header and some compressed ones do not say how long they are.
        self.promised = int(self._source.frames) if 0 < self._source.frames < 2**62 else None
        try:
            self._hold_against_header()
        except OSError as error:
            self.close()
            raise AudioError("unopened", f"{self.name}: cannot be opened: {reason_of(error)}") from error

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._source.close()

    @property
    def missing(self) -> int:
        """Frames that the header promises and the file does not hold, as far as that is known before the end."""
        if self.promised is None:
            return 0
        held = self.frames if self._ended else self._held
        short = self.promised - held
        return short if short > self._source.tolerance else 0

    @property
    def is_cut(self) -> bool:
        """Whether the file ends too early, as far as that is known before the end."""
        return self._cut or self._source.cut or self.missing > 0

    def count(self) -> int:
        """Frames that reading to the end gives; exact, also where that takes decoding all of it (once a file)."""
        if isinstance(self._source, _Soundfile) and self.promised is not None and self.format != "MP3":
            return self._held
        self._held = _decoded_frames(*_identity(self.path))
        return self._held

    def fault(self) -> str | None:
        """The fault of the length, for a message; ``None`` where there is none. Complete at the end of the file."""
        if self.missing and self.promised is not None:
            there, promised = (self.promised - self.missing) / self.rate, self.promised / self.rate
            return f"{self.name}: ends after {there:.3f} s, and its header says {promised:.3f} s: it is cut short"
        if self.is_cut:
            return f"{self.name}: ends before its stream does: it is cut short"
        if self.surplus:
            more, said = self.surplus / self.rate, (self.promised or 0) / self.rate
            return (
                f"{self.name}: its header says {said:.3f} s, and {more:.3f} s more follow that it does not speak of: "
                f"the header is wrong"
            )
        return None

    def refuse_faults(self) -> None:
        """Refuse a file that is shorter or longer than its header says.

        Raises:
            AudioError: with both lengths, and what to do.
        """
        fault = self.fault()
        if fault is not None:
            raise AudioError("cut", f"{fault}: copy or decode it again")

    def read(self, frames: int) -> Samples:
        """The next frames, fewer at the end and none behind it: ``(n, channels)`` float32.

        Raises:
            AudioError: where damage keeps what follows from being read.
        """
        samples = self._source.read(frames)
        self._count(len(samples), frames)
        return samples

    def read_exactly(self, frames: int) -> npt.NDArray[np.float64]:
        """:meth:`read` in float64, which holds every bit of samples of 32 and 64 bits."""
        source = self._source
        samples = source.read_as(np.float64, frames) if isinstance(source, _Soundfile) else source.read(frames)
        self._count(len(samples), frames)
        return samples.astype(np.float64, copy=False)

    def _count(self, found: int, asked: int) -> None:
        self.frames += found
        if found < asked:
            self._ended = True

    def blocks(self, seconds: float) -> Iterator[Samples]:
        """The rest of the file in blocks of ``seconds``."""
        while len(block := self.read(max(1, round(seconds * self.rate)))):
            yield block

    def finite_blocks(self, seconds: float) -> Iterator[Samples]:
        """The same blocks as :meth:`blocks`, refusing samples that are not finite.

        Raises:
            AudioError: for the first such sample, with its place.
        """
        for block in self.blocks(seconds):
            self.check_finite(block)
            yield block

    def check_finite(self, block: Samples) -> None:
        """Refuse samples that are not finite, of the block that was read last.

        Raises:
            AudioError: with how many there are, and where the first is.
        """
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if bad.size:
            at = (self.frames - len(block) + int(bad[0])) / self.rate
            what = f"the sample at {at:.3f} s is not finite"
            if bad.size > 1:
                what = f"{bad.size} samples are not finite, the first at {at:.3f} s"
            text = f"{self.name}: {what}: cut it out or render anew"
            raise AudioError("non-finite", text)

    def seek(self, frame: int) -> None:
        """Go to a frame, counted from the beginning."""
        self._source.seek(frame)
        self.frames = frame
        self._ended = False

    def _local(self, where: Where) -> Path:
        try:
            return local_file(where)
        except PlaceError as error:
            raise AudioError("missing", str(error)) from error

    def _opened(self) -> _Source:
        path = self.path
        try:
            if not path.is_file():
                if path.is_dir():
                    raise AudioError("irregular", f"{self.name}: is a folder, not an audio file")
                if path.exists():
                    raise AudioError("irregular", f"{self.name}: is not a regular file")
                raise AudioError("missing", f"{self.name}: there is no such file")
            with path.open("rb") as file:
                begin = file.read(16)
            if not begin:
                raise AudioError("empty", f"{self.name}: is empty (0 bytes)")
            return self._soundfile(begin, self._patch())
        except OSError as error:
            raise AudioError("unopened", f"{self.name}: cannot be opened: {reason_of(error)}") from error
        except ValueError as error:
            raise AudioError("unopened", f"{self.name[:200]!r}: cannot be opened: {error}") from error

    def _patch(self) -> tuple[int, bytes] | None:
        with self.path.open("rb") as file:
            claim = claim_of(file)
        return None if claim is None else claim.patched

    def _soundfile(self, begin: bytes, patched: tuple[int, bytes] | None) -> _Source:
        ending = self.path.suffix.removeprefix(".").lower()
        decode = decoder()
        below = None if patched is None else _Patched(self.path, *patched)
        try:
            # As bytes, since soundfile takes no text that UTF-8 has no form for, and names may be any bytes.
            file: Any = below or (self.path if os.name == "nt" else os.fsencode(self.path))
            found = _Soundfile(soundfile.SoundFile(file), self.name, below)
        except (soundfile.LibsndfileError, TypeError, ValueError) as error:
            if below is not None:
                below.close()
            reason = reason_of(error)
            if not is_container(begin):
                raise AudioError("format", f"{self.name}: is not a readable audio file: {reason}") from error
            if decode is None:
                what = f"its form, {ending}," if ending in DECODED else "its form"
                text = f"{self.name}: {what} takes PyAV or ffmpeg: hint: pip install av"
                raise AudioError("decoder", text) from error
            return decode(self.path, self.name)
        if found.format == "FLAC" and found.frames >= 2**62:
            found.close()
            return self._flac_without_length()
        if found.format == "MP3" and decode is not None and self._is_underestimated(found.frames):
            # Without a header that counts its frames, libsndfile takes an estimate for the end.
            found.close()
            return decode(self.path, self.name)
        return found

    def _flac_without_length(self) -> _Source:
        """FLAC that was written to a pipe. libsndfile takes its end for an error, unless it is told where that is."""
        self.unsized = True
        file = _counted_flac(self.path)
        try:
            return _Soundfile(soundfile.SoundFile(file), self.name, file)
        except soundfile.LibsndfileError as error:
            file.close()
            raise AudioError("format", f"{self.name}: is not a readable audio file: {reason_of(error)}") from error

    def _is_underestimated(self, frames: int) -> bool:
        return (_mp3_frames(*_identity(self.path)) or 0) > frames + MP3_TOLERANCE

    def _hold_against_header(self) -> None:
        self._held = self.promised or 0
        if not isinstance(self._source, _Soundfile):
            return
        with self.path.open("rb") as file:
            if self.format == "FLAC":
                found = flac_frames(file)
                if self.promised is not None and found is not None:
                    self.surplus = max(0, found - self.promised)
            elif self.format == "OGG":
                self._cut = ogg_is_cut(file)
            elif self.format == "MP3":
                found = _mp3_frames(*_identity(self.path))
                if self.promised is not None and found is not None and found > self.promised + MP3_TOLERANCE:
                    self.surplus = found - self.promised
            else:
                claim = claim_of(file)
                if claim is not None:
                    self._hold_against(claim)

    def _hold_against(self, claim: Claim) -> None:
        there = self._held
        self._cut, self.unsized = claim.cut, claim.unsized
        # Bytes of a frame; of compressed samples, as many as there are on average.
        size = _FRAME_BYTES.get(self.subtype, 0) * self.channels or (claim.held / there if there else 1)
        if claim.promised is not None and claim.missing:
            self.promised = max(there, int(claim.promised / size))
        self.surplus = int(claim.surplus / size)


def _identity(path: Path) -> tuple[Path, int, int]:
    """The identity of a file's content: while it is the same, what was found out of it still holds."""
    found = path.stat()
    return path, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=65536)
def _mp3_frames(path: Path, size: int, changed: int) -> int | None:
    with path.open("rb") as file:
        return mp3_frames(file)


@lru_cache(maxsize=65536)
def _decoded_frames(path: Path, size: int, changed: int) -> int:
    with AudioReader(path) as audio:
        return sum(len(block) for block in audio.blocks(10.0))


_FRAME_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4}
_FRAME_BYTES |= {"DOUBLE": 8}


class _Source(Protocol):
    rate: int
    channels: int
    frames: int
    format: str
    subtype: str
    tolerance: int
    cut: bool

    def read(self, count: int) -> Samples: ...

    def seek(self, frame: int) -> None: ...

    def close(self) -> None: ...


class _Soundfile:
    """A file that libsndfile reads."""

    tolerance, cut = 0, False

    def __init__(self, file: Any, name: str, below: io.FileIO | None = None) -> None:
        self._file, self._name, self._below = file, name, below
        self.rate, self.channels, self.frames = int(file.samplerate), int(file.channels), int(file.frames)
        self.format, self.subtype = str(file.format), str(file.subtype)
        self._at = 0

    def read(self, count: int) -> Samples:
        return self.read_as(np.float32, count)

    def read_as(self, kind: type[Any], count: int) -> npt.NDArray[Any]:
        samples = np.zeros((count, self.channels), kind)
        try:
            found = self._file.buffer_read_into(samples, dtype=samples.dtype.name)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            at = self._at / self.rate
            text = f"{self._name}: cannot be read beyond {at:.3f} s: {reason_of(error)}"
            raise AudioError("damaged", text) from error
        self._at += found
        return samples[:found]

    def seek(self, frame: int) -> None:
        self._file.seek(frame)
        self._at = frame

    def close(self) -> None:
        self._file.close()
        if self._below is not None:
            self._below.close()


class _Patched(io.FileIO):
    """A file with other bytes at a place in its header."""

    def __init__(self, path: Path, at: int, other: bytes) -> None:
        super().__init__(path, "rb")
        self._place, self._other = at, other

    def readinto(self, buffer: Any) -> int | None:
        begin = self.tell()
        found = super().readinto(buffer)
        view = memoryview(buffer).cast("B")
        for place, byte in enumerate(self._other, self._place):
            if found and begin <= place < begin + found:
                view[place - begin] = byte
        return found


def _counted_flac(path: Path) -> _Patched:
    """A FLAC file with the count of its samples in its header, where there is none."""
    with path.open("rb") as file:
        frames = flac_frames(file) or 0
        file.seek(FLAC_COUNT)
        # The upper four bits belong to the sample size.
        first = file.read(1)[0] & 0xF0 | frames >> 32 & 0xF
    return _Patched(path, FLAC_COUNT, bytes([first]) + (frames & 0xFFFFFFFF).to_bytes(4, "big"))
