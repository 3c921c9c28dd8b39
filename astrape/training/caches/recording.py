"""An utterance's audio: mono, at the rate that is asked for, or a reason why it cannot be had."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from astrape.audio.atomic import shown
from astrape.audio.downmix import MEAN, Downmix
from astrape.audio.places import Where
from astrape.audio.reader import AudioReader, Samples
from astrape.audio.resampling import resampled, resampling
from astrape.blocks.base import Stream
from astrape.errors import AstrapeError, told_as
from astrape.graph.graph import Graph
from astrape.training.errors import CacheError

__all__ = ["LONGEST_SECONDS", "Header", "read_crop", "read_header", "read_recording"]

LONGEST_SECONDS = 600
"""Longest utterance. A teacher hears it as a whole, and longer ones would not fit into memory."""

LOWEST_RATE, HIGHEST_RATE = 8000, 768_000


class Header:
    """The header of an audio file.

    Attributes:
        rate: Hz.
        frames: samples of each channel.
        seconds: its length, exactly.
        unsized: its header leaves the length open.
    """

    def __init__(self, rate: int, frames: int, unsized: bool = False) -> None:
        self.rate = rate
        self.frames = frames
        self.unsized = unsized
        self.seconds = Fraction(frames, rate)

    def frames_at(self, rate: Fraction) -> int:
        """Length at another rate: as many frames as begin before the end."""
        return -((-self.frames * rate.numerator) // (self.rate * rate.denominator))


def read_header(path: Where) -> Header:
    """Look at an audio file without reading it; decode it where its length is known in no other way.

    Raises:
        CacheError: for a file that is missing, empty, no audio, cut short, of an unheard-of rate or longer than 10
            minutes.
    """
    with told_as(CacheError), _opened(path) as audio:
        return _header(audio)


def read_recording(path: Where, rate: Fraction, channel: str = MEAN) -> Tensor:
    """All of an audio file as ``(1, 1, frames)`` float32: channels averaged, resampled as a stream, aligned.

    Args:
        path: an audio file.
        rate: to come to, Hz.
        channel: of several, as for :class:`~astrape.audio.downmix.Downmix`.

    Raises:
        CacheError: as :func:`read_header`, and for samples that are not finite, a file that ends too early, and
            channels that cancel each other.
    """
    with told_as(CacheError), _opened(path) as audio:
        downmix = Downmix(audio.rate, audio.channels, channel, audio.name)
        mono = _read(audio, downmix, _header(audio).frames)
        audio.refuse_faults()
        downmix.refuse_cancelled()
    x = torch.from_numpy(mono).reshape(1, 1, -1)
    return torch.cat(list(resampled(_resampler(audio.rate, rate, path), [x])), dim=-1)


def read_crop(path: Where, rate: Fraction, begin: Fraction, seconds: Fraction, channel: str = MEAN) -> Tensor:
    """A part of an audio file as ``(1, frames)`` float32 at a rate, as :func:`read_recording` has it there.

    No more is read than the crop and what the resampler looks at around it. Beyond the end of the file nothing is
    returned: the crop is shorter then.

    Args:
        path: an audio file.
        rate: of the crop, Hz.
        begin: where the crop begins; a whole number of frames at ``rate``.
        seconds: how long it is; a whole number of frames at ``rate``.
        channel: of several.

    Raises:
        CacheError: as :func:`read_recording`.
    """
    first, count = int(begin * rate), int(seconds * rate)
    with told_as(CacheError), _opened(path) as audio:
        header = _header(audio)
        downmix = Downmix(audio.rate, audio.channels, channel, audio.name)
        count = max(0, min(count, header.frames_at(rate) - first))
        graph = _resampler(header.rate, rate, path)
        if graph is None:
            audio.seek(min(first, header.frames))
            return torch.from_numpy(_read(audio, downmix, count)).reshape(1, -1)
        # Whole quanta of the resampler, so that its phases fall as in the whole file, and all that it looks back to.
        quantum, made = graph.quantum, int(graph.quantum * graph.ratio)
        reach = graph.receptive_field or Fraction(0)
        before = max(0, int((begin - reach) * header.rate)) // quantum
        skip = first + math.ceil(graph.latency * rate) - before * made
        needed = -(-(skip + count) // made) * quantum
        start = min(before * quantum, header.frames)
        audio.seek(start)
        mono = _read(audio, downmix, min(needed, header.frames - start))
    x = torch.zeros(1, 1, needed)
    x[0, 0, : len(mono)] = torch.from_numpy(mono)
    with torch.inference_mode():
        y: Tensor = graph(x)[0, :, skip : skip + count]
    return y.clone()


def _read(audio: AudioReader, downmix: Downmix, frames: int) -> Samples:
    """The next frames as one channel."""
    samples = audio.read(max(0, frames))
    audio.check_finite(samples)
    return downmix.add(samples) if len(samples) else np.zeros(0, np.float32)


def _header(audio: AudioReader) -> Header:
    return Header(audio.rate, audio.count(), audio.unsized)


def _opened(path: Where) -> AudioReader:
    audio = AudioReader(path)
    try:
        fault = None
        if not LOWEST_RATE <= audio.rate <= HIGHEST_RATE:
            fault = f"{audio.rate} Hz, and speech has {LOWEST_RATE} to {HIGHEST_RATE} Hz"
        elif audio.promised is not None and audio.promised > LONGEST_SECONDS * audio.rate:
            seconds = audio.promised / audio.rate
            fault = f"{seconds:.0f} s long, and an utterance has up to {LONGEST_SECONDS} s: cut it into utterances"
        elif audio.count() <= 0 and not audio.surplus:
            fault = "holds no samples"
        if fault is not None:
            raise CacheError(f"{audio.name}: {fault}")
        audio.refuse_faults()
    except BaseException:
        audio.close()
        raise
    return audio


def _resampler(rate_in: int, rate_out: Fraction, path: Where) -> Graph | None:
    try:
        return _resampler_between(rate_in, rate_out)
    except AstrapeError as error:
        raise CacheError(f"{shown(path)}: {rate_in} Hz cannot be brought to {rate_out} Hz: {error}") from error


@lru_cache(maxsize=16)
def _resampler_between(rate_in: int, rate_out: Fraction) -> Graph | None:
    return resampling(rate_in, Stream(rate_out, 1))
