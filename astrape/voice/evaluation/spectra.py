"""Spectral distances: to the reference, where there is one, and to the source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from astrape.blocks.mel import mel_filters
from astrape.voice.evaluation.context import Context, Tools
from astrape.voice.evaluation.errors import MetricError
from astrape.voice.evaluation.metric import Quantity
from astrape.voice.evaluation.packages import Package
from astrape.voice.evaluation.recording import Recording, Samples

__all__ = ["SpectralDistance", "power_spectra", "spectral_distances"]

WINDOW_SECONDS, HOP_SECONDS = 0.032, 0.008
FLOOR_DB = -80.0
"""Relative to a sine of full scale. Without a floor, digital silence would be infinitely far from anything."""

HIGHEST_RATE = 44100
BINS = 80
PIECE_SECONDS = 10.0

Spectra = npt.NDArray[np.float64]


class SpectralDistance:
    """Log-spectral distance (Gray & Markel, IEEE Trans. ASSP, 1976) and the distance of mel bands.

    Of 32 ms Hann windows every 8 ms, at the lower of the two rates and at most 44.1 kHz, with a floor at -80 dB of a
    full-scale sine. Levels count: a result that is 6 dB louder is 6 dB away.
    """

    name = "spectrum"
    packages: tuple[Package, ...] = ()
    quantities = (
        Quantity(
            "log_spectral_distance",
            "Log-spectral distance",
            "dB",
            "lower",
            "mean over frames of the root mean square over frequencies of the difference from the reference",
            frozenset({"reference"}),
            2,
        ),
        Quantity(
            "mel_distance",
            "Mel distance",
            "dB",
            "lower",
            "mean difference of 80 mel bands from the reference's",
            frozenset({"reference"}),
            2,
        ),
        Quantity(
            "log_spectral_distance_source",
            "Log-spectral distance to source",
            "dB",
            None,
            "the same to the source: how far conversion has gone",
            digits=2,
        ),
        Quantity("mel_distance_source", "Mel distance to source", "dB", None, "the same in mel bands", digits=2),
    )

    def __init__(self, tools: Tools) -> None:
        del tools

    def score(self, context: Context) -> dict[str, float]:
        log_spectral, mel = _distances(context.source, context.converted)
        scores = {"log_spectral_distance_source": log_spectral, "mel_distance_source": mel}
        if context.reference is not None:
            if context.reference.path != context.source.path:
                log_spectral, mel = _distances(context.reference, context.converted)
            scores |= {"log_spectral_distance": log_spectral, "mel_distance": mel}
        return scores

    def pooled(self, parts: Sequence[object]) -> dict[str, float]:
        return {}


def _distances(reference: Recording, heard: Recording) -> tuple[float, float]:
    rate = min(reference.rate, heard.rate, HIGHEST_RATE)
    return spectral_distances(reference.pieces(rate, PIECE_SECONDS), heard.pieces(rate, PIECE_SECONDS), rate)


def spectral_distances(reference: Iterable[Samples], heard: Iterable[Samples], rate: int) -> tuple[float, float]:
    """Log-spectral and mel distance in dB, over the frames that both have.

    With levels ``a`` and ``b`` in dB, ``(frames, frequencies)``: the mean over frames of ``sqrt(mean((a - b)^2))``, and
    the mean of ``|a - b|`` in mel bands.

    Args:
        reference, heard: pieces of one size, but for the last.
        rate: Hz.

    Raises:
        MetricError: when one of them has not a single frame.
    """
    bands = _bands(rate)
    total_lsd = total_mel = 0.0
    frames = 0
    for a, b in zip(power_spectra(reference, rate), power_spectra(heard, rate), strict=False):
        a, b = a[: len(b)], b[: len(a)]
        difference = _decibels(a) - _decibels(b)
        total_lsd += float(np.sqrt(np.square(difference).mean(axis=1)).sum())
        total_mel += float(np.abs(_decibels(a @ bands) - _decibels(b @ bands)).mean(axis=1).sum())
        frames += len(a)
    if not frames:
        raise MetricError(f"source or result is shorter than a frame, {WINDOW_SECONDS * 1000:g} ms")
    return total_lsd / frames, total_mel / frames


def power_spectra(pieces: Iterable[Samples], rate: int) -> Iterator[Spectra]:
    """Power of Hann windows, ``(frames, frequencies)`` a piece, relative to a full-scale sine.

    The frames of all pieces together do not depend on how the sound is cut, as long as each piece is longer than a hop.
    """
    length, hop = _frame(rate)
    window = np.hanning(length + 1)[:-1]
    scale = (window.sum() / 2) ** 2
    held = np.zeros(0, np.float32)
    for piece in pieces:
        held = np.concatenate((held, piece))
        if len(held) >= length:
            framed = np.lib.stride_tricks.sliding_window_view(held, length)[::hop]
            yield np.square(np.abs(np.fft.rfft(framed * window))) / scale
            held = held[len(framed) * hop :]
        else:
            # Frames of the other sound must meet their own.
            yield np.zeros((0, length // 2 + 1))


def _frame(rate: int) -> tuple[int, int]:
    return 2 * round(WINDOW_SECONDS * rate / 2), round(HOP_SECONDS * rate)


@lru_cache(maxsize=8)
def _bands(rate: int) -> Spectra:
    """Mel filters whose weights sum to 1, ``(frequencies, bands)``; as many of 80 as the resolution has bins for."""
    size = _frame(rate)[0]
    bins = BINS
    while True:
        try:
            filters = mel_filters(bins, size, rate)
        except ValueError:
            bins -= 4
            continue
        return np.asarray((filters / filters.sum(axis=1, keepdims=True)).T)


def _decibels(power: Spectra) -> Spectra:
    return 10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10)))
