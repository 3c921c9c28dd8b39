"""Formats that libsndfile does not read (m4a, webm, mp4, wma), decoded by PyAV, or by ffmpeg where that is there."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.audio.pcm import PcmReader
from astrape.errors import AudioError
from astrape.wording import reason_of

__all__ = ["AvSource", "FfmpegSource", "decoder", "is_container"]

Samples = npt.NDArray[np.float32]

TOLERANCE_SECONDS = 0.1
"""Containers say how long they are in time, with the encoder's delay or without it."""

BARE = {"aac", "ac3", "amr", "eac3", "loas", "mp2", "mp3", "mpeg"}
"""Streams without a header: a decoder guesses their length."""

MAGICS = (
    *(
        (0, one)
        for one in (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75", b"#!AMR", b"wvpk", b"MAC ", b"TTA1", b"FLV", b"ADIF")
    ),
    *((0, one) for one in (b"\x0b\x77", b"\0\0\x01\xba")),
    *((4, one) for one in (b"ftyp", b"moov", b"mdat", b"wide", b"free")),
    (8, b"AVI "),
)
"""Offsets and bytes by which containers are known."""


def is_container(begin: bytes) -> bool:
    """Whether a file that begins so is a container or codec that a decoder should be asked about.

    Playlists are none: a decoder would open the files that they name.
    """
    if any(begin[at : at + len(magic)] == magic for at, magic in MAGICS):
        return True
    # MPEG audio and ADTS (AAC): eleven or twelve bits set.
    return len(begin) > 1 and begin[0] == 0xFF and begin[1] & 0xE0 == 0xE0


def decoder() -> type[AvSource] | type[FfmpegSource] | None:
    """The decoder of this machine: PyAV, else the program ffmpeg, else none."""
    if importlib.util.find_spec("av") is not None:
        return AvSource
    return FfmpegSource if shutil.which("ffmpeg") else None


class _Decoded(ABC):
    """A file that is decoded from its beginning."""

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        self._path, self._name = path, name
        self.rate = 0
        self._at = 0
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Begin to decode."""

    @abstractmethod
    def read(self, count: int) -> Samples:
        """The next ``count`` frames, fewer at the end."""

    @abstractmethod
    def close(self) -> None:
        """End decoding."""

    def seek(self, frame: int) -> None:
        """Go to a frame by decoding up to it, which is exact in every format."""
        if frame < self._at:
            self.close()
            self._open()
        while self._at < frame and len(self.read(min(frame - self._at, self.rate))):
            pass


class AvSource(_Decoded):
    """The first audio stream of a file, decoded by PyAV.

    Attributes:
        rate, channels: of what is decoded.
        frames: that the container speaks of, 0 where it does not say.
        format, subtype: names of container and codec.
        tolerance: frames by which ``frames`` may be wrong.

    Raises:
        AudioError: for a file that cannot be opened, and one without audio.
    """

    cut = False

    def _open(self) -> None:
        import av

        # Opened here: a name could be taken for an address.
        self._file = open(self._path, "rb")  # noqa: SIM115 - closed by close()
        try:
            self._container: Any = av.open(self._file, mode="r", metadata_errors="replace")
            if not self._container.streams.audio:
                raise AudioError("format", f"{self._name}: holds no audio ({self._container.format.name})")
            stream = self._container.streams.audio[0]
            self._blocks = self._decoded(av, stream)
            self._held = next(self._blocks, None)
            if self._held is None:
                self.rate, self.channels = int(stream.codec_context.sample_rate or 0), int(stream.channels or 0)
                self._held = np.zeros((0, max(1, self.channels)), np.float32)
            kind = self._container.format.name.partition(",")[0]
            self.frames = 0 if kind in BARE else round(self._duration(stream, av.time_base) * self.rate)
            self.format = kind.upper()
            self.subtype = str(stream.codec_context.name).upper()
        # Damage gives errors of values too, in names for instance.
        except (av.FFmpegError, ValueError) as error:
            self.close()
            raise AudioError("format", f"{self._name}: is not a readable audio file: {reason_of(error)}") from error
        except BaseException:
            self.close()
            raise
        if not self.rate or not self.channels:
            self.close()
            raise AudioError("format", f"{self._name}: is not a readable audio file: it says neither rate nor channels")
        self.tolerance = round(TOLERANCE_SECONDS * self.rate)
        self._at = 0

    def read(self, count: int) -> Samples:
        import av

        found: list[Samples] = []
        left = count
        while left > 0:
            if self._held is None or not len(self._held):
                try:
                    self._held = next(self._blocks, None)
                except (av.FFmpegError, ValueError) as error:
                    at = (self._at + count - left) / self.rate
                    text = f"{self._name}: cannot be read beyond {at:.3f} s: {reason_of(error)}"
                    raise AudioError("damaged", text) from error
                if self._held is None:
                    break
            found.append(self._held[:left])
            self._held = self._held[left:]
            left -= len(found[-1])
        self._at += count - left
        return np.concatenate(found) if found else np.zeros((0, self.channels), np.float32)

    def close(self) -> None:
        container = getattr(self, "_container", None)
        if container is not None:
            container.close()
        self._file.close()

    def _duration(self, stream: Any, unit: int) -> float:
        """Seconds that the stream is said to last, or else the whole file; 0 where neither is."""
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return float(self._container.duration or 0) / unit

    def _decoded(self, av: Any, stream: Any) -> Iterator[Samples]:
        resampler: Any = None
        for frame in self._container.decode(stream):
            if resampler is None:
                self.rate, self.channels = int(frame.sample_rate), int(frame.layout.nb_channels)
                resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
            yield from (self._samples(one) for one in resampler.resample(frame))
        if resampler is not None:
            yield from (self._samples(one) for one in resampler.resample(None))

    def _samples(self, frame: Any) -> Samples:
        return np.asarray(frame.to_ndarray(), np.float32).reshape(-1, self.channels)


class FfmpegSource(_Decoded):
    """The first audio stream of a file, decoded by the program ffmpeg; the same as :class:`AvSource` otherwise.

    Attributes:
        cut: at the end, whether ffmpeg complained of the file.
    """

    frames, tolerance = 0, 0
    format, subtype = "FFMPEG", "FLOAT"

    def _open(self) -> None:
        words = ["ffmpeg", "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe"]
        words += ["-i", f"file:{os.fspath(self._path)}", "-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "-"]
        self.cut = False
        self._told = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self._told)
        try:
            self._stream = PcmReader(self._process.stdout, None, self._name)
        except AudioError as error:
            self._process.wait()
            reason = self._complaint() or "ffmpeg gives no samples"
            self.close()
            raise AudioError("format", f"{self._name}: is not a readable audio file: {reason}") from error
        self.rate, self.channels = self._stream.pcm.rate, self._stream.pcm.channels
        self._at = 0

    def read(self, count: int) -> Samples:
        found: list[Samples] = []
        left = count
        while left > 0 and len(block := self._stream.read(left)):
            found.append(block)
            left -= len(block)
        self._at += count - left
        if left:
            failed = self._process.wait()
            complaint = self._complaint()
            if failed:
                at = f"{self._at / self.rate:.3f} s"
                raise AudioError("damaged", f"{self._name}: cannot be read beyond {at}: {complaint or failed}")
            self.cut = bool(complaint)
        return np.concatenate(found) if found else np.zeros((0, self.channels), np.float32)

    def close(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.kill()
        self._process.wait()
        self._told.close()

    def _complaint(self) -> str:
        self._told.seek(0)
        lines = self._told.read(4000).decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip().rstrip(".") if lines else ""
