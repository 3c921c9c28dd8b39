from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from astrape.blocks import Stream, block_class
from astrape.blocks.residual import ResidualConv, SnakeConv
from tests.blocks.chunks import assert_chunks_agree, assert_declared, chunk_lists, noise

SOURCE = Stream(50, 6)


def snake(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    return x + torch.sin(weights["act.alpha"].exp()[:, None] * x) ** 2 / (weights["act.beta"].exp()[:, None] + 1e-9)


def oracle(x: Tensor, weights: dict[str, Tensor], dilation: int) -> Tensor:
    """The formula in torch's own functions, on the whole sequence."""
    normed = functional.layer_norm(x.mT, x.shape[1:2], weights["norm.weight"], weights["norm.bias"]).mT
    kernel = weights["depthwise.weight"]
    padded = functional.pad(normed, (dilation * (kernel.shape[-1] - 1), 0))
    y = functional.conv1d(padded, kernel, weights["depthwise.bias"], dilation=dilation, groups=x.shape[1])
    if "widen.weight" in weights:
        y = functional.conv1d(y, weights["widen.weight"], weights["widen.bias"])
    y = snake(y, weights) if "act.alpha" in weights else functional.silu(y)
    return x + functional.conv1d(y, weights["pointwise.weight"], weights["pointwise.bias"])


@settings(max_examples=25, deadline=None)
@given(
    cls=st.sampled_from([ResidualConv, SnakeConv]),
    kernel=st.integers(1, 6),
    dilation=st.integers(1, 4),
    expand=st.integers(1, 3),
    chunks=chunk_lists,
    seed=st.integers(0, 99),
)
def test_equals_the_formula_in_any_chunks(
    cls: type[ResidualConv], kernel: int, dilation: int, expand: int, chunks: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    block = cls(SOURCE, kernel=kernel, dilation=dilation, expand=expand).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = noise(block, 3 + sum(chunks), seed=seed)
    torch.testing.assert_close(block(x), oracle(x, block.state_dict(), dilation), rtol=1e-11, atol=1e-11)
    assert_chunks_agree(block, chunks, seed=seed)


@pytest.mark.parametrize("dilation", [1, 3])
def test_declared_times_are_measured(dilation: int) -> None:
    assert_declared(ResidualConv(SOURCE, dilation=dilation), quanta=20)
    assert_declared(SnakeConv(SOURCE, dilation=dilation), quanta=20)


def test_defaults_names_and_size() -> None:
    stem, snakes = ResidualConv(Stream(50, 320)), SnakeConv(Stream(175, 384))
    assert (stem.depthwise.kernel, snakes.depthwise.kernel) == (5, 3)
    assert sum(p.numel() for p in stem.parameters()) == 2 * 320 + 320 * 6 + 320 * 320 + 320
    assert (block_class("residual_conv"), block_class("snake_conv")) == (ResidualConv, SnakeConv)
    with pytest.raises(ValueError, match="kernel"):
        ResidualConv(SOURCE, kernel=0)
    with pytest.raises(ValueError, match="expand"):
        ResidualConv(SOURCE, expand=0)
