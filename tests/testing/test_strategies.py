"""The strategies that users get give what they promise."""

from __future__ import annotations

from fractions import Fraction

import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st

from astrape.blocks import Stream
from astrape.testing import strategies
from tests.testing.sound_blocks import Convolution

BLOCK = Convolution(Stream(1000, 2), kernel=6, stride=4)
quick = settings(derandomize=True, database=None, deadline=None, max_examples=50)


@quick
@given(st.data(), st.integers(0, 200))
def test_chunkings_sum_to_the_total(data: st.DataObject, total: int) -> None:
    chunks = data.draw(strategies.chunkings(total))
    assert sum(chunks) == total
    assert min(chunks, default=0) >= 0


def test_chunkings_hold_the_hard_cases() -> None:
    assert find(strategies.chunkings(12), lambda chunks: chunks == [1] * 12)
    assert find(strategies.chunkings(12), lambda chunks: chunks.count(0) >= 2)
    assert find(strategies.chunkings(12), lambda chunks: len(set(chunks)) >= 4)


@quick
@given(strategies.quanta_chunkings(BLOCK, 9))
def test_quanta_chunkings_cut_at_quanta(chunks: list[int]) -> None:
    assert sum(chunks) == 9 * BLOCK.quantum
    assert all(count % BLOCK.quantum == 0 for count in chunks)


@quick
@given(st.data(), strategies.streams(max_channels=3), st.integers(0, 20), st.integers(1, 4))
def test_signals_fit_their_stream(data: st.DataObject, stream: Stream, frames: int, batch: int) -> None:
    assert isinstance(stream.rate, Fraction)
    assert 1 <= stream.channels <= 3
    x = data.draw(strategies.signals(stream, frames, batch))
    assert x.shape == (batch, stream.channels, frames)
    assert x.dtype == torch.float64


@quick
@given(strategies.seeds())
def test_seeds_are_taken_by_generators(seed: int) -> None:
    torch.Generator().manual_seed(seed)
