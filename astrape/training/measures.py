"""Means over all validation windows of all processes."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from astrape.blocks.code_usage import CodeUsage
from astrape.training.objectives import Total

__all__ = ["Sums", "join_usage"]


class Sums:
    """Totals and their weights by name, added up in float64."""

    def __init__(self) -> None:
        self.pairs: dict[str, tuple[float, float]] = {}

    def add(self, name: str, total: Tensor | Total, weight: Tensor | None = None) -> None:
        """Add a sum and its weight; a ``Total`` is both."""
        if isinstance(total, Total):
            total, weight = total
        assert weight is not None
        one, other = self.pairs.get(name, (0.0, 0.0))
        self.pairs[name] = one + float(total.detach()), other + float(weight.detach())

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Quotients over all processes, of which one may have had no window at all."""
        every = gather_object([self.pairs]) if accelerator.num_processes > 1 else [self.pairs]
        names = dict.fromkeys(name for pairs in every for name in pairs)
        found = {}
        for name in names:
            total = sum(pairs.get(name, (0.0, 0.0))[0] for pairs in every)
            weight = sum(pairs.get(name, (0.0, 0.0))[1] for pairs in every)
            found[name] = total / weight if weight else math.nan
        return found


def join_usage(counter: CodeUsage, accelerator: Accelerator) -> CodeUsage:
    """The counts of all processes together."""
    if accelerator.num_processes == 1:
        return counter
    joined = CodeUsage(counter.size)
    for codes, counts in gather_object([(counter.codes.tolist(), counter.counts.tolist())]):
        joined.add_counts(torch.tensor(codes, dtype=torch.int64), torch.tensor(counts, dtype=torch.int64))
    return joined
