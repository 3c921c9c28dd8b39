"""Usage and perplexity, against counts by numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.blocks.code_usage import CodeUsage


@given(seed=st.integers(0, 10**6), size=st.integers(1, 60), frames=st.integers(0, 200), parts=st.integers(1, 4))
@settings(max_examples=40)
def test_counts_of_parts_are_those_of_the_whole(seed: int, size: int, frames: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, size, frames)
    valid = rng.random(frames) < 0.7
    counted = CodeUsage(size)
    for piece in np.array_split(np.arange(frames), parts):
        other = CodeUsage(size)
        other.add(torch.from_numpy(codes[piece]).float(), torch.from_numpy(valid[piece].astype(np.float32)))
        counted.add_counts(other.codes, other.counts)
    kept = codes[valid]
    share = np.bincount(kept, minlength=size) / max(1, len(kept))
    entropy = -sum(p * np.log(p) for p in share if p)
    assert counted.frames == len(kept)
    assert counted.usage == pytest.approx((share > 0).mean())
    assert counted.perplexity == pytest.approx(np.exp(entropy))
    assert counted.variety == pytest.approx((share > 0).sum() / max(1, min(size, len(kept))))


def test_the_documented_example() -> None:
    usage = CodeUsage(145)
    usage.add(torch.tensor([[4, 4, 7, 9]]))
    assert usage.usage == 3 / 145
    assert usage.variety == 3 / 4
    assert usage.perplexity == pytest.approx(2.83, abs=0.01)


def test_millions_of_codes_take_no_memory_of_their_own() -> None:
    usage = CodeUsage(3_048_625)
    usage.add(torch.tensor([0, 3_048_624]))
    assert len(usage.codes) == len(usage.counts) == 2


def test_a_code_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="145"):
        CodeUsage(145).add(torch.tensor([145]))
