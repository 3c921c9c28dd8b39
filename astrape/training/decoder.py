"""Validation of a decoder on speakers it was not trained on: numbers, sounds and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.training.learner import Batch, Learner
from astrape.training.measures import Sums
from astrape.training.objectives import LogMel, MultiResolutionSTFT, Total

__all__ = ["DecoderValidation", "spectrograms"]

SAMPLES = 3
"""Count of validation windows kept as audio and spectrograms."""


class DecoderValidation:
    """Distances between the waveform that was made and the true one, as late as it, over all validation windows.

    ::

        mel_distance       mean difference of log mel spectra, nats, 80 bands
        stft_distance      spectral convergence and log magnitudes at 512, 1024 and 2048 samples
        mel_of_silence, stft_of_silence     what silence scores: to be beaten
        mel_of_mean_spectrum                what the best constant spectrum of each window scores, known beforehand

    Args:
        of: the output that is the waveform.
        source: its stream.
        device: where to measure.
        to: the batch's key of the true waveform; the microphone's by default.
    """

    best = "mel_distance"
    higher_is_better = False

    def __init__(self, of: str, source: Stream, device: torch.device | str = "cpu", to: str = "audio") -> None:
        self.of, self.to = of, to
        self.rate = int(source.rate)
        n_fft = min(2048, 1 << max(6, (self.rate // 22).bit_length()))
        self.mel = LogMel(source, bins=min(80, n_fft // 16), n_fft=n_fft).to(device)
        self.stft = MultiResolutionSTFT(source, sizes=[n_fft // 4, n_fft // 2, n_fft]).to(device)
        self.kept: list[tuple[Tensor, Tensor]] = []

    @property
    def outputs(self) -> list[str]:
        """Outputs of the graph that validation needs."""
        return [self.of]

    @torch.no_grad()
    def __call__(
        self, learner: Learner, batches: Callable[[], Iterable[Batch]], accelerator: Accelerator
    ) -> dict[str, float]:
        """Measure on batches, of which each process has its own. The first windows are kept, target and made."""
        sums, self.kept = Sums(), []
        learner.part.eval()
        for batch in batches():
            signals = learner.signals(batch)
            made = signals[self.of]
            wave, weights = learner.waveform(self.of, batch[self.to], batch, made.shape[-1])
            self.measure_more(learner, batch, signals, sums)
            silence = torch.zeros_like(wave)
            sums.add("mel_distance", self.mel(made, wave, weights))
            sums.add("stft_distance", self.stft(made, wave, weights))
            sums.add("mel_of_silence", self.mel(silence, wave, weights))
            sums.add("stft_of_silence", self.stft(silence, wave, weights))
            sums.add("mel_of_mean_spectrum", self._mean_spectrum(wave, weights))
            for row in range(min(len(made), SAMPLES - len(self.kept))):
                there = weights[row, 0] > 0
                self.kept.append((wave[row, :, there].cpu(), made[row, :, there].cpu()))
        return sums.means(accelerator)

    def measure_more(self, learner: Learner, batch: Batch, signals: dict[str, Tensor], sums: Sums) -> None:
        """Further measurements on a batch; none by default."""

    def _mean_spectrum(self, wave: Tensor, weights: Tensor) -> Total:
        weight = self.mel.spectrum.frame_weights(weights)
        bands = self.mel.bands(wave)
        mean = (bands * weight).sum(dim=-1, keepdim=True) / weight.sum(dim=-1, keepdim=True).clamp(min=1e-9)
        return Total(((bands - mean).abs().mean(dim=1, keepdim=True) * weight).sum(), weight.sum())


def spectrograms(target: Tensor, made: Tensor, rate: int) -> Any:
    """A figure of two waveforms ``(1, samples)``: the target above, what was made below."""
    from matplotlib.figure import Figure

    # Places are fixed: to have matplotlib find them takes longer than all the rest.
    figure = Figure(figsize=(8, 5), dpi=80)
    panels = [figure.add_axes((0.09, bottom, 0.78, 0.41)) for bottom in (0.56, 0.1)]
    level = _level(target, rate), _level(made, rate)
    loudest = max(float(level[0].max()), -60.0)
    seconds = target.shape[-1] / rate
    for axes, name, picture in zip(panels, ("target", "made"), level, strict=True):
        image = axes.imshow(
            np.clip(picture - loudest, -80, 0),
            origin="lower",
            aspect="auto",
            extent=(0, seconds, 0, rate / 2000),
            cmap="magma",
            vmin=-80,
            vmax=0,
        )
        axes.set_ylabel(f"{name}, kHz")
    panels[-1].set_xlabel("s")
    figure.colorbar(image, cax=figure.add_axes((0.9, 0.2, 0.02, 0.6)), label="dB")
    return figure


def _level(wave: Tensor, rate: int) -> Any:
    size = 1024 if rate > 22050 else 512
    padded = torch.nn.functional.pad(wave[0].float(), (0, max(0, size - wave.shape[-1])))
    window = torch.hann_window(size)
    frames = padded.unfold(0, size, size // 4) * window
    power = torch.fft.rfft(frames).abs().square() / window.square().sum()
    return (10 * torch.log10(power + 1e-12)).T.numpy()
