"""Operators in the form that is called fastest give what they give in their own, to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from astrape.capture.arithmetic import MOST, exact
from astrape.capture.lowering import Memory
from astrape.capture.step import CapturedStep

aten = torch.ops.aten
ONES = torch.linspace(-2, 2, 15).reshape(3, 5)

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
    lambda x: x.clamp(min=0) + x.clamp(max=-0.0) + x.clamp(min=-0.0, max=0),
    lambda x: torch.copysign(torch.ones_like(x), x.clamp(min=0)) - torch.copysign(torch.ones_like(x), x.clamp(max=0)),
    lambda x: x.abs() - x.floor() + x.ceil() * x.neg(),
    lambda x: (
        torch.cat([x, x[:, :1], x.flip(1)[:, 1:]], dim=1) / torch.cat([x.flip(2), x.flip(0), x[:, :0]], dim=1)[:, :1]
    ),
    lambda x: torch.where(x[..., :1] > 0, x, x[:1]) + torch.where(x > x.flip(2), x[:, :1], -1.0),
    lambda x: (x[..., :1] - x[:1]) / x[:, :1],
    lambda x: x.argmax(dim=1)[:, None] + x.argmax(dim=-1, keepdim=True) * x,
    lambda x: (
        x.to(torch.float64) * x.to(torch.float32) + (x > 0).to(x.dtype) + x.nan_to_num().clamp(-9, 9).to(torch.int64)
    ),
    lambda x: x.clone().mul_(x.flip(0)).add_(1.5),
    lambda x: ((x > 0) & ~(x > 1) | (x.flip(2) < 0) ^ (x >= -1)).to(x.dtype),
    lambda x: x.transpose(0, 2).clone().copy_(x[0].t()[..., None]).transpose(0, 1) * 3.0,
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
    lambda x: (x * x).bitwise_xor(x - 3),
    lambda x: x.view(torch.int32).clone()[..., ::2] ^ x.view(torch.int32)[..., 1::2],
    lambda x: x.clamp(min=-5) + x.clamp(max=1 << 53) - x.argmax(),
    lambda x: x.to(torch.float32) + x.to(torch.float64) * (x == 4) + (x != x.flip(1)).to(torch.int64),
]


def play(function: Callable[[Tensor], Tensor], values: list[Tensor]) -> None:
    captured = CapturedStep(lambda fresh, state: (function(fresh), state), values[0], (), Memory())
    for value in values:
        got, want = captured.play(value), function(value)
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


def test_bits_that_lie_between_each_other_are_changed_in_place() -> None:
    def mix(x: Tensor) -> Tensor:
        halves = x.clone().view(torch.int32).view(*x.shape, 2)
        halves[..., 0].bitwise_xor_(halves[..., 1])
        return halves.view(torch.int64)[..., 0] * 3

    play(
        mix, [torch.randint(-(1 << 62), 1 << 62, (5, 9), generator=torch.Generator().manual_seed(n)) for n in range(3)]
    )


@pytest.mark.parametrize(
    ("operator", "args"),
    [
        (aten.add.Tensor, (ONES, 0.5)),
        (aten.rsub.Scalar, (ONES, 1)),
        (aten.div.Tensor, (ONES, ONES[:1])),
        (aten.pow.Tensor_Scalar, (ONES, 2)),
        (aten.clamp.default, (ONES, 0, None)),
        (aten.where.self, (ONES > 0, ONES, torch.tensor(2.0))),
        (aten.masked_fill.Scalar, (ONES, ONES > 0, 1.0)),
        (aten.cat.default, ([ONES[:1], ONES[1:]],)),
        (aten.constant_pad_nd.default, (ONES[:, :3], [1, 1])),
        (aten.flip.default, (ONES, [1])),
    ],
)
def test_exact_arithmetic_is_taken_by_the_short_way(operator, args) -> None:
    place = torch.zeros_like(ONES)
    kernel = exact(operator, args, {}, place)
    assert kernel is not None
    kernel()
    assert torch.equal(place, operator(*args))


@pytest.mark.parametrize(
    ("operator", "args", "place"),
    [
        (aten.exp.default, (ONES,), ONES.clone()),
        (aten.sqrt.default, (ONES,), ONES.clone()),
        (aten.addcmul.default, (ONES, ONES, ONES), ONES.clone()),
        (aten.sum.dim_IntList, (ONES, [0]), ONES[0].clone()),
        (aten.mul.Tensor, (ONES, ONES.double()), ONES.double()),
        (aten.add.Tensor, (ONES.half(), ONES.half()), ONES.half()),
        (aten.div.Tensor, (ONES.long(), ONES.long()), ONES.clone()),
        (aten.clamp.default, (ONES, torch.nan, None), ONES.clone()),
        (aten.add.Tensor, (torch.ones(MOST + 1), 1.0), torch.ones(MOST + 1)),
        (aten.add.Tensor, (ONES.to("meta"), 1.0), ONES.to("meta")),
    ],
)
def test_what_is_rounded_otherwise_elsewhere_stays_where_it_is(operator, args, place) -> None:
    assert exact(operator, args, {}, place) is None
