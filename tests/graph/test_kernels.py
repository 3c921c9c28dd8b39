"""Operators in the form that is called fastest give what they give in their own, to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from astrape.graph.lowering import Memory
from astrape.graph.tape import Tape

REAL: list[Callable[[Tensor], Tensor]] = [
    lambda x: x + 0.3,
    lambda x: x - 1e-3,
    lambda x: torch.add(x, 0.7, alpha=3),
    lambda x: x * 1.1,
    lambda x: x / 3,
    lambda x: x / -0.0,
    lambda x: 2 - x,
    lambda x: x.square(),
    lambda x: x**3,
    lambda x: x.clamp(min=-0.1, max=0.4),
    lambda x: x.abs().log() + x.exp2() + x.abs().log2() + x.abs().log10(),
    lambda x: x.tan() + x.sin() - x.cos() + x.tanh() + x.sigmoid() + x.round() + x.sign() + x.reciprocal(),
    lambda x: torch.maximum(x, x.flip(-1)) - torch.minimum(x, -x),
    lambda x: torch.lerp(x, x.flip(-1), x.abs()),
    lambda x: x.masked_fill(x > 0.2, -7.5),
    lambda x: x.masked_fill(x.isnan(), 0.0),
    lambda x: torch.where(x >= 0.1, x, 2.0),
    lambda x: (x < 0.3).to(x.dtype) + (x <= 0).to(x.dtype) + (x == 0).to(x.dtype) + (x != x).to(x.dtype),
    lambda x: F.pad(x, (2, 1), value=0.5),
    lambda x: F.pad(x, (0, 0, 1, 0)),
    lambda x: F.silu(x) + F.gelu(x) + F.gelu(x, approximate="tanh"),
    lambda x: F.layer_norm(x, x.shape[-1:]),
    lambda x: x.amax(dim=-1, keepdim=True) - x.amin(dim=(0, 1)) + x.mean(dim=-1, keepdim=True),
    lambda x: x.gather(-1, x.argmax(dim=-1, keepdim=True)),
    lambda x: x.topk(2).values * x.topk(2).indices,
    lambda x: x.max(dim=-1).values + x.min(dim=-1, keepdim=True).indices.sum(),
    lambda x: torch.stack([x, x.flip(1)], dim=2),
    lambda x: x.mean(dim=(0, 2)) + x.mean(dim=0)[..., :3] if x.shape[1] == 3 else x,
]
WHOLE: list[Callable[[Tensor], Tensor]] = [
    lambda x: (x >> 3) ^ (x & 0xFFFF),
    lambda x: (x << 2) | (x * 12345),
    lambda x: (x + 5) * -1,
    lambda x: ~x & (1 << 40),
    lambda x: x.masked_fill(x > 7, 3),
    lambda x: (x / 3) + (x + 0.5),
    lambda x: x % 7,
]


def play(function: Callable[[Tensor], Tensor], values: list[Tensor]) -> None:
    tape = Tape(lambda fresh, state: (function(fresh), state), values[0], (), Memory())
    for value in values:
        got, want = tape.play(value), function(value)
        assert got.dtype == want.dtype
        bits = {4: torch.int32, 8: torch.int64}[want.element_size()]
        same = got.view(bits) == want.view(bits)
        # There are many NaN, and which one comes out is nobody's business.
        assert bool((same | (got.isnan() & want.isnan())).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", REAL)
def test_real_numbers(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    values = [torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(seed), dtype=dtype) for seed in range(3)]
    odd = torch.tensor([0.0, -0.0, torch.nan, torch.inf, -torch.inf, 1e-40, 1e30], dtype=dtype)
    play(function, [*values, odd.expand(2, 3, 7).contiguous()])


@pytest.mark.parametrize("function", WHOLE)
def test_whole_numbers(function: Callable[[Tensor], Tensor]) -> None:
    ends = -(1 << 62), 1 << 62
    play(function, [torch.randint(*ends, (2, 3, 7), generator=torch.Generator().manual_seed(n)) for n in range(3)])
