"""Losses against labels: which class each frame is of."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.training.objectives.content import weighted
from astrape.training.objectives.objective import Comparison, Objective, Total, register_loss

__all__ = ["CrossEntropy"]


@register_loss("cross_entropy")
class CrossEntropy(Objective):
    """Cross entropy of a head's logits and the class of each frame, nats.

    The signal's channels are the logits of as many classes. Frames whose label is below 0 are of no known class and do
    not count. Guessing scores ``log(classes)``.

    Args:
        source: rate and channels of the logits, at least 2.
        smoothing: share of the target that is spread over all classes evenly, 0 to 0.9; 0 by default.

    Raises:
        ValueError: for a single channel, a share out of range, and in use, for a label that has no channel.
    """

    compares: ClassVar[Comparison] = "labels"

    def __init__(self, source: Stream, *, smoothing: float = 0.0) -> None:
        super().__init__(source)
        if source.channels < 2:
            raise ValueError(f"the signal must have a channel for each class, 2 or more, not {source.channels}")
        if not 0 <= smoothing <= 0.9:
            raise ValueError(f"smoothing must be 0 to 0.9, not {smoothing!r}")
        self.smoothing = float(smoothing)

    def forward(self, signal: Tensor, target: Tensor, weights: Tensor, band: Tensor | None = None) -> Total:
        """The loss of a batch.

        Args:
            signal: ``(batch, classes, n)``.
            target: ``(batch, 1, n)`` int64.
            weights: ``(batch, 1, n)``, at least 0.
            band: does not matter.
        """
        rows = (signal.shape[0], 1, signal.shape[-1])
        if target.shape != rows or weights.shape != rows:
            raise ValueError(
                f"CrossEntropy takes a signal (batch, classes, n), labels (batch, 1, n) and weights (batch, 1, n), not "
                f"{tuple(signal.shape)}, {tuple(target.shape)} and {tuple(weights.shape)}"
            )
        absent = (weights <= 0) | (target < 0)
        weights = weights.masked_fill(absent, 0.0).to(signal.dtype)
        return self.measure(signal.masked_fill(absent, 0.0), target.masked_fill(absent, 0), weights)

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        highest = int(target.max()) if target.numel() else 0
        if highest >= signal.shape[1]:
            raise ValueError(
                f"the label {highest} has no channel: the signal has {signal.shape[1]}: give the head {highest + 1} or "
                f"more"
            )
        labels = target[:, 0]
        logs = F.log_softmax(signal, dim=1)
        right = logs.gather(1, labels.unsqueeze(1))
        entropy = -(1 - self.smoothing) * right - self.smoothing * logs.mean(dim=1, keepdim=True)
        return weighted(entropy, weights)
