"""An adversary that tells speakers apart, and whose gradient is turned round on its way back."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrape.blocks.base import Stream
from astrape.blocks.parameters import LARGEST_COUNT, bounded
from astrape.training.objectives.objective import Comparison, Objective, Total, register_loss

__all__ = ["SpeakerAdversary", "reversal_strength", "reverse_gradient"]


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """``x`` itself, with ``-strength`` times the gradient (Ganin & Lempitsky, ICML 2015, equations 10 and 11)."""
    reversed_: Tensor = _Reversal.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_


def reversal_strength(progress: float, steepness: float = 10.0) -> float:
    """Ganin & Lempitsky's schedule: ``2 / (1 + exp(-steepness p)) - 1``, from 0 at the start to nearly 1.

    A classifier that still guesses has a gradient that means nothing, so the encoder hears little of it at first.

    Args:
        progress: share of the training that is done, 0 to 1.
        steepness: 10 as in the paper, which reaches 0.46 after a tenth.
    """
    return 2 / (1 + math.exp(-steepness * min(max(progress, 0.0), 1.0))) - 1


@register_loss("speaker_adversary")
class SpeakerAdversary(Objective):
    """Cross entropy of a small classifier that names the speaker from the mean of an utterance's valid frames.

    The classifier, a linear layer, ReLU and a linear layer, learns to tell speakers apart; what it reads gets the
    gradient turned round and scaled by :attr:`strength`, so learns to give nothing away. Each utterance with a valid
    frame counts 1. Chance scores ``log(speakers)``.

    Args:
        source: rate and channels of the signal.
        speakers: how many there are, at least 2.
        hidden: width between the two layers; 256 by default.

    Attributes:
        net: the classifier, ``net.0`` and ``net.2``.
        strength: what the reversed gradient is multiplied by; 1 at first. The trainer sets it, for instance to
            :func:`reversal_strength`.

    Raises:
        ValueError: for fewer than two speakers, or a width out of range.
    """

    compares: ClassVar[Comparison] = "speakers"

    def __init__(self, source: Stream, *, speakers: int, hidden: int = 256) -> None:
        super().__init__(source)
        if speakers < 2:
            raise ValueError(f"speakers must be at least 2 to tell them apart, not {speakers}: leave the loss out")
        bounded("hidden", hidden, 1, LARGEST_COUNT)
        self.strength = 1.0
        self.net = nn.Sequential(nn.Linear(source.channels, hidden), nn.ReLU(), nn.Linear(hidden, speakers))

    def forward(self, signal: Tensor, target: Tensor, weights: Tensor, band: Tensor | None = None) -> Total:
        """The loss of a batch.

        Args:
            signal: ``(batch, channels, n)``.
            target: the speaker's index, ``(batch,)``, int64.
            weights: ``(batch, 1, n)``; all frames above 0 count alike in the mean.
            band: does not matter.
        """
        if target.shape != signal.shape[:1] or weights.shape != (signal.shape[0], 1, signal.shape[-1]):
            raise ValueError(
                f"SpeakerAdversary takes a signal (batch, channels, n), speakers (batch,) and weights (batch, 1, n), "
                f"not {tuple(signal.shape)}, {tuple(target.shape)} and {tuple(weights.shape)}"
            )
        return self.measure(signal, target, weights)

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        present = (weights > 0).sum(dim=-1)
        valid = (present > 0).squeeze(1).to(signal.dtype)
        pooled = signal.masked_fill(weights <= 0, 0.0).sum(dim=-1) / present.clamp(min=1)
        scores = self.net(reverse_gradient(pooled, self.strength))
        return Total((F.cross_entropy(scores, target, reduction="none") * valid).sum(), valid.sum())
