"""Embeddings of speakers, blurred anew each time: told them exactly, a decoder learns its few voices by heart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from astrape.training.errors import TrainingError

__all__ = ["blurred"]

TONE = 32
"""The last of the numbers of ``astrape-speaker``, which are measured and stay, but for ``TONE_NOISE``."""

FORGOTTEN = 0.08
"""Share of the draws in which the embedding is 0: the tone alone says who speaks."""

TONE_NOISE = 0.015
"""Standard deviation of the noise on the tone, whose numbers are around 1 in 10."""


def blurred(vector: Tensor, draw: np.random.Generator, most: float) -> Tensor:
    """A target's numbers with noise on them.

    Args:
        vector: ``(128,)`` in the space of ``astrape-speaker``: 96 of an embedding, and 32 of the tone.
        draw: drawn from.
        most: the length of the noise on the embedding, as a share of its own length, in the most blurred draws; others
            have any share of that.

    Raises:
        TrainingError: for a vector that has no embedding beside a tone.
    """
    if len(vector) <= TONE:
        raise TrainingError(
            f"a speaker has {len(vector)} numbers, and the first 96 of 128 are those that are blurred: hint: take blur "
            f"out of pairs, or speakers of astrape-speaker"
        )
    noise = draw.standard_normal(len(vector)).astype(np.float32)
    share, forgotten = draw.random(), draw.random() < FORGOTTEN
    who, tone = vector[:-TONE], vector[-TONE:]
    moved = torch.from_numpy(noise)
    size = float(who.square().sum().sqrt()) / len(who) ** 0.5
    who = torch.zeros_like(who) if forgotten else who + moved[:-TONE] * (most * share * size)
    return torch.cat([who, tone + TONE_NOISE * moved[-TONE:]])
