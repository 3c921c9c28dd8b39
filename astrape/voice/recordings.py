"""Recordings as streams of a rate, for what listens to them without writing any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.errors import AstrapeError
from astrape.runtime.files import resampling

__all__ = ["pieces_of"]


def pieces_of(path: Path, stream: Stream, *, longest: float | None = None) -> Iterator[Tensor]:
    """An audio file, mixed to one channel, at a stream's rate: ``(1, 1, n)``, about a second at a time.

    Args:
        path: any format, rate and channels that soundfile reads.
        stream: whose rate to come to.
        longest: seconds after which the rest is left aside.

    Raises:
        AstrapeError: for a file that cannot be read, and for samples that are not finite.
    """
    try:
        with soundfile.SoundFile(path) as audio:
            rate = int(audio.samplerate)
            read = _read(audio, path, None if longest is None else int(longest * rate))
            resampler = resampling(rate, Stream(stream.rate, 1))
            yield from read if resampler is None else resampler.stream().compensated(read)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise AstrapeError(f"{path}: cannot be read as audio: {error}") from error


def _read(audio: soundfile.SoundFile, path: Path, most: int | None) -> Iterator[Tensor]:
    done = 0
    while most is None or done < most:
        size = audio.samplerate if most is None else min(audio.samplerate, most - done)
        samples = torch.from_numpy(audio.read(size, dtype="float32", always_2d=True))
        if not len(samples):
            return
        if not bool(torch.isfinite(samples).all()):
            raise AstrapeError(f"{path}: has samples that are not finite")
        done += len(samples)
        yield samples.mean(dim=1).reshape(1, 1, -1)
