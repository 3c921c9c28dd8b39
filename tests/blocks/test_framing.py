from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.blocks import Stream, block_class
from astrape.blocks.framing import Framing, OverlapAdd
from astrape.errors import RateError
from tests.blocks.chunks import assert_chunks_agree, assert_declared, chunk_lists, noise

sizes = st.integers(1, 12).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size)))
overlapping = sizes.filter(lambda pair: pair[0] > pair[1])


@settings(max_examples=30, deadline=None)
@given(pair=sizes, chunks=chunk_lists, seed=st.integers(0, 99))
def test_framing_holds_the_newest_samples(pair: tuple[int, int], chunks: list[int], seed: int) -> None:
    size, hop = pair
    block = Framing(Stream(1000, 1), size=size, hop=hop)
    x = noise(block, 1 + sum(chunks), batch=1, seed=seed)
    y = block(x)[0]
    padded = np.concatenate([np.zeros(size), x[0, 0].numpy()])
    for frame in range(y.shape[-1]):
        end = size + (frame + 1) * hop
        np.testing.assert_array_equal(y[:, frame].numpy(), padded[end - size : end])
    assert_chunks_agree(block, chunks, seed=seed)


@settings(max_examples=40, deadline=None)
@given(
    pair=overlapping,
    window=st.sampled_from(["none", "hann"]),
    normalize=st.booleans(),
    chunks=chunk_lists,
    seed=st.integers(0, 99),
)
def test_overlap_add_sums_windowed_frames(
    pair: tuple[int, int], window: str, normalize: bool, chunks: list[int], seed: int
) -> None:
    size, hop = pair
    block = OverlapAdd(Stream(100, size), hop=hop, window=window, normalize=normalize)
    x = noise(block, 1 + sum(chunks), batch=1, seed=seed)
    shape = np.hanning(size + 1)[:-1] if window == "hann" else np.ones(size)
    frames = x.shape[-1]
    total = np.zeros(frames * hop + size)
    for frame in range(frames):
        total[frame * hop : frame * hop + size] += shape * x[0, :, frame].numpy()
    if normalize:
        total /= [sum(shape[place % hop :: hop]) for place in range(len(total))]
    np.testing.assert_allclose(block.double()(x)[0, 0].numpy(), total[: frames * hop], rtol=1e-6, atol=1e-6)
    assert_chunks_agree(block, chunks, seed=seed)


@pytest.mark.parametrize(
    ("pair", "window"),
    [
        *((pair, "none") for pair in [(8, 2), (8, 8), (9, 4), (16, 15), (7, 1), (1, 1)]),
        *((pair, "hann") for pair in [(8, 2), (9, 4), (16, 15), (7, 1)]),
    ],
)
def test_there_and_back_is_a_delay_by_both_latencies(pair: tuple[int, int], window: str) -> None:
    size, hop = pair
    there = Framing(Stream(16000, 1), size=size, hop=hop)
    back = OverlapAdd(there.output, hop=hop, window=window)
    delay = (there.latency + back.latency) * 16000
    assert (delay, back.rate_out) == (size - hop, 16000)
    x = noise(there, 20)
    y = back.double()(there(x))
    late = torch.nn.functional.pad(x, (size - hop, 0))[..., : x.shape[-1]]
    torch.testing.assert_close(y, late, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pair", [(8, 2), (8, 8), (9, 4), (16, 15), (7, 1), (1, 1)])
def test_declared_times_are_measured(pair: tuple[int, int]) -> None:
    size, hop = pair
    assert_declared(Framing(Stream(1000, 1), size=size, hop=hop), quanta=size // hop + 4)
    for window in ("none", "hann"):
        if window == "none" or size > hop:
            assert_declared(OverlapAdd(Stream(100, size), hop=hop, window=window), quanta=size // hop + 4)


def test_worked_example() -> None:
    block = Framing(Stream(16000, 1), size=1024, hop=256)
    assert block.latency == Fraction(24, 1000)
    assert block.output == Stream("62.5", 1024)


def test_refuses() -> None:
    for wrong in ({"size": 0, "hop": 1}, {"size": 10**9, "hop": 1}, {"size": 4, "hop": 0}, {"size": 4, "hop": 5}):
        with pytest.raises(ValueError, match=r"size|hop"):
            Framing(Stream(1000, 1), **wrong)
    with pytest.raises(RateError, match="one channel"):
        Framing(Stream(1000, 2), size=4, hop=2)
    for wrong in ({"hop": 0}, {"hop": 5}, {"hop": 4, "window": "hann"}):
        with pytest.raises(ValueError, match="hop"):
            OverlapAdd(Stream(1000, 4), **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="window"):
        OverlapAdd(Stream(1000, 4), hop=2, window="blackman")
    assert (block_class("framing"), block_class("overlap_add")) == (Framing, OverlapAdd)
