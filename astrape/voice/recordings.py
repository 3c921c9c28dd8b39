"""Recordings as streams of a rate, for what listens to them without writing any."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from astrape.audio.downmix import KEEP, MEAN, Downmix
from astrape.audio.places import Where
from astrape.audio.reader import AudioReader
from astrape.audio.resampling import resampled, resampling
from astrape.blocks.base import Stream

__all__ = ["pieces_of"]


def pieces_of(path: Where, stream: Stream, *, longest: float | None = None, channel: str = MEAN) -> Iterator[Tensor]:
    """An audio file, mixed to one channel, at a stream's rate: ``(1, 1, n)``, about a second at a time.

    Args:
        path: any format, rate and channels that :class:`~astrape.audio.reader.AudioReader` reads, also by URL.
        stream: whose rate to come to.
        longest: seconds after which the rest is left aside.
        channel: of several, as for :class:`~astrape.audio.downmix.Downmix`.

    Raises:
        AudioError: for a file that cannot be read or is not as long as it says, for samples that are not finite, and
            for channels that cancel each other.
    """
    with AudioReader(path) as audio:
        most = None if longest is None else int(longest * audio.rate)
        read = _read(audio, Downmix(audio.rate, audio.channels, channel, audio.name), most)
        yield from resampled(resampling(audio.rate, Stream(stream.rate, 1)), read)


def _read(audio: AudioReader, downmix: Downmix, most: int | None) -> Iterator[Tensor]:
    while most is None or audio.frames < most:
        samples = audio.read(audio.rate if most is None else min(audio.rate, most - audio.frames))
        if not len(samples):
            break
        audio.check_finite(samples)
        yield torch.from_numpy(downmix.add(samples)).reshape(1, 1, -1)
    if most is None or audio.frames < most:
        audio.refuse_faults()
    downmix.refuse_cancelled(KEEP)
