"""Recordings as metrics hear them: one channel, at the rate they ask for, piece by piece in constant memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from astrape.audio.downmix import KEEP, Downmix
from astrape.audio.places import Place, Where, local_file
from astrape.audio.reader import AudioReader
from astrape.audio.resampling import resampled, resampling
from astrape.blocks.base import Stream
from astrape.errors import told_as
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
        path: any format that soundfile reads, also by URL. Several channels are mixed to one by their mean.
        late: seconds at the beginning to leave out, of a file that is late by so much.

    Attributes:
        path, rate, channels: of the file, or of its copy on this machine.
        name: its last part.
        seconds: length, without what is left out.

    Raises:
        EvaluationError: for a file that is not audio, is cut short, has no samples, or a rate beyond 4 to 384 kHz.
    """

    def __init__(self, path: Where, late: float = 0.0) -> None:
        self.where, self.path = path, local_file(path)
        self.name = Place(path).name
        self.late = late
        with told_as(EvaluationError), AudioReader(path) as audio:
            self.rate, self.channels = audio.rate, audio.channels
            if not LOWEST_RATE <= self.rate <= HIGHEST_RATE:
                limits = f"{LOWEST_RATE} to {HIGHEST_RATE}"
                raise EvaluationError(f"{path}: {self.rate} Hz, and {limits} can be evaluated")
            frames = audio.count()
            audio.refuse_faults()
        self.skipped = round(late * self.rate)
        self.frames = max(0, frames - self.skipped)
        if not self.frames:
            cut = f" after the first {late * 1000:g} ms" if late else ""
            raise EvaluationError(f"{path}: holds no samples{cut}")

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    def pieces(self, rate: int, seconds: float) -> Iterator[Samples]:
        """All of it at ``rate``, ``seconds`` at a time; the last piece is what is left.

        Resampled as a stream, so that pieces join without a seam whatever their size.

        Raises:
            MetricError: for a file that cannot be read to its end, samples that are not finite, and channels that
                cancel each other.
        """
        size = max(1, round(rate * seconds))
        stream = (torch.from_numpy(block).reshape(1, 1, -1) for block in self._samples())
        held: list[Samples] = []
        count = 0
        for piece in resampled(resampling(self.rate, Stream(rate, 1)), stream):
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
        with told_as(MetricError), AudioReader(self.where) as audio:
            downmix = Downmix(audio.rate, audio.channels, name=audio.name)
            for block in audio.finite_blocks(READ_SECONDS):
                kept = downmix.add(block)[max(0, self.skipped - at) :]
                at += len(block)
                if len(kept):
                    yield kept
            audio.refuse_faults()
            downmix.refuse_cancelled(KEEP)


def silent(samples: Samples) -> bool:
    """Whether there is nothing to hear."""
    return not len(samples) or float(np.abs(samples).max()) < QUIETEST
