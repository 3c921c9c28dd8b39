"""Hypothesis strategies for streams, signals and the ways to cut them.

>>> from hypothesis import given
>>> from astrape.testing import strategies
>>> @given(chunks=strategies.chunkings(total=100))
... def test_any_chunking(chunks):
...     assert sum(chunks) == 100
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor

from astrape.blocks.base import Stream, StreamBlock
from astrape.measure.subject import draw_noise

__all__ = ["chunkings", "quanta_chunkings", "seeds", "signals", "streams"]

RATES = (1, 25, 50, 200, 8000, 16000, 22050, 24000, 44100, 48000, 96000, Fraction(200, 3), Fraction(441, 16))


def chunkings(total: int) -> st.SearchStrategy[list[int]]:
    """Ways to cut ``total`` frames: lists of whole numbers, zero included, that sum to ``total``.

    Cut points anywhere, every frame alone, and equal chunks with an odd rest. Shrinks towards one chunk.
    """
    cuts = st.lists(st.integers(0, total), max_size=12).map(
        lambda points: [stop - start for start, stop in pairwise([0, *sorted(points), total])]
    )
    equal = st.integers(1, max(1, total)).map(lambda size: [min(size, total - at) for at in range(0, total, size)])
    return st.one_of(cuts, equal)


def quanta_chunkings(block: StreamBlock, quanta: int) -> st.SearchStrategy[list[int]]:
    """Ways to cut ``quanta`` quanta of a block's input at quanta, as lists of frames."""
    return chunkings(quanta).map(lambda chunks: [count * block.quantum for count in chunks])


def seeds() -> st.SearchStrategy[int]:
    """Seeds of random generators."""
    return st.integers(0, 2**31 - 1)


def streams(max_channels: int = 8) -> st.SearchStrategy[Stream]:
    """Streams at rates in use, some of them not a whole number of Hz, with one to ``max_channels`` channels."""
    return st.builds(Stream, rate=st.sampled_from(RATES), channels=st.integers(1, max_channels))


def signals(stream: Stream, frames: int, batch: int = 1) -> st.SearchStrategy[Tensor]:
    """Noise on a stream, ``(batch, channels, frames)`` in float64, at levels from silence to loud.

    Shrinks by seed and level, so a failure is repeated by the arguments that Hypothesis prints.
    """
    return st.builds(
        lambda seed, level: level * draw_noise(stream, frames, batch, torch.Generator().manual_seed(seed)),
        seeds(),
        st.sampled_from((1.0, 0.01, 10.0, 0.0)),
    )
