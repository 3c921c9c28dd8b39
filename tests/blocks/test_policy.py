"""Policies: whatever operators blocks come down to, the numbers are the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.blocks.live import Live
from astrape.blocks.policy import COMPILER, PLAIN, PORTABLE, Policy, lowered, policy

POLICIES = [PLAIN, Live(), COMPILER, PORTABLE]


@pytest.fixture(params=POLICIES, ids=lambda item: item.name)
def each(request) -> Policy:
    return request.param


def test_what_holds_is_what_was_asked_for_last() -> None:
    assert policy() is PLAIN
    with lowered(PORTABLE), lowered(COMPILER):
        assert policy() is COMPILER
    assert policy() is PLAIN


@settings(max_examples=30)
@given(numbers=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
@pytest.mark.parametrize("by", POLICIES, ids=lambda item: item.name)
def test_words_are_taken_apart_as_by_python(by: Policy, numbers: list[int]) -> None:
    words = torch.tensor(numbers)
    lower, upper = by.halves(words.clone())
    want = [np.array([n & 0xFFFFFFFF, (n >> 32) & 0xFFFFFFFF], np.uint32).view(np.int32).tolist() for n in numbers]
    assert [[int(a), int(b)] for a, b in zip(lower, upper, strict=True)] == want
    bits = (1 << 64) - 1
    folded = [((n & bits) ^ ((n & bits) >> 32)) for n in numbers]
    assert [n & bits for n in by.fold(words.clone()).tolist()] == folded


@settings(max_examples=40)
@given(size=st.integers(1, 9), hop=st.integers(1, 9), count=st.integers(1, 8), rest=st.integers(0, 8))
@pytest.mark.parametrize("by", POLICIES, ids=lambda item: item.name)
def test_windows_are_where_a_loop_finds_them(by: Policy, size: int, hop: int, count: int, rest: int) -> None:
    length = (count - 1) * hop + size + min(rest, hop - 1)
    x = torch.arange(2.0 * 3 * length).view(2, 3, length)
    want = torch.stack([x[..., k * hop : k * hop + size] for k in range(count)], dim=-2)
    assert torch.equal(by.windows(x, size, hop), want)


@settings(max_examples=40)
@given(
    batch=st.integers(1, 3), window=st.integers(1, 7), new=st.integers(1, 7), at=st.integers(0, 20), lone=st.booleans()
)
@pytest.mark.parametrize("by", POLICIES, ids=lambda item: item.name)
def test_a_ring_holds_what_was_written_last(by: Policy, batch: int, window: int, new: int, at: int, lone: bool) -> None:
    new = min(new, window)
    ring, frames = torch.randn(batch, 2, window, 3), torch.randn(batch, 2, new, 3)
    slots = (at + torch.arange(batch)[:, None] + torch.arange(new)) % window
    want = ring.clone()
    for row in range(batch):
        for index in range(new):
            want[row, :, slots[row, index]] = frames[row, :, index]
    before = ring.clone()
    assert torch.equal(by.write_ring(ring, slots, frames, lone), want)
    assert torch.equal(ring, before) or (lone and by.writes_state)


@settings(max_examples=30)
@given(batch=st.integers(1, 3), frames=st.integers(1, 9), channels=st.integers(1, 40), bias=st.booleans())
@pytest.mark.parametrize("by", POLICIES, ids=lambda item: item.name)
def test_products_are_those_of_float64(by: Policy, batch: int, frames: int, channels: int, bias: bool) -> None:
    x, weight = torch.randn(batch, frames, 24), torch.randn(channels, 24)
    b = torch.randn(channels) if bias else None
    (y,) = by.products(x, ((weight, b),))
    want = torch.einsum("bni,ci->bnc", x.double(), weight.double()) + (0 if b is None else b.double())
    torch.testing.assert_close(y.double(), want, rtol=1e-5, atol=1e-5)
