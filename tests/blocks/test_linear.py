from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from astrape.blocks import Stream, block_class
from astrape.blocks.linear import Affine, Linear
from tests.blocks.chunks import assert_chunks_agree, assert_declared, chunk_lists, noise


@pytest.mark.parametrize("bias", [True, False])
def test_equals_torch_weights_and_all(bias: bool) -> None:
    torch.manual_seed(5)
    block = Linear(Stream(100, 6), channels=4, bias=bias)
    torch.manual_seed(5)
    layer = nn.Linear(6, 4, bias=bias)
    assert block.state_dict().keys() == layer.state_dict().keys()
    x = noise(block, 7).float()
    torch.testing.assert_close(block(x), layer(x.transpose(1, 2)).transpose(1, 2))
    assert_declared(block)


@settings(max_examples=10, deadline=None)
@given(chunks=chunk_lists)
def test_chunks_agree(chunks: list[int]) -> None:
    assert_chunks_agree(Linear(Stream(100, 5), channels=3), chunks)


@pytest.mark.parametrize("channels", [0, -1, 10**9, 1.5, None])
def test_refuses(channels: object) -> None:
    with pytest.raises(ValueError, match="channels"):
        Linear(Stream(100, 5), channels=channels)  # type: ignore[arg-type]
    assert block_class("linear") is Linear


def test_affine_scales_and_shifts() -> None:
    block = Affine(Stream(100, 3), scale=0.25, shift=-1.5)
    x = noise(block, 7)
    torch.testing.assert_close(block(x), x / 4 - 1.5)
    assert torch.equal(Affine(Stream(100, 3))(x), x)
    assert_declared(block)
    with pytest.raises(ValueError, match="scale must be a number"):
        Affine(Stream(100, 3), scale=float("nan"))
