"""Standard input and output in the place of audio files: WAV or raw samples, as they come."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.audio.atomic import write_error
from astrape.audio.levels import Level
from astrape.audio.pcm import SUBTYPES, Pcm, PcmReader, Samples, encoded, wav_header

__all__ = ["PipeReader", "PipeTarget", "PipeWriter"]

WAV = "wav"


class PipeReader:
    """Audio out of a stream of bytes, in the place of an :class:`~astrape.audio.reader.AudioReader`.

    Args:
        file: with ``read1``, such as ``sys.stdin.buffer``.
        form: ``wav``, or raw samples as ``ENCODING:RATE:CHANNELS``.
        name: for messages.

    Attributes:
        pcm: the form of the samples.
        raw: whether they came without a header.
        rate, channels, format, subtype, promised, frames, surplus, missing, is_cut, unsized: as of a file, but that the
            largest length in a header leaves nothing open here: it is how a stream says that it goes on to its end.

    Raises:
        AudioError: for a stream that is not a WAV of plain samples, and an unknown form.
    """

    surplus = 0

    def __init__(self, file: Any, form: str = WAV, name: str = "standard input") -> None:
        self.raw = form != WAV
        self._stream = PcmReader(file, Pcm.parse(form) if self.raw else None, name)
        self.name = name
        self.pcm = self._stream.pcm
        self.rate, self.channels = self.pcm.rate, self.pcm.channels
        self.format, self.subtype = "RAW" if self.raw else "WAV", self.pcm.subtype
        self.promised = self._stream.promised
        self.frames = 0
        self._ended = False

    def __enter__(self) -> PipeReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The stream is its owner's to close."""

    @property
    def unsized(self) -> bool:
        return self._stream.unfinished and self.frames > 0

    @property
    def missing(self) -> int:
        return max(0, self.promised - self.frames) if self._ended and self.promised is not None else 0

    @property
    def is_cut(self) -> bool:
        return self.missing > 0 or self._stream.torn > 0

    def read(self, frames: int) -> Samples:
        """The next frames as soon as there are any, up to ``frames``; none at the end. ``(n, channels)`` float32."""
        samples = self._stream.read(frames)
        self.frames += len(samples)
        self._ended = not len(samples)
        return samples


@dataclass(frozen=True)
class PipeTarget:
    """The target of a :class:`PipeWriter`.

    Attributes:
        file: ``sys.stdout.buffer``, for instance.
        form: ``wav``, or the encoding of raw samples; ``None``: as the source, raw where that is raw.
        name: for messages.
    """

    file: Any
    form: str | None = None
    name: str = "standard output"

    def open(self, rate: int, channels: int, source: Any) -> PipeWriter:
        """A writer of that many channels at a rate, for what comes from a reader.

        Raises:
            AudioError: for an unknown encoding.
        """
        raw = getattr(source, "raw", False) if self.form is None else self.form != WAV
        if self.form not in (None, WAV):
            encoding = str(self.form)
        elif raw:
            encoding = source.pcm.encoding
        else:
            encoding = _wav_encoding(source.subtype)
        return PipeWriter(self.file, Pcm(encoding, rate, channels), not raw, self.name)


class PipeWriter:
    """Audio into a stream of bytes, flushed with every piece, in the place of an ``AudioWriter``.

    Attributes:
        subtype, frames, clipped, level: as of a file.
    """

    def __init__(self, file: Any, pcm: Pcm, header: bool, name: str) -> None:
        self._file, self._pcm, self._header, self._name = file, pcm, header, name
        self.subtype = pcm.subtype
        self.frames = 0
        self.clipped = 0
        self.level = Level()

    def __enter__(self) -> PipeWriter:
        if self._header:
            self._put(wav_header(self._pcm))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """All is written and flushed already."""

    def write(self, samples: npt.NDArray[Any]) -> None:
        """Write ``(frames, channels)`` and flush.

        Raises:
            BrokenPipeError: when nobody reads any more.
            WriteError: when it cannot be written for another reason.
        """
        if not len(samples):
            return
        self.level.add(samples)
        self.clipped += int((np.abs(samples) > 1).sum())
        self._put(encoded(samples, self._pcm.encoding))
        self.frames += len(samples)

    def _put(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_error(self._name, error) from error


def _wav_encoding(subtype: str) -> str:
    """The encoding of a WAV stream that keeps a file's samples; 16 bits for compressed ones."""
    names = {kept: name for name, kept in SUBTYPES.items()}
    name = names.get(subtype, "s16")
    return "u8" if name in ("u8", "s8") else f"{name}le"
