"""The one writer of audio files: they appear whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from astrape.audio.atomic import atomic_path, shown, write_error, write_fault
from astrape.audio.levels import Level
from astrape.audio.places import Place, Where
from astrape.errors import WriteError
from astrape.wording import reason_of

__all__ = ["AudioWriter", "flac_bytes"]

LARGEST_WAV = 2**32 - 2**16
"""Bytes; the sizes in a WAV file's header have 32 bits."""

FLOATING = ("FLOAT", "DOUBLE")

EXACT = ("WAV", "WAVEX", "RF64", "FLAC", "AIFF", "W64", "CAF")
"""Formats whose lengths are exact. Lossy ones round them."""

UNCOMPRESSED = ("WAV", "WAVEX", "RF64", "AIFF", "W64", "CAF", "AU")

SAMPLE_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}

HEADER_BYTES = 4096
"""More than any header takes; CAF's is the longest."""


class AudioWriter:
    """Writes audio to a temporary file, and renames it when the ``with`` block ends well.

    Args:
        target: a path or a URL; its ending picks the format.
        rate, channels: of what is written.
        subtype: sample format to keep, where the target's format has it; ``PCM_16`` for instance.
        frames: how many to expect, 0 if unknown. WAV that would pass 4 GB becomes RF64, and a disk with too
            little space is refused before anything is written.
        source: a file that must not be overwritten.

    Attributes:
        frames: written so far.
        clipped: samples beyond full scale. They are cut off there, except in float files.
        level: of what was written.

    Raises:
        WriteError: for a target that is the source, has no format soundfile writes, or cannot be written.
    """

    def __init__(
        self,
        target: Where,
        rate: int,
        channels: int,
        subtype: str = "PCM_16",
        *,
        frames: int = 0,
        source: Path | None = None,
    ) -> None:
        self.name = shown(target)
        path = Place(target).path
        if source is not None and path is not None and path.exists() and source.exists() and path.samefile(source):
            raise WriteError(f"{self.name}: is the input itself: name another output")
        ending = Place(target).suffix.removeprefix(".").upper()
        formats = soundfile.available_formats()
        names = {"AIF": "AIFF", "AIFC": "AIFF", "OGA": "OGG", "OPUS": "OGG", "WAVE": "WAV", "BWF": "WAV"}
        container = names.get(ending, ending)
        if container not in formats or container == "RAW":
            fix = "end it with .wav, .flac, .ogg or .mp3"
            raise WriteError(f"{self.name}: its ending names no audio format that can be written: {fix}")
        if ending == "OPUS":
            subtype = "OPUS"
        plain = subtype.startswith("PCM_") or subtype in FLOATING or subtype == "OPUS"
        kept = plain and soundfile.check_format(container, subtype)
        self.subtype = subtype if kept else soundfile.default_subtype(container)
        size = frames * channels * SAMPLE_BYTES.get(self.subtype, 1)
        if container == "WAV" and size > LARGEST_WAV:
            container = "RF64"
        self.container, self.rate, self.channels = container, rate, channels
        self.frames = 0
        self.clipped = 0
        self.level = Level()
        known = frames > 0 and container in UNCOMPRESSED and self.subtype in SAMPLE_BYTES
        self._needed = size + HEADER_BYTES if known else None
        self._atomic = atomic_path(target, needed=self._needed)

    def __enter__(self) -> AudioWriter:
        temporary = self._atomic.__enter__()
        try:
            self._file = soundfile.SoundFile(
                temporary, "w", self.rate, self.channels, subtype=self.subtype, format=self.container
            )
        except BaseException as error:
            self._atomic.__exit__(type(error), error, error.__traceback__)
            if isinstance(error, (soundfile.LibsndfileError, TypeError, ValueError)):
                what = f"{self.channels} channels at {self.rate} Hz as {self.container} {self.subtype}"
                raise WriteError(f"{self.name}: cannot hold {what}: {reason_of(error)}") from error
            raise
        return self

    def write(self, samples: npt.NDArray[Any]) -> None:
        """Append ``(frames, channels)``.

        Raises:
            WriteError: when it cannot be written: how much space there is and how much it takes, on a full disk.
        """
        size = (self.frames + len(samples)) * self.channels * SAMPLE_BYTES.get(self.subtype, 1)
        if self.container == "WAV" and size > LARGEST_WAV:
            raise WriteError(f"{self.name}: grows over the 4 GB that WAV can have: hint: end it with .w64 or .flac")
        self.level.add(samples)
        self.clipped += int((np.abs(samples) > 1).sum())
        if self.subtype not in FLOATING:
            samples = samples.clip(-1, 1)
        data = np.ascontiguousarray(samples, dtype=np.float32)
        try:
            self._file.write(data)
        except (soundfile.LibsndfileError, AssertionError, RuntimeError, OSError) as error:
            raise self._failed(reason_of(error) or "not all was written") from error
        self.frames += len(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed: WriteError | None = None
        try:
            self._file.close()
            if kind is None:
                self._check_whole()
        except (soundfile.LibsndfileError, RuntimeError, OSError) as fault:
            failed = self._failed(reason_of(fault))
        except WriteError as fault:
            failed = fault
        if kind is None and failed is not None:
            self._atomic.__exit__(type(failed), failed, None)
            raise failed
        self._atomic.__exit__(kind, error, trace)

    def _check_whole(self) -> None:
        """A full disk may show in the length alone."""
        if not self.frames and not _readable(self._atomic.temporary):
            raise WriteError(f"{self.name}: a {self.container} file cannot be without samples: end it with .wav")
        if self.container in EXACT:
            found = soundfile.info(self._atomic.temporary).frames
            if found != self.frames:
                raise self._failed(f"{found} of {self.frames} frames arrived")

    def _failed(self, reason: str) -> WriteError:
        """libsndfile says "System error" of a full disk: the disk itself says more."""
        temporary = self._atomic.temporary
        fault = write_fault(temporary)
        if fault is None:
            return WriteError(f"{self.name}: cannot be written: {reason}")
        written = temporary.stat().st_size if temporary.exists() else 0
        return write_error(self.name, fault, temporary.parent, self._needed, written)


def flac_bytes(samples: npt.NDArray[Any], rate: int) -> bytes:
    """``(frames,)`` or ``(frames, channels)`` as a FLAC file of 16 bits in memory, cut off at full scale."""
    content = io.BytesIO()
    soundfile.write(content, samples.clip(-1, 1), rate, "PCM_16", format="FLAC")
    return content.getvalue()


def _readable(path: Path) -> bool:
    try:
        soundfile.info(path)
    except soundfile.LibsndfileError:
        return False
    return True
