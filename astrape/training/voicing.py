"""Voicing of content frames: voiced ones weigh more in the losses of an encoder."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.blocks.pitch import PitchTracker

__all__ = ["voiced_frames"]

RATE = 16000


def voiced_frames(audio: Tensor, rate: Fraction, frames: int) -> Tensor:
    """1 where at least half of a frame's time has a pitch, 0 elsewhere: ``(1, frames)`` uint8.

    The pitch is that of :class:`~astrape.blocks.pitch.PitchTracker`, 60 to 800 Hz in steps of 10 ms, moved back by its
    latency. A frame that begins after the audio's end is unvoiced.

    Args:
        audio: ``(1, 1, samples)`` at 16 kHz.
        rate: frames a second.
        frames: how many to judge; frame ``j`` lasts from ``j / rate`` to ``(j + 1) / rate`` seconds.
    """
    tracker = _tracker()
    hop, late = tracker.quantum, int(tracker.latency * tracker.rate_out)
    steps = -(-audio.shape[-1] // hop)
    padded = torch.nn.functional.pad(audio, (0, (steps + late) * hop - audio.shape[-1]))
    with torch.inference_mode():
        voiced = (tracker(padded)[0, 0, late:] > 0).double()
    sums = torch.cat((torch.zeros(1, dtype=torch.float64), voiced.cumsum(0)))
    # Up to any moment, as a line between the ends of the tracker's frames: a content frame may end within one.
    step = tracker.rate_out / rate
    ends = torch.tensor([min(float(j * step), float(steps)) for j in range(frames + 1)], dtype=torch.float64)
    whole = ends.floor().long().clamp(max=steps)
    after = torch.cat((voiced, torch.zeros(1, dtype=torch.float64)))[whole]
    until = sums[whole] + (ends - whole) * after
    share = until.diff() / float(step)
    return (share >= 0.5 - 1e-9).to(torch.uint8).unsqueeze(0)


@cache
def _tracker() -> PitchTracker:
    return PitchTracker(Stream(RATE, 1))
