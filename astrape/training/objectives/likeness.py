"""A loss by ear: whether a network that tells speakers apart hears the same one in two waveforms."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.blocks.mel import mel_filters
from astrape.blocks.parameters import check_real
from astrape.training.errors import TrainingError
from astrape.training.objectives.objective import Comparison, Objective, Total, register_loss
from astrape.training.objectives.spectrum import check_wave
from astrape.voice.evaluation.packages import absence
from astrape.voice.evaluation.resemblyzer import RESEMBLYZER, load_resemblyzer

__all__ = ["SpeakerLikeness"]

BANDS, TOP = 40, 8000.0
"""Bands of the network's mel spectrum, and the highest frequency that it hears, Hz."""

LEVEL = 10 ** (-30 / 20)
"""RMS to which quieter sound is raised, as the network was trained."""

SILENCE = 1e-3
"""RMS of a target, -60 dB, below which it counts as silent."""


@register_loss("speaker_likeness")
class SpeakerLikeness(Objective):
    """One less the cosine between what Resemblyzer hears in the signal and in the target, of an utterance each.

    0 for the same voice; of two people about 0.4. Spectra can be near each other and sound like two people, since
    what is averaged over frames is blurred alike for all; a network that was trained to tell people apart (generalised
    end-to-end loss, Wan et al., arXiv:1710.10467) hears that. What an evaluation measures with the same network is
    then no independent measure any more: look at another one beside it.

    The network is the package `resemblyzer` (Apache-2.0), 1.4 million frozen weights that are neither trained nor part
    of a checkpoint. It hears 40 mel bands of 25 ms every 10 ms. An utterance counts where its target is not silent.

    Args:
        source: the waveform's rate, 16 kHz or more, one channel.
        seconds: heard of the middle of each window, 0.4 to 10; 1.6 by default, as the network was trained with.

    Raises:
        ValueError: for a lower rate, more than one channel or a number out of range.
        TrainingError: where the package is missing.
    """

    compares: ClassVar[Comparison] = "samples"

    def __init__(self, source: Stream, *, seconds: float = 1.6) -> None:
        super().__init__(source)
        check_wave(source)
        rate = float(source.rate)
        if rate < 2 * TOP:
            raise ValueError(f"speaker_likeness hears up to {TOP:g} Hz, and {rate:g} Hz holds {rate / 2:g}")
        self.frames = round(100 * check_real("seconds", seconds, 0.4, 10))
        self.n_fft, self.hop = round(rate / 40), round(rate / 100)
        self.gain = (400 / self.n_fft) ** 2
        filters = torch.from_numpy(mel_filters(BANDS, self.n_fft, rate, 0.0, TOP)).float()
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        # In a list, so that it is neither trained nor saved.
        self._network: list[Any] = []
        if reason := absence([RESEMBLYZER]):
            raise TrainingError(f"speaker_likeness: {reason}; hint: pip install 'astrape[default]'")

    filters: Tensor
    window: Tensor

    def voice(self, wave: Tensor) -> Tensor:
        """``(batch, 1, samples)`` to who speaks, ``(batch, 256)`` of length 1."""
        if not self._network:
            self._network.append(_frozen())
        network = self._network[0].to(wave.device)
        rms = wave.detach().float().square().mean(dim=-1, keepdim=True).sqrt()
        heard = wave.float() * (LEVEL / rms.clamp(min=1e-6)).clamp(min=1.0)
        spectra = torch.stft(
            heard.squeeze(1), self.n_fft, self.hop, window=self.window.float(), pad_mode="constant", return_complex=True
        )
        power = self.gain * (spectra.real.square() + spectra.imag.square())
        mel = (self.filters.float() @ power).transpose(1, 2)
        skipped = max(0, (mel.shape[1] - self.frames) // 2)
        _, (hidden, _) = network.lstm(mel[:, skipped : skipped + self.frames])
        return F.normalize(torch.relu(network.linear(hidden[-1])), dim=1)

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        with torch.no_grad():
            wanted = self.voice(target)
        spoken = (target.square().mean(dim=(1, 2)).sqrt() > SILENCE).to(signal.dtype)
        count = spoken * weights.sum(dim=(1, 2))
        return Total(((1 - (self.voice(signal) * wanted).sum(dim=1)).to(count) * count).sum(), count.sum())


def _frozen() -> Any:
    # Some devices have gradients of recurrent layers in training mode alone; there is no dropout in these.
    network = load_resemblyzer().network.train()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network
