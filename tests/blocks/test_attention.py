"""Attention over a sliding window against a naive one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from astrape.blocks import Stream
from astrape.blocks.attention import Attention
from astrape.blocks.live import Live
from tests.blocks.attention_oracle import naive_attention, noise, shaken
from tests.blocks.chunks import run_chunks


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def attention(channels: int = 12, **options: Any) -> Attention:
    return shaken(Attention(Stream(25, channels), **{"heads": 2, "window": 5, **options}))


@pytest.mark.parametrize("rotary", ["half", "interleaved", "none"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("head_dim", [None, 4])
def test_attention_is_the_naive_one(rotary: str, bias: bool, head_dim: int | None) -> None:
    block = attention(rotary=rotary, bias=bias, head_dim=head_dim, theta=100.0)
    x = noise(2, 12, 17)
    for start in (0, 1000):
        expected = naive_attention(block, x, rotary, 100.0, start)
        torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("window", [1, 2, 40, 128, 150])
def test_attention_is_the_naive_one_where_queries_come_in_blocks(window: int) -> None:
    block = attention(window=window, channels=4)
    x = noise(1, 4, 310)
    torch.testing.assert_close(block(x), naive_attention(block, x, "half"), rtol=0, atol=1e-10)


def test_pairings_are_the_same_up_to_an_order_of_dimensions_and_otherwise_not() -> None:
    half, interleaved = attention(rotary="half"), attention(rotary="interleaved")
    x = noise(1, 12, 9)
    assert not torch.allclose(half(x), interleaved(x))
    order = torch.tensor([0, 2, 4, 1, 3, 5])
    with torch.no_grad():
        for part in range(2):
            for head in range(2):
                rows = (part * 2 + head) * 6 + torch.arange(6)
                half.in_proj_weight[rows] = interleaved.in_proj_weight[rows[order]]
                half.in_proj_bias[rows] = interleaved.in_proj_bias[rows[order]]
    torch.testing.assert_close(half(x), interleaved(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("chunks", [[1] * 300, [299, 1], [1, 299], [150, 0, 150], [7] * 42 + [6]])
def test_chunks_around_the_query_block(chunks: list[int]) -> None:
    block = attention(channels=4, window=100)
    x = noise(1, 4, 300)
    torch.testing.assert_close(run_chunks(block, x, chunks)[""], block(x), rtol=0, atol=1e-10)


def test_nothing_precedes_time_zero() -> None:
    """The first frame attends to itself alone: its value, projected, whatever the virtual history holds."""
    block = attention()
    x = noise(1, 12, 1)
    value = x[..., 0] @ block.in_proj_weight[24:].T + block.in_proj_bias[24:]
    torch.testing.assert_close(block(x)[..., 0], block.out_proj(value), rtol=0, atol=1e-12)
    state = block.init_state(1)
    state["keys"] += 3.0
    state["values"] -= 5.0
    assert torch.equal(block.step(x, state, ())[0], block(x))


def test_a_block_built_in_float32_is_exact_once_it_is_float64() -> None:
    torch.set_default_dtype(torch.float32)
    block = attention(window=40).double()
    torch.set_default_dtype(torch.float64)
    x = noise(1, 12, 300)
    torch.testing.assert_close(block(x), naive_attention(block, x, "half"), rtol=0, atol=1e-10)
    torch.testing.assert_close(run_chunks(block, x, [1] * 300)[""], block(x), rtol=0, atol=1e-10)
    assert block.float().rotary.turns.dtype == torch.int64


@pytest.mark.parametrize("age", [10**6, 3 * 10**9, 2**40])
def test_an_old_stream_is_as_exact_as_a_young_one(age: int) -> None:
    """The same frames a second, a year and ten thousand years into a stream, against angles from exact fractions."""
    block = attention(window=8)
    x = noise(1, 12, 30)
    state = block.init_state(1)
    _, state = block.step(x, state, ())
    old = {name: tensor.clone() for name, tensor in block.init_state(1).items()}
    old["age"] += age * block.window
    _, old = block.step(x, old, ())
    late, _ = block.step(x, old, ())
    again, _ = block.step(x, state, ())
    # A frequency is rounded to 2^-65 turns a frame, and only distances of up to 7 frames enter a score.
    torch.testing.assert_close(late, again, rtol=0, atol=1e-10)
    turns = block.rotary.turns
    cosine, sine = block.rotary.angles(torch.tensor([[age]]), torch.float64)
    for pair, turn in enumerate(turns.tolist()):
        share = Fraction(age * turn % 2**64, 2**64)
        assert math.isclose(float(cosine[0, 0, 0, pair]), math.cos(2 * math.pi * float(share)), abs_tol=1e-14)
        assert math.isclose(float(sine[0, 0, 0, pair]), math.sin(2 * math.pi * float(share)), abs_tol=1e-14)


def test_float32_scores_of_an_old_stream_are_those_of_a_young_one() -> None:
    block = attention(window=8).float()
    x = noise(1, 12, 30).float()
    young, _ = block.step(x, block.init_state(1, dtype=torch.float32), ())
    state = block.init_state(1, dtype=torch.float32)
    state["age"] += 8 * 10**9
    _, state = block.step(x, state, ())
    old, _ = block.step(x, state, ())
    again, _ = block.step(x, block.step(x, block.init_state(1, dtype=torch.float32), ())[1], ())
    assert young.shape == old.shape
    torch.testing.assert_close(old, again, rtol=0, atol=1e-5)


@given(
    ages=st.lists(st.integers(0, 40), min_size=2, max_size=3),
    window=st.integers(1, 9),
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=8),
)
def test_rows_of_any_ages_in_a_live_session(ages: list[int], window: int, counts: list[int]) -> None:
    """A state that is written in place, rows of different ages in it, against each row as one pass of its own."""
    block = attention(window=window)
    rows = []
    for row, age in enumerate(ages):
        x = noise(1, 12, age + sum(counts), seed=row)
        rows.append((x, block.step(x[..., :age], block.init_state(1), ())[1]))
    state = {name: torch.cat([own[name] for _, own in rows]) for name in block.init_state(1)}
    parts, at = [], 0
    with Live().run(), torch.inference_mode():
        for count in counts:
            piece = torch.cat([x[..., age + at : age + at + count] for (x, _), age in zip(rows, ages, strict=True)])
            y, state = block.step(piece, state, ())
            parts.append(y)
            at += count
    together = torch.cat(parts, dim=-1)
    for row, ((x, _), age) in enumerate(zip(rows, ages, strict=True)):
        torch.testing.assert_close(together[row : row + 1], block(x)[..., age:], rtol=0, atol=1e-10)


def test_a_step_outside_a_live_session_leaves_its_state_alone() -> None:
    block = attention()
    _, state = block.step(noise(1, 12, 7), block.init_state(1), ())
    before = {name: tensor.clone() for name, tensor in state.items()}
    block.step(noise(1, 12, 1), state, ())
    block.step(noise(1, 12, 9), state, ())
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_rows_keep_their_own_beginnings() -> None:
    block = attention()
    x = noise(2, 12, 9)
    _, state = block.step(x[..., :6], block.init_state(2), ())
    fresh = block.init_state(1)
    mixed = {name: torch.cat([state[name][:1], fresh[name]]) for name in state}
    y, _ = block.step(x[..., 6:], mixed, ())
    torch.testing.assert_close(y[:1], block(x[:1])[..., 6:], rtol=0, atol=1e-12)
    torch.testing.assert_close(y[1:], block(x[1:, :, 6:]), rtol=0, atol=1e-12)
