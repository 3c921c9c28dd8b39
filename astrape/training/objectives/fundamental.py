"""Supervision of a source filter: its fundamental and its voicing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.blocks.parameters import check_real
from astrape.training.objectives.content import weighted
from astrape.training.objectives.objective import Objective, Total, register_loss

__all__ = ["Fundamental"]

LEAST_HZ = 1.0
"""Below every fundamental: keeps the logarithm of a wrong one finite."""


@register_loss("f0")
class Fundamental(Objective):
    """Error of the fundamental where the target is voiced, octaves, plus the cross entropy of the voicing.

    Signal and target have two channels: the fundamental in Hz and, from 0 to 1, how sure it is. A target of 0 Hz is
    unvoiced; its second channel is not read, so what :class:`~astrape.blocks.pitch.PitchTracker` gives fits as it is. A
    frame a whole tone off and certain of its voicing scores 1/6.

    Args:
        source: rate of the signal, two channels.
        voicing: weight of the cross entropy, 0 to 100; 1 by default.

    Raises:
        ValueError: for another number of channels, or a weight out of range.
    """

    def __init__(self, source: Stream, *, voicing: float = 1.0) -> None:
        super().__init__(source)
        if source.channels != 2:
            raise ValueError(f"the signal must be 2 channels, f0 in Hz and voicing, not {source.channels}")
        self.voicing = check_real("voicing", voicing, 0.0, 100.0)

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        f0, sureness = signal.chunk(2, dim=1)
        wanted = target[:, :1]
        voiced = (wanted > 0).to(signal.dtype)
        octaves = (f0.clamp(min=LEAST_HZ).log2() - wanted.clamp(min=LEAST_HZ).log2()).abs()
        edge = torch.finfo(signal.dtype).eps
        entropy = F.binary_cross_entropy(sureness.clamp(edge, 1 - edge), voiced, reduction="none")
        return weighted(octaves * voiced + self.voicing * entropy, weights)
