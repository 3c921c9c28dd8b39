"""Excerpts of recordings for the page, with spectrogram and pitch."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from astrape.audio.writer import flac_bytes
from astrape.voice.evaluation.pitch import PitchTrack
from astrape.voice.evaluation.recording import Recording, Samples

__all__ = ["EXCERPT_SECONDS", "HIGHEST", "LOWEST", "Excerpt", "curve", "height", "player", "spectrogram"]

EXCERPT_SECONDS = 30.0
"""Seconds of a recording that the page holds: it is one file, and an hour of audio would make it unusable."""

HIGHEST_RATE = 48000
"""Hz, which every browser plays."""

LOWEST, HIGHEST = 60.0, 20000.0
RANGE_DB = 70.0
ROWS, MOST_COLUMNS, COLOURS = 144, 640, 64
RATE = 44100
WINDOW_SECONDS, HOP_SECONDS = 0.04, 0.01

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Excerpt:
    """An excerpt as a data address, and how long it is."""

    address: str
    seconds: float


def player(recording: Recording) -> Excerpt:
    """The first 30 s, one channel, as FLAC of 16 bits: lossless, half of WAV, and every browser plays it."""
    rate = min(recording.rate, HIGHEST_RATE)
    samples = next(recording.pieces(rate, EXCERPT_SECONDS))
    return Excerpt(_address("audio/flac", flac_bytes(samples, rate)), len(samples) / rate)


def spectrogram(recording: Recording) -> str:
    """Level over time and the logarithm of frequency, 60 Hz to 20 kHz, 70 dB of it, as the address of a PNG.

    Raises:
        ImportError: when matplotlib is not installed, whose colours these are.
    """
    from matplotlib import colormaps
    from PIL import Image

    samples = next(recording.pieces(RATE, EXCERPT_SECONDS))
    level = _levels(samples)
    index = np.clip((level - level.max()) / RANGE_DB + 1, 0, 1) * (COLOURS - 1)
    image = Image.fromarray(index.round().astype(np.uint8)[::-1], mode="P")
    colours = (np.asarray(colormaps["magma"](np.linspace(0, 1, COLOURS)))[:, :3] * 255).round().astype(np.uint8)
    image.putpalette(colours.tobytes())
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return _address("image/png", content.getvalue())


def curve(track: PitchTrack, seconds: float) -> list[list[tuple[float, float]]]:
    """Stretches of voiced frames, as points: time as a share of ``seconds``, and height as a share of the picture."""
    shown = track.hertz[: max(1, round(seconds * track.rate))]
    stretches: list[list[tuple[float, float]]] = []
    previous = 0.0
    for index, hertz in enumerate(shown.tolist()):
        if hertz <= 0:
            previous = 0.0
            continue
        # A leap of more than half an octave is a slip of the tracker: no line is drawn across it.
        if not previous or abs(np.log2(hertz / previous)) > 0.5:
            stretches.append([])
        stretches[-1].append((index / track.rate / seconds, height(hertz)))
        previous = hertz
    return stretches


def height(hertz: float) -> float:
    """The height of a frequency: 0 at the bottom, 1 at the top."""
    return float(np.clip(np.log(hertz / LOWEST) / np.log(HIGHEST / LOWEST), 0, 1))


def _levels(samples: Samples) -> Rows:
    """``(ROWS, columns)``, dB."""
    length, hop = round(WINDOW_SECONDS * RATE), round(HOP_SECONDS * RATE)
    padded = np.pad(samples, (length // 2, length))
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[: len(samples) + 1 : hop]
    size = 4 * length
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(length), n=size)))
    wanted = LOWEST * (HIGHEST / LOWEST) ** (np.arange(ROWS) / (ROWS - 1))
    # The nearest bin below 700 Hz or so, the loudest of all that share a row above: no harmonic falls between rows.
    edges = np.clip(np.round(wanted * size / RATE).astype(int), 0, size // 2)
    ends = np.maximum(edges + 1, np.append(edges[1:], edges[-1] + 1))
    rows = np.stack([power[:, a:b].max(axis=1) for a, b in zip(edges, ends, strict=True)])
    return 10 * np.log10(_thinned(rows) + 1e-12)


def _thinned(rows: Rows) -> Rows:
    """At most ``MOST_COLUMNS`` columns, each the mean of neighbours."""
    step = -(-rows.shape[1] // MOST_COLUMNS)
    if step == 1:
        return rows
    starts: Sequence[int] = range(0, rows.shape[1], step)
    return np.stack([rows[:, start : start + step].mean(axis=1) for start in starts], axis=1)


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
