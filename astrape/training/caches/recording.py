"""An utterance's audio: mono, at the rate that is asked for, or a reason why it cannot be had."""

from __future__ import annotations

import math
import os
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.errors import AstrapeError
from astrape.graph.graph import Graph
from astrape.runtime.files import resampling
from astrape.training.corpus import shown
from astrape.training.errors import CacheError

__all__ = ["LONGEST_SECONDS", "Header", "read_crop", "read_header", "read_recording"]

LONGEST_SECONDS = 600
"""Of one utterance. A teacher hears it as a whole, which longer ones would not fit into memory for."""

LOWEST_RATE, HIGHEST_RATE = 8000, 768_000


class Header:
    """What an audio file says of itself.

    Attributes:
        rate: Hz.
        frames: samples of each channel.
        seconds: its length, exactly.
    """

    def __init__(self, rate: int, frames: int) -> None:
        self.rate = rate
        self.frames = frames
        self.seconds = Fraction(frames, rate)

    def frames_at(self, rate: Fraction) -> int:
        """Length at another rate: as many frames as begin before the end."""
        return -((-self.frames * rate.numerator) // (self.rate * rate.denominator))


def read_header(path: Path) -> Header:
    """Look at an audio file without reading it.

    Raises:
        CacheError: for a file that is missing, empty, no audio, of an unheard-of rate or longer than 10 minutes.
    """
    with _opened(path) as audio:
        return Header(int(audio.samplerate), int(audio.frames))


def read_recording(path: Path, rate: Fraction) -> Tensor:
    """All of an audio file as ``(1, 1, frames)`` float32: channels averaged, resampled as a stream, aligned.

    Raises:
        CacheError: as :func:`read_header`, and for samples that are not finite, and a file that ends too early.
    """
    with _opened(path) as audio:
        header = Header(int(audio.samplerate), int(audio.frames))
        mono = _read(path, audio, header.frames)
    if len(mono) < header.frames:
        raise CacheError(
            f"{shown(path)}: ends after {len(mono) / header.rate:.3f} s, and its header says "
            f"{float(header.seconds):.3f} s: copy or decode it again"
        )
    x = torch.from_numpy(mono).reshape(1, 1, -1)
    graph = _resampler(header.rate, rate, path)
    if graph is not None:
        x = torch.cat(list(graph.stream().compensated([x])), dim=-1)
    return x


def read_crop(path: Path, rate: Fraction, begin: Fraction, seconds: Fraction) -> Tensor:
    """A part of an audio file as ``(1, frames)`` float32 at a rate, as :func:`read_recording` has it there.

    No more is read than the crop and what the resampler looks at around it. Beyond the end of the file nothing is
    returned: the crop is shorter then.

    Args:
        path: an audio file.
        rate: of the crop, Hz.
        begin: where the crop begins; a whole number of frames at ``rate``.
        seconds: how long it is; a whole number of frames at ``rate``.

    Raises:
        CacheError: as :func:`read_recording`.
    """
    first, count = int(begin * rate), int(seconds * rate)
    with _opened(path) as audio:
        header = Header(int(audio.samplerate), int(audio.frames))
        count = max(0, min(count, header.frames_at(rate) - first))
        graph = _resampler(header.rate, rate, path)
        if graph is None:
            audio.seek(min(first, header.frames))
            return torch.from_numpy(_read(path, audio, count)).reshape(1, -1)
        # Whole quanta of the resampler, so that its phases fall as in the whole file, and all that it looks back to.
        quantum, made = graph.quantum, int(graph.quantum * graph.ratio)
        reach = graph.receptive_field or Fraction(0)
        before = max(0, int((begin - reach) * header.rate)) // quantum
        skip = first + math.ceil(graph.latency * rate) - before * made
        needed = -(-(skip + count) // made) * quantum
        start = min(before * quantum, header.frames)
        audio.seek(start)
        mono = _read(path, audio, min(needed, header.frames - start))
    x = torch.zeros(1, 1, needed)
    x[0, 0, : len(mono)] = torch.from_numpy(mono)
    with torch.inference_mode():
        y: Tensor = graph(x)[0, :, skip : skip + count]
    return y.clone()


def _read(path: Path, audio: soundfile.SoundFile, frames: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    try:
        samples = audio.read(max(0, frames), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise CacheError(f"{shown(path)}: cannot be read to its end: {_reason(error)}") from error
    bad = np.flatnonzero(~np.isfinite(samples).all(axis=1))
    if bad.size:
        at = bad[0] / audio.samplerate
        raise CacheError(
            f"{shown(path)}: {bad.size} samples are not finite, the first {at:.3f} s into what was read: render it anew"
        )
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float64)
    return np.ascontiguousarray(mono, dtype=np.float32)


def _opened(path: Path) -> soundfile.SoundFile:
    try:
        if not path.is_file():
            raise CacheError(f"{shown(path)}: {'is no regular file' if path.exists() else 'there is no such file'}")
        if not path.stat().st_size:
            raise CacheError(f"{shown(path)}: is empty (0 bytes)")
        # As bytes, since soundfile takes no text that UTF-8 has no form for, and names may be any bytes.
        audio = soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))
    except OSError as error:
        raise CacheError(f"{shown(path)}: cannot be opened: {error.strerror or error}") from error
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        raise CacheError(f"{shown(path)}: is no audio that can be read: {_reason(error)}") from error
    rate, frames = audio.samplerate, audio.frames
    fault = None
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        fault = f"{rate} Hz, and speech has {LOWEST_RATE} to {HIGHEST_RATE} Hz"
    elif frames <= 0:
        fault = "holds no samples"
    elif frames > 2**62:
        fault = "does not say how long it is: decode it to a file that does"
    elif frames > LONGEST_SECONDS * rate:
        fault = f"{frames / rate:.0f} s long, and an utterance has up to {LONGEST_SECONDS} s: cut it into utterances"
    if fault is not None:
        audio.close()
        raise CacheError(f"{shown(path)}: {fault}")
    return audio


def _resampler(rate_in: int, rate_out: Fraction, path: Path) -> Graph | None:
    try:
        return _resampler_between(rate_in, rate_out)
    except AstrapeError as error:
        raise CacheError(f"{shown(path)}: {rate_in} Hz cannot be brought to {rate_out} Hz: {error}") from error


@lru_cache(maxsize=16)
def _resampler_between(rate_in: int, rate_out: Fraction) -> Graph | None:
    return resampling(rate_in, Stream(rate_out, 1))


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
