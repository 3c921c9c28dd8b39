"""Least-squares adversarial losses, and the matching of what a discriminator sees on its way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from astrape.training.objectives.objective import Comparison, Objective, Total, register_loss

__all__ = ["LSGAN", "FeatureMatching", "Judgement", "LSGANDiscriminator"]


class Judgement(NamedTuple):
    """The output of one discriminator for a batch of waveforms.

    Attributes:
        logits: ``(batch, ...)``, a number for every place it looks at; 1 says real, 0 made.
        features: what its hidden layers gave, each ``(batch, channels, ...)``.
    """

    logits: Tensor
    features: list[Tensor]


class _Judged(Objective):
    """A loss on judgements: that of each row by itself, summed over the discriminators and then over rows.

    A row counts 1 if its whole window is valid, and not at all if not: what a discriminator makes of padding cannot be
    told from what it makes of the rest.
    """

    compares: ClassVar[Comparison] = "judgements"

    def forward(  # type: ignore[override]
        self, signal: Sequence[Judgement], target: Sequence[Judgement], weights: Tensor
    ) -> Total:
        """The loss of a batch.

        Args:
            signal: judgements of what was made, one for each discriminator.
            target: judgements of what is real, in the same order.
            weights: of the samples that were judged, ``(batch, 1, samples)``.
        """
        rows = self.rows(signal, target)
        counts = (weights > 0).flatten(1).all(dim=1)
        return Total(rows.masked_fill(~counts, 0.0).sum(), counts.sum().to(rows.dtype))

    def rows(self, made: Sequence[Judgement], real: Sequence[Judgement]) -> Tensor:
        """The loss row by row, ``(batch,)``."""
        raise NotImplementedError

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        raise NotImplementedError(f"{type(self).__name__} takes judgements, not signals")


@register_loss("lsgan")
class LSGAN(_Judged):
    """The generator's side: ``mean (D(made) - 1)^2``, summed over discriminators (Mao et al., arXiv:1611.04076)."""

    def rows(self, made: Sequence[Judgement], real: Sequence[Judgement]) -> Tensor:
        return _sum(_row_means((judged.logits - 1).square()) for judged in made)


@register_loss("lsgan_discriminator")
class LSGANDiscriminator(_Judged):
    """The discriminators' side: ``mean (D(real) - 1)^2 + mean D(made)^2``, summed over discriminators.

    Judge what was made without its gradient (``made.detach()``), or the generator learns to be found out.
    """

    def rows(self, made: Sequence[Judgement], real: Sequence[Judgement]) -> Tensor:
        return _sum(
            _row_means((true.logits - 1).square()) + _row_means(false.logits.square())
            for false, true in zip(made, real, strict=True)
        )


@register_loss("feature_matching")
class FeatureMatching(_Judged):
    """Absolute difference between what hidden layers give for the real and for what was made.

    Averaged over each layer, summed over layers and discriminators, as in HiFi-GAN (Kong, Kim & Bae, arXiv:2010.05646),
    which weights the sum with 2. No gradient goes to the real side.
    """

    def rows(self, made: Sequence[Judgement], real: Sequence[Judgement]) -> Tensor:
        return _sum(
            _row_means((seen - wanted.detach()).abs())
            for false, true in zip(made, real, strict=True)
            for seen, wanted in zip(false.features, true.features, strict=True)
        )


def _row_means(x: Tensor) -> Tensor:
    return x.flatten(1).mean(dim=1)


def _sum(rows: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(rows)).sum(dim=0)
