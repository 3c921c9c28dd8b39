"""Losses between the frames of a student and a teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.blocks.parameters import check_real
from astrape.training.objectives.objective import Objective, Total, register_loss

__all__ = ["L1", "MSE", "Cosine", "InfoNCE", "SecondDifference", "SmoothL1Delta", "joint_weights", "weighted"]


def weighted(error: Tensor, weights: Tensor) -> Total:
    """Errors ``(batch, any, n)``, averaged over the middle dimension, under weights ``(batch, 1, n)``."""
    return Total((error.mean(dim=1, keepdim=True) * weights).sum(), weights.sum())


def joint_weights(weights: Tensor, span: int) -> Tensor:
    """Weights of runs of ``span`` frames: that of the least of them, so a run with an absent frame is absent.

    ``(batch, 1, n)`` to ``(batch, 1, n - span + 1)``.
    """
    if weights.shape[-1] < span:
        return weights[..., :0]
    return weights.unfold(-1, span, 1).amin(dim=-1)


@register_loss("cosine")
class Cosine(Objective):
    """1 minus the cosine of the angle between signal and target, frame by frame: 0 to 2."""

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        return weighted(1 - F.cosine_similarity(signal, target, dim=1).unsqueeze(1), weights)


@register_loss("l1")
class L1(Objective):
    """Absolute difference, averaged over channels."""

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        return weighted((signal - target).abs(), weights)


@register_loss("mse")
class MSE(Objective):
    """Squared difference, averaged over channels."""

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        return weighted((signal - target).square(), weights)


@register_loss("smooth_l1_delta")
class SmoothL1Delta(Objective):
    """Smooth L1 (Huber's, over ``beta``) of the differences between neighbouring frames.

    It asks for the target's movement wherever the signal stands. A pair of frames has the lesser of its two weights.

    Args:
        source: rate and channels of the signal.
        beta: below it the error is ``e^2 / (2 beta)``, above ``|e| - beta / 2``. Default 1, torch's own.

    Raises:
        ValueError: for a beta out of range.
    """

    def __init__(self, source: Stream, *, beta: float = 1.0) -> None:
        super().__init__(source)
        self.beta = check_real("beta", beta, 1e-6, 1e6)

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        error = F.smooth_l1_loss(signal.diff(), target.diff(), reduction="none", beta=self.beta)
        return weighted(error, joint_weights(weights, 2))


@register_loss("second_difference")
class SecondDifference(Objective):
    """Absolute difference between second differences over time, ``x[n] - 2 x[n - 1] + x[n - 2]``, averaged over
    channels: it asks for the target's bends. Three frames have the least of their weights."""

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        if signal.shape[-1] < 3:
            return weighted(signal[..., :0], weights[..., :0])
        return weighted((signal.diff(n=2) - target.diff(n=2)).abs(), joint_weights(weights, 3))


@register_loss("info_nce")
class InfoNCE(Objective):
    """Cross entropy of finding a frame's own teacher frame in its utterance, over cosines divided by ``tau``.

    Candidates are all valid frames of the same utterance, so that a batch may be cut at any row and the sums stay as
    they are (Oord et al., "Representation Learning with Contrastive Predictive Coding", arXiv:1807.03748, equation 4).
    A signal that knows nothing scores ``log n`` for ``n`` valid frames.

    Args:
        source: rate and channels of the signal.
        tau: temperature, 0.001 to 10; 0.1 by default.

    Raises:
        ValueError: for a tau out of range.
    """

    def __init__(self, source: Stream, *, tau: float = 0.1) -> None:
        super().__init__(source)
        self.tau = check_real("tau", tau, 1e-3, 10.0)

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        likeness = F.normalize(signal, dim=1).transpose(1, 2) @ F.normalize(target, dim=1) / self.tau
        # A frame is always among its own candidates: a row of nothing but minus infinity would be NaN.
        own = torch.eye(signal.shape[-1], dtype=torch.bool, device=signal.device)
        scores = likeness.masked_fill((weights == 0) & ~own, -torch.inf).log_softmax(dim=-1)
        return weighted(-scores.diagonal(dim1=1, dim2=2).unsqueeze(1), weights)
