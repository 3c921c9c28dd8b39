"""Attention over a sliding window against a naive one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from attention_oracle import naive_attention, noise, shaken
from chunks import run_chunks

from astrape.blocks import Stream
from astrape.blocks.attention import Attention


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
    assert block.float().rotary.cosine.dtype == torch.float32


def test_rows_keep_their_own_beginnings() -> None:
    block = attention()
    x = noise(2, 12, 9)
    _, state = block.step(x[..., :6], block.init_state(2), ())
    fresh = block.init_state(1)
    mixed = {name: torch.cat([state[name][:1], fresh[name]]) for name in state}
    y, _ = block.step(x[..., 6:], mixed, ())
    torch.testing.assert_close(y[:1], block(x[:1])[..., 6:], rtol=0, atol=1e-12)
    torch.testing.assert_close(y[1:], block(x[1:, :, 6:]), rtol=0, atol=1e-12)
