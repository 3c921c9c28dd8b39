"""A teacher without packages or weights: cepstra that look both ways, and the long-term spectrum of a voice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from astrape.blocks.mel import mel_filters
from astrape.training.teachers.teacher import Limited, checked_audio
from astrape.voice.embedding import CHANNELS
from astrape.voice.speaker import MelStatistics

__all__ = ["SpectralTeacher"]

BANDS = 40
CEPSTRA = 12
HOP = 160
N_FFT = 512
STEPS = 4
"""Mel frames of 10 ms in a content frame of 40 ms."""

REACH = 4
"""Mel frames on each side of a content frame's own that are averaged into it."""

SLOPE = 2
"""Content frames on each side that a slope is fitted to."""

FLOOR = 1e-8
QUIET = 1e-3
"""Standard deviations below this, of cepstra in nepers, count as none: a cepstrum that stands still is 0 throughout."""


class SpectralTeacher(Limited):
    """Smoothed cepstra, normalised over the utterance, and :class:`~astrape.voice.speaker.MelStatistics`.

    For tests, for runs in CI, and as what any learned teacher has to beat. Content is 24 channels at 25 Hz:

    1. power spectrum of 32 ms Hann windows, centred on frames of 10 ms, silence beyond both ends,
    2. 40 mel bands from 60 Hz to 7.6 kHz, their natural logarithm, orthonormal cosine transform, the first 12
       cepstra (Davis & Mermelstein, 1980),
    3. a Hann-weighted mean over 120 ms about each frame of 40 ms, three frames in all,
    4. their slopes over two frames on each side, by least squares (Furui, "Speaker-independent isolated word
       recognition using dynamic features of speech spectrum", IEEE Trans. ASSP, 1986), as 12 channels more,
    5. each channel less its mean over the utterance and by its standard deviation: level, microphone and much of the
       voice are in these (cepstral mean and variance normalisation).

    A frame thus rests on audio up to 120 ms after its end and, by the normalisation, on all of the utterance: what a
    causal student has to make up from what it has heard.
    """

    name = "astrape/spectral-v1"
    use = "spectral"
    lacks: ClassVar[Mapping[str, str]] = {
        "codes": "its content is continuous",
        "decoder": "smoothed cepstra lack pitch and fine structure",
    }
    sample_rate = 16000
    content_rate = Fraction(25)
    content_channels = 2 * CEPSTRA
    speaker_channels = CHANNELS

    def __init__(self) -> None:
        filters = mel_filters(BANDS, N_FFT, self.sample_rate, 60.0, 7600.0)
        self._filters = torch.from_numpy(filters)
        order, band = np.arange(CEPSTRA)[:, None], np.arange(BANDS)[None, :]
        cosines = np.cos(np.pi * order * (band + 0.5) / BANDS) * math.sqrt(2 / BANDS)
        cosines[0] /= math.sqrt(2)
        self._cosines = torch.from_numpy(cosines)
        self._window = torch.hann_window(N_FFT, dtype=torch.float64)
        taps = STEPS + 2 * REACH
        hann = np.sin(np.pi * (np.arange(taps) + 0.5) / taps) ** 2
        self._weights = torch.from_numpy(hann).reshape(1, 1, -1)
        self._speakers = MelStatistics()

    @torch.no_grad()
    def content(self, audio: Tensor) -> Tensor:
        """See :class:`~astrape.training.teachers.teacher.Teacher`; one content frame for each whole 40 ms."""
        audio = checked_audio(audio, self.sample_rate, 0.04)
        batch, frames = audio.shape[0], audio.shape[2] // (HOP * STEPS)
        smooth = self._smoothed(self._cepstra(audio.cpu().double()), frames)
        features = torch.cat((smooth, self._slopes(smooth)), dim=1)
        centred = features - features.mean(2, keepdim=True)
        spread = centred.square().mean(2, keepdim=True).sqrt()
        scaled = torch.where(spread > QUIET, centred / spread.clamp(min=QUIET), torch.zeros_like(centred))
        return scaled.reshape(batch, self.content_channels, frames).to(audio)

    @torch.no_grad()
    def speaker(self, audio: Tensor) -> Tensor:
        """Statistics of the spectrum, not trained on anything; see ``MelStatistics``."""
        audio = checked_audio(audio, self.sample_rate, 0.25)
        return torch.stack([self._speakers.embed(one[0]) for one in audio]).to(audio)

    def _cepstra(self, audio: Tensor) -> Tensor:
        """``(batch, 1, samples)`` to ``(batch, cepstra, 10 ms frames)``."""
        side = (N_FFT - HOP) // 2
        framed = functional.pad(audio[:, 0], (side, side)).unfold(1, N_FFT, HOP)
        power: Tensor = torch.fft.rfft(framed * self._window).abs().square()
        bands = (power @ self._filters.T).clamp(min=FLOOR).log()
        cepstra: Tensor = bands @ self._cosines.T
        return cepstra.transpose(1, 2)

    def _smoothed(self, cepstra: Tensor, frames: int) -> Tensor:
        """10 ms frames averaged about each of 40 ms; at the ends over fewer."""
        batch, channels, count = cepstra.shape
        flat = cepstra.reshape(batch * channels, 1, count)
        heard = functional.conv1d(torch.ones(1, 1, count, dtype=flat.dtype), self._weights, stride=STEPS, padding=REACH)
        summed = functional.conv1d(flat, self._weights, stride=STEPS, padding=REACH)
        return (summed / heard)[..., :frames].reshape(batch, channels, frames)

    def _slopes(self, smooth: Tensor) -> Tensor:
        padded = functional.pad(smooth, (SLOPE, SLOPE), mode="replicate")
        frames = smooth.shape[2]
        rise = torch.zeros_like(smooth)
        for step in range(1, SLOPE + 1):
            rise += step * (padded[..., SLOPE + step :][..., :frames] - padded[..., SLOPE - step :][..., :frames])
        return rise / (2 * sum(step * step for step in range(1, SLOPE + 1)))
