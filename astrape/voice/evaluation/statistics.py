"""Means over files, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astrape.voice.evaluation.metric import Score

__all__ = ["RESAMPLES", "Aggregate", "aggregate"]

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Aggregate:
    """A quantity over a run.

    Attributes:
        value: the weighted mean, or what holds for all files together.
        low, high: the 95 % confidence interval; ``None`` for a single source, which says nothing of others, and for
            not a mean.
        files: how many went in.
        pooled: it is of all files together, and no mean over them.
    """

    value: float
    low: float | None
    high: float | None
    files: int
    pooled: bool = False


def aggregate(scores: Sequence[Score], groups: Sequence[str], seed: int = 0) -> Aggregate:
    """The weighted mean of scores, and its interval by the percentile bootstrap (Efron & Tibshirani 1993, ch. 13).

    What is drawn is sources, with all pairs of each: pairs of one source resemble each other, and to draw them one by
    one would make the interval too narrow.

    Args:
        scores: at least one.
        groups: the source of each.
        seed: of the drawing.
    """
    names = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    sums, weights = np.zeros(len(names)), np.zeros(len(names))
    for score, group in zip(scores, groups, strict=True):
        sums[names[group]] += score.value * score.weight
        weights[names[group]] += score.weight
    value = float(sums.sum() / weights.sum())
    if len(names) < 2:
        return Aggregate(value, None, None, len(scores))
    generator = np.random.default_rng(seed)
    # Row by row: a table of all draws at once would grow with the square of the run.
    means = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        drawn = generator.integers(len(names), size=len(names))
        means[index] = sums[drawn].sum() / weights[drawn].sum()
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Aggregate(value, float(low), float(high), len(scores))
