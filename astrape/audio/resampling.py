"""Audio from one rate to another, as a stream: the library's own resampler as a graph, over pieces and over files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import torch
from torch import Tensor

from astrape.audio.downmix import KEEP, MEAN, Downmix
from astrape.audio.places import Where
from astrape.audio.reader import AudioReader
from astrape.blocks.base import Stream
from astrape.errors import AstrapeError, RecipeError
from astrape.graph import compile
from astrape.graph.graph import Graph

__all__ = ["pieces_of", "resampled", "resampling", "resampling_to"]


def resampling(rate: int, stream: Stream) -> Graph | None:
    """The resampler from a file's rate to a stream's, as a graph of its own; ``None`` where the rates are equal.

    Raises:
        AstrapeError: for two rates that no resampler fits, with both.
    """
    return None if rate == stream.rate else _resampler(Fraction(rate), stream.rate, stream.channels)


def resampling_to(stream: Stream, rate: int) -> Graph | None:
    """The resampler from a stream to a file's rate."""
    return None if rate == stream.rate else _resampler(stream.rate, Fraction(rate), stream.channels)


def resampled(graph: Graph | None, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """``(1, channels, n)`` pieces through such a graph, aligned to the sample; as they are where there is none."""
    yield from pieces if graph is None else graph.stream().compensated(pieces)


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


def _resampler(rate_in: Fraction, rate_out: Fraction, channels: int) -> Graph:
    try:
        return compile(
            {
                "recipe": "resampling",
                "inputs": {"in": {"rate": str(rate_in), "channels": channels}},
                "blocks": {"resampled": {"use": "resampler", "rate": str(rate_out)}},
                "outputs": {"out": "resampled"},
            }
        )
    except RecipeError as error:
        # Nobody wrote that recipe: its lines and nodes say nothing to who has a file.
        why = str(error).split(": ", 2)[-1]
        raise AstrapeError(f"{rate_in} Hz cannot be brought to {rate_out} Hz: {why}") from error
