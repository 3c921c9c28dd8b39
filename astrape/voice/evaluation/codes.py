"""Usage of the quantizer: counted on the codes it gave, never on its output quantized again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from astrape.blocks.code_usage import CodeUsage
from astrape.blocks.codebook import count_codes, perplexity, usage
from astrape.voice.evaluation.context import Codes, Context, Tools
from astrape.voice.evaluation.errors import MetricError
from astrape.voice.evaluation.metric import Quantity
from astrape.voice.evaluation.packages import Package

__all__ = ["QuantizerUse"]

CODES = frozenset({"codes"})


@dataclass(frozen=True)
class SourceCodes:
    """The codes of one source.

    Attributes:
        source: its key.
        size: how many codes there are.
        codes, counts: those that occurred, and how often.
        digits: how often each value of each digit occurred.
    """

    source: str
    size: int
    codes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    digits: tuple[npt.NDArray[Any], ...]


class QuantizerUse:
    """Perplexity of the codes, and usage of what they are made of: the grids of Q2D2's pairs, or FSQ's levels.

    A perplexity can't pass the number of frames, so that of one file says little. The run's counts each source once,
    however many targets it was converted to: codes come from the source alone.
    """

    name = "codes"
    packages: tuple[Package, ...] = ()
    quantities = (
        Quantity("code_perplexity", "Code perplexity", "codes", "higher", "exp(entropy) of the codes", CODES, 1),
        Quantity(
            "digit_usage",
            "Digit usage",
            "%",
            "higher",
            "share of the values that occur, mean over the digits of a code",
            CODES,
            1,
        ),
        Quantity(
            "digit_perplexity",
            "Digit perplexity",
            "%",
            "higher",
            "exp(entropy) of a digit over its number of values, mean over the digits",
            CODES,
            1,
        ),
    )

    def __init__(self, tools: Tools) -> None:
        del tools

    def score(self, context: Context) -> dict[str, float]:
        if context.codes is None:
            return {}
        codes = context.codes
        if not len(codes.codes):
            raise MetricError("the source is shorter than one code")
        digits = _digit_counts(codes)
        count = CodeUsage(codes.size)
        count.add(codes.codes)
        context.parts[self.name] = SourceCodes(
            context.source_key,
            codes.size,
            count.codes.numpy(),
            count.counts.numpy(),
            tuple(digit.numpy() for digit in digits),
        )
        return _scores(count, digits)

    def pooled(self, parts: Sequence[SourceCodes]) -> dict[str, float]:
        firsts: dict[str, SourceCodes] = {}
        for part in parts:
            firsts.setdefault(part.source, part)
        if not firsts:
            return {}
        found = list(firsts.values())
        count = CodeUsage(found[0].size)
        for part in found:
            count.add_counts(torch.from_numpy(part.codes), torch.from_numpy(part.counts))
        digits = [torch.from_numpy(sum(same)) for same in zip(*(part.digits for part in found), strict=True)]
        return _scores(count, digits)


def _digit_counts(codes: Codes) -> list[torch.Tensor]:
    split = codes.split(codes.codes.reshape(1, 1, -1).double())[0]
    return [count_codes(digit, size) for digit, size in zip(split, codes.digits, strict=True)]


def _scores(count: CodeUsage, digits: list[torch.Tensor]) -> dict[str, float]:
    return {
        "code_perplexity": count.perplexity,
        "digit_usage": 100 * sum(map(usage, digits)) / len(digits),
        "digit_perplexity": 100 * sum(perplexity(digit) / len(digit) for digit in digits) / len(digits),
    }
