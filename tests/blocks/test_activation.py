from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from astrape.blocks import Stream, block_class
from astrape.blocks.activation import Activation
from tests.blocks.chunks import assert_chunks_agree, assert_declared, noise

ORACLES: dict[str, Callable[[float], float]] = {
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "relu": lambda x: max(x, 0.0),
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "snake_beta": lambda x: x + math.sin(x) ** 2 / (1 + 1e-9),
}


@pytest.mark.parametrize("kind", ORACLES)
def test_equals_its_formula(kind: str) -> None:
    block = Activation(Stream(100, 3), kind=kind).double()
    x = noise(block, 5)
    want = torch.tensor([ORACLES[kind](value) for value in x.flatten().tolist()], dtype=torch.float64)
    torch.testing.assert_close(block(x).flatten(), want, rtol=1e-12, atol=1e-12)
    assert_chunks_agree(block, [1, 0, 3])
    assert block.receptive_field == 1 / block.rate_in
    if kind != "relu":
        assert_declared(block)


def test_snake_beta_has_its_own_frequency_and_magnitude_in_each_channel() -> None:
    block = Activation(Stream(100, 2), kind="snake_beta").double()
    with torch.no_grad():
        block.alpha.copy_(torch.tensor([0.0, math.log(3)], dtype=torch.float64))
        block.beta.copy_(torch.tensor([math.log(2), 0.0], dtype=torch.float64))
    y = block(torch.full((1, 2, 1), 0.7, dtype=torch.float64)).flatten().tolist()
    assert y[0] == pytest.approx(0.7 + math.sin(0.7) ** 2 / 2, abs=1e-8)
    assert y[1] == pytest.approx(0.7 + math.sin(2.1) ** 2, abs=1e-8)
    assert {name: value.shape for name, value in block.state_dict().items()} == {"alpha": (2,), "beta": (2,)}


def test_refuses_unknown_kinds() -> None:
    for kind in ("swish", None, 3):
        with pytest.raises(ValueError, match="kind must be one of gelu"):
            Activation(Stream(100, 3), kind=kind)  # type: ignore[arg-type]
    assert block_class("activation") is Activation
