"""An audio file that appears whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile
import torch
from torch import Tensor

from astrape.errors import AstrapeError
from astrape.runtime.levels import Level

__all__ = ["AudioTarget", "atomic_path"]

LARGEST_WAV = 2**32 - 2**16
"""Bytes; the sizes in a WAV file's header have 32 bits."""

FLOATING = ("FLOAT", "DOUBLE")


class atomic_path:
    """A temporary path beside ``target``, renamed to it when the block ends well and removed when it does not::

        with atomic_path(target) as temporary:
            temporary.write_text(report)

    Raises:
        AstrapeError: when the target's folder is missing or cannot be written, or the target is no regular file.
    """

    def __init__(self, target: str | Path) -> None:
        # A link stays a link: what it points to is replaced.
        self.target = Path(os.path.realpath(target))
        self.shown = str(target)

    def __enter__(self) -> Path:
        folder = self.target.parent
        if not folder.is_dir():
            raise AstrapeError(f"{self.shown}: there is no folder {folder}: make it first")
        if self.target.exists() and not self.target.is_file():
            raise AstrapeError(f"{self.shown}: is no regular file: name another")
        stem = self.target.name[:64]
        self.temporary = folder / f".{stem}.{secrets.token_hex(4)}{self.target.suffix}"
        try:
            os.close(os.open(self.temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise AstrapeError(f"{self.shown}: cannot be written: {error.strerror or error}") from error
        return self.temporary

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                os.replace(self.temporary, self.target)
        except OSError as failed:
            raise AstrapeError(f"{self.shown}: cannot be written: {failed.strerror or failed}") from failed
        finally:
            self.temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise AstrapeError(f"{self.shown}: cannot be written: {error.strerror or error}") from error


class AudioTarget:
    """Writes audio to a temporary file, and renames it when the ``with`` block ends well.

    Args:
        target: its ending picks the format.
        source: the file that must not be overwritten.
        rate, channels: of what is written.
        subtype: sample format to keep, where the target's format has it.
        frames: how many to expect; WAV that would pass 4 GB becomes RF64.

    Attributes:
        frames: written so far.
        clipped: samples beyond full scale. They are cut off there, except in float files.

    Raises:
        AstrapeError: for a target that is the source, has no format soundfile writes, or cannot be written.
    """

    def __init__(self, target: Path, source: Path, rate: int, channels: int, subtype: str, frames: int) -> None:
        if target.exists() and source.exists() and target.samefile(source):
            raise AstrapeError(f"{target}: is the input itself: name another output")
        ending = target.suffix.removeprefix(".").upper()
        formats = soundfile.available_formats()
        names = {"AIF": "AIFF", "AIFC": "AIFF", "OGA": "OGG", "OPUS": "OGG"}
        container = names.get(ending, ending)
        if container not in formats or container == "RAW":
            mend = "end it with .wav, .flac, .ogg or .mp3"
            raise AstrapeError(f"{target}: its ending names no audio format that can be written: {mend}")
        if ending == "OPUS":
            subtype = "OPUS"
        plain = subtype.startswith("PCM_") or subtype in FLOATING or subtype == "OPUS"
        kept = plain and soundfile.check_format(container, subtype)
        self.subtype = subtype if kept else soundfile.default_subtype(container)
        if container == "WAV" and frames * channels * _sample_bytes(self.subtype) > LARGEST_WAV:
            container = "RF64"
        self.container, self.rate, self.channels = container, rate, channels
        self.shown = target
        self.frames = 0
        self.clipped = 0
        self.level = Level()
        self._atomic = atomic_path(target)

    def __enter__(self) -> AudioTarget:
        temporary = self._atomic.__enter__()
        try:
            self._file = soundfile.SoundFile(
                temporary, "w", self.rate, self.channels, subtype=self.subtype, format=self.container
            )
        except BaseException as error:
            self._atomic.__exit__(type(error), error, error.__traceback__)
            if isinstance(error, (soundfile.LibsndfileError, TypeError, ValueError)):
                what = f"{self.channels} channels at {self.rate} Hz as {self.container} {self.subtype}"
                reason = str(getattr(error, "error_string", error)).rstrip(".")
                raise AstrapeError(f"{self.shown}: cannot hold {what}: {reason}") from error
            raise
        return self

    def write(self, samples: Tensor) -> None:
        """Append ``(frames, channels)``."""
        self.level.add(samples)
        self.clipped += int((samples.abs() > 1).sum())
        if self.subtype not in FLOATING:
            samples = samples.clamp(-1, 1)
        data = np.ascontiguousarray(samples.to(torch.float32).numpy())
        try:
            self._file.write(data)
        except (soundfile.LibsndfileError, AssertionError, RuntimeError, OSError) as error:
            reason = str(getattr(error, "error_string", error)).rstrip(".") or "not all was written: is the disk full?"
            raise AstrapeError(f"{self.shown}: cannot be written: {reason}") from error
        self.frames += len(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed: AstrapeError | None = None
        try:
            self._file.close()
            if kind is None:
                self._check_whole()
        except (soundfile.LibsndfileError, RuntimeError, OSError) as fault:
            failed = AstrapeError(f"{self.shown}: cannot be written: {fault}")
        except AstrapeError as fault:
            failed = fault
        if kind is None and failed is not None:
            self._atomic.__exit__(type(failed), failed, None)
            raise failed
        self._atomic.__exit__(kind, error, trace)

    def _check_whole(self) -> None:
        """A full disk may show in the length alone. Lossy formats round their lengths, so those are not compared."""
        if not self.frames and not _readable(self._atomic.temporary):
            raise AstrapeError(f"{self.shown}: a {self.container} file cannot be without samples: end it with .wav")
        if self.container in ("WAV", "RF64", "FLAC", "AIFF", "W64", "CAF"):
            found = soundfile.info(self._atomic.temporary).frames
            if found != self.frames:
                raise AstrapeError(
                    f"{self.shown}: cannot be written: {found} of {self.frames} frames arrived: is the disk full?"
                )


def _readable(path: Path) -> bool:
    try:
        soundfile.info(path)
    except soundfile.LibsndfileError:
        return False
    return True


def _sample_bytes(subtype: str) -> int:
    sizes = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
    return sizes.get(subtype, 1)
