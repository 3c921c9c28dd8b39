"""Recordings as metrics hear them: one channel, at the rate they ask for, piece by piece in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import torch

from astrape.blocks.base import Stream
from astrape.runtime.files import resampling
from astrape.voice.evaluation.errors import EvaluationError, MetricError

__all__ = ["Recording", "Samples", "silent"]

Samples = npt.NDArray[np.float32]

READ_SECONDS = 1.0
LOWEST_RATE, HIGHEST_RATE = 4000, 384_000
QUIETEST = 1e-4
"""-80 dBFS: what stays below all the way holds nothing to hear."""


class Recording:
    """An audio file. It is opened anew for each reading, so that hundreds of them hold nothing open.

    Args:
        path: any format that soundfile reads. Several channels are mixed to one by their mean.
        late: seconds at the beginning to leave out, of a file that is late by so much.

    Attributes:
        path, rate, channels: of the file.
        seconds: length, without what is left out.

    Raises:
        EvaluationError: for what is no audio file, has no samples, or a rate beyond 4 to 384 kHz.
    """

    def __init__(self, path: str | os.PathLike[str], late: float = 0.0) -> None:
        self.path = Path(path)
        self.late = late
        if not self.path.exists():
            raise EvaluationError(f"{self.path}: there is no such file")
        if not self.path.is_file():
            what = "a folder, not an audio file" if self.path.is_dir() else "no regular file"
            raise EvaluationError(f"{self.path}: is {what}")
        with self._opened() as audio:
            self.rate, self.channels = int(audio.samplerate), int(audio.channels)
            frames = int(audio.frames)
        if not LOWEST_RATE <= self.rate <= HIGHEST_RATE:
            raise EvaluationError(f"{self.path}: {self.rate} Hz, and {LOWEST_RATE} to {HIGHEST_RATE} can be evaluated")
        self.skipped = round(late * self.rate)
        # Headerless streams and some compressed ones do not say how long they are.
        if not 0 < frames < 2**62:
            frames = sum(len(block) for block in self._blocks())
        self.frames = max(0, frames - self.skipped)
        if not self.frames:
            cut = f" after the first {late * 1000:g} ms" if late else ""
            raise EvaluationError(f"{self.path}: holds no samples{cut}")

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    def pieces(self, rate: int, seconds: float) -> Iterator[Samples]:
        """All of it at ``rate``, ``seconds`` at a time; the last piece is what is left.

        Resampled as a stream, so that pieces join without a seam whatever their size.

        Raises:
            MetricError: for a file that cannot be read to its end, and samples that are not finite.
        """
        size = max(1, round(rate * seconds))
        stream = (torch.from_numpy(block).reshape(1, 1, -1) for block in self._samples())
        graph = resampling(self.rate, Stream(rate, 1))
        resampled = stream if graph is None else graph.stream().compensated(stream)
        held: list[Samples] = []
        count = 0
        for piece in resampled:
            held.append(piece.reshape(-1).numpy())
            count += len(held[-1])
            if count >= size:
                joined = np.concatenate(held)
                whole = count // size * size
                yield from (joined[start : start + size] for start in range(0, whole, size))
                held, count = [joined[whole:]], count - whole
        if count:
            yield np.concatenate(held)

    def _samples(self) -> Iterator[Samples]:
        """One channel, what is left out left out."""
        at = 0
        for block in self._blocks():
            bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
            if bad.size:
                raise MetricError(f"{self.path}: the sample at {(at + int(bad[0])) / self.rate:.3f} s is not finite")
            kept = block[max(0, self.skipped - at) :]
            at += len(block)
            if len(kept):
                yield kept.mean(axis=1, dtype=np.float64).astype(np.float32)

    def _blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        at = 0
        with self._opened() as audio:
            while True:
                try:
                    block = audio.read(max(1, round(READ_SECONDS * audio.samplerate)), "float32", always_2d=True)
                except (soundfile.LibsndfileError, RuntimeError) as error:
                    raise MetricError(f"{self.path}: cannot be read beyond {at / audio.samplerate:.3f} s") from error
                if not len(block):
                    return
                at += len(block)
                yield block

    def _opened(self) -> soundfile.SoundFile:
        try:
            return soundfile.SoundFile(self.path)
        except (soundfile.LibsndfileError, TypeError, ValueError) as error:
            reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
            raise EvaluationError(f"{self.path}: is no audio that can be read: {reason}") from error
        except OSError as error:
            raise EvaluationError(f"{self.path}: cannot be opened: {error.strerror or error}") from error


def silent(samples: Samples) -> bool:
    """Whether there is nothing to hear."""
    return not len(samples) or float(np.abs(samples).max()) < QUIETEST
