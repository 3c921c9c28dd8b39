"""Effects of microphone, room and line on speech, applied to log mel spectra, which is cheaper than to sound."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["augmented"]

SILENCE = 1e-5
"""The least magnitude in the recipe's mel block."""

NEPERS = 8.685889638
"""Decibels in a natural logarithm of a magnitude."""

FRAME = 0.02
HALF_THE_TIME = 0.5


def augmented(mel: Tensor, random: torch.Generator) -> Tensor:
    """Each spectrogram of ``(batch, bins, frames)`` changed in its own way, drawn anew.

    In the order in which sound meets them: a room (an exponential tail of 0.1 to 0.6 s, half of the time), noise of a
    smooth random spectrum with an exponential distribution of power (5 to 35 dB, three quarters of the time), an
    equaliser (a smooth curve of 4 dB), a band limit (one in four: telephone or a dull microphone), gain (12 dB).
    """
    batch, bins, frames = mel.shape

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random)

    def chosen(share: float) -> Tensor:
        return (draw(batch, 1, 1) < share).float()

    power = (2 * mel).exp()
    # The power of a tail that falls by 60 dB in `seconds`, by its recursion over frames.
    seconds, level = 0.1 + 0.5 * draw(batch, 1), 10 ** (-(3 + 12 * draw(batch, 1)) / 10)
    fall = 10 ** (-6 * FRAME / seconds)
    share = level * (1 - fall) * chosen(HALF_THE_TIME)[:, 0]
    tail, late = torch.zeros(batch, bins), []
    for frame in range(frames):
        tail = fall * tail + share * power[..., frame]
        late.append(tail)
    power = power + torch.stack(late, dim=-1)
    ratio = 10 ** (-(5 + 30 * draw(batch, 1, 1)) / 10) * chosen(0.75)
    colour = (_smooth(batch, bins, 10.0, random) / NEPERS * 2).exp()
    noise = colour * -(draw(batch, bins, frames).clamp(min=1e-6)).log()
    power = power + noise * ratio * power.mean(dim=(1, 2), keepdim=True) / colour.mean(dim=1, keepdim=True)
    shift = _smooth(batch, bins, 4.0, random) + 12 * (2 * draw(batch, 1, 1) - 1)
    band = torch.arange(bins)[None, :, None].float()
    low, high = 8 * draw(batch, 1, 1), bins * (0.6 + 0.4 * draw(batch, 1, 1))
    outside = (low - band).clamp(min=0) + (band - high).clamp(min=0)
    shift = shift - chosen(0.25) * 12 * outside.clamp(max=4)
    changed = 0.5 * power.log() + shift / NEPERS
    return changed.clamp(min=float(torch.tensor(SILENCE).log()))


def _smooth(batch: int, bins: int, decibels: float, random: torch.Generator) -> Tensor:
    """Curves over the bins, ``(batch, bins, 1)``: 6 random points with straight lines between them."""
    points = decibels * torch.randn(batch, 1, 6, generator=random)
    return torch.nn.functional.interpolate(points, size=bins, mode="linear", align_corners=True).transpose(1, 2)
