"""The colour of a target voice, drawn anew: what is heard of it and what the speaker's numbers say of it move together.

A corpus has as many voices as it has. A smooth filter over a target makes another one, and the measured part of an
embedding of ``astrape-speaker``, its tone, is linear in the logarithm of the spectrum: so the numbers of the filtered
voice are known without embedding it again. A decoder that is trained on such voices learns to take the colour from the
numbers, of voices that it never heard too.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from astrape.blocks.mel import mel_filters
from astrape.graph.checksums import read_tensors
from astrape.graph.weights import shipped_weights
from astrape.training.errors import TrainingError
from astrape.voice.names import ASTRAPE_SPEAKER

__all__ = ["coloured", "draw_colour"]

KNOTS = np.concatenate(([40.0], np.geomspace(120, 11500, 7), [22050.0]))
"""Hz, where gains are drawn; between them the logarithm of the gain is linear in that of the frequency."""

UNCOLOURED = 0.35
"""Share of the targets that stay as they are."""

BINS, N_FFT, RATE = 64, 512, 16000
"""Bins, length and rate of the mel spectrum in ``astrape-speaker``."""

Float64 = npt.NDArray[np.float64]


def draw_colour(random: np.random.Generator, most: float) -> Float64:
    """Natural logarithms of gains at nine frequencies, without their mean over the band of speech.

    Args:
        random: drawn from.
        most: standard deviation of a gain, dB, of the most coloured targets; others have any share of it, and a third
            of them none.
    """
    gains = random.normal(size=len(KNOTS)) * random.random() * most * np.log(10) / 20
    if random.random() < UNCOLOURED:
        gains[:] = 0
    gains[1] = (gains[0] + gains[1]) / 2
    colour: Float64 = gains - gains[1:7].mean()
    return colour


def coloured(wave: Tensor, vector: Tensor, colour: Float64, rate: float) -> tuple[Tensor, Tensor]:
    """A target's window and its speaker's numbers in another colour.

    Args:
        wave: ``(1, samples)``; the filter has no phase, and rings into both ends of the window for some milliseconds.
        vector: ``(128,)`` in the space of ``astrape-speaker``.
        colour: as :func:`draw_colour` gives it.
        rate: of ``wave``, Hz.

    Raises:
        TrainingError: for a vector that has no tone.
    """
    tone = _tone()
    if len(vector) <= len(tone):
        raise TrainingError(
            f"a speaker has {len(vector)} numbers, and the last 32 of 128 are the tone that a colour changes: hint: "
            f"take colour out of pairs, or speakers of {ASTRAPE_SPEAKER}"
        )
    samples = wave.shape[-1]
    padded = 2 * samples
    gain = torch.from_numpy(np.exp(_gains(colour, np.fft.rfftfreq(padded, 1 / rate).astype(np.float64)))).to(wave.dtype)
    filtered = torch.fft.irfft(torch.fft.rfft(wave, padded) * gain, padded)[..., :samples]
    moved = vector.clone()
    moved[-len(tone) :] += torch.from_numpy(tone @ _gains(colour, _centres())).to(vector.dtype)
    return filtered, moved


def _gains(colour: Float64, hertz: Float64) -> Float64:
    gains: Float64 = np.interp(np.log(np.maximum(hertz, KNOTS[0])), np.log(KNOTS), colour)
    return gains


@cache
def _centres() -> Float64:
    """Centres of the mel filters, Hz."""
    filters = mel_filters(BINS, N_FFT, RATE)
    centres: Float64 = filters @ np.linspace(0, RATE / 2, N_FFT // 2 + 1) / filters.sum(axis=1)
    return centres


@cache
def _tone() -> Float64:
    """The matrix from the mean log mel spectrum to the tone, ``(32, 64)``, of the weights that ship."""
    path = shipped_weights(ASTRAPE_SPEAKER)
    if path is None:
        raise TrainingError(f"colour takes the weights of '{ASTRAPE_SPEAKER}', which are not in this installation")
    return np.asarray(read_tensors(path)["tone.weight"][:, :BINS], np.float64)
