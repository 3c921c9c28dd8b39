"""Usage of a codebook, counted on the indices themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from astrape.blocks.codebook import check_codes, perplexity

__all__ = ["CodeUsage"]


class CodeUsage:
    """Counts of the codes that were seen, of a codebook of any size: only those seen take memory.

    Codes are those the quantizer gave. To quantize its output again and count that reports a fraction of the truth.

    Example: frames with codes 4, 4, 7 and 9 of 145 use 3 / 145 of the codebook, 3 / 4 of what four frames could, and
    their perplexity is ``exp(0.5 ln 2 + 0.5 ln 4) = 2.83``.

    Args:
        size: number of codes there are.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.codes = torch.zeros(0, dtype=torch.int64)
        self.counts = torch.zeros(0, dtype=torch.int64)

    def add(self, codes: Tensor, weights: Tensor | None = None) -> None:
        """Count codes of any shape; with weights of the same shape, those above 0 only.

        Raises:
            ValueError: for a code that is not a whole number from 0 to ``size - 1``.
        """
        kept = codes.detach() if weights is None else codes.detach()[weights > 0]
        numbers = check_codes(kept, self.size).flatten().to("cpu", torch.int64)
        self.add_counts(numbers, torch.ones_like(numbers))

    def add_counts(self, codes: Tensor, counts: Tensor) -> None:
        """Add what another one counted, another process for instance: its :attr:`codes` and :attr:`counts`."""
        joined, places = torch.unique(torch.cat([self.codes, codes]), return_inverse=True)
        amounts = torch.cat([self.counts, counts])
        self.counts = torch.zeros(len(joined), dtype=torch.int64).index_add_(0, places, amounts)
        self.codes = joined

    @property
    def frames(self) -> int:
        """The number of codes counted."""
        return int(self.counts.sum())

    @property
    def usage(self) -> float:
        """Share of the codebook that occurred, 0 to 1."""
        return len(self.codes) / self.size

    @property
    def variety(self) -> float:
        """Different codes, as a share of the most that the frames could have shown; 0 for none."""
        return len(self.codes) / min(self.size, self.frames) if self.frames else 0.0

    @property
    def perplexity(self) -> float:
        """``exp(entropy)`` of the codes: how many equally frequent ones would say as much."""
        return perplexity(self.counts)
