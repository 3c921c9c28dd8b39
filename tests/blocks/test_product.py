"""Products at each frame in their fast forms against the plain one."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from astrape.blocks import Stream
from astrape.blocks.conv import Conv, TransposedConv
from astrape.blocks.live import Live
from astrape.blocks.ops.product import frame_product, frame_products
from astrape.blocks.split import LARGE


@given(
    batch=st.integers(1, 3),
    frames=st.integers(0, 70),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    bias=st.booleans(),
    live=st.booleans(),
    channels_first=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_any_form_is_the_plain_product(
    batch: int,
    frames: int,
    shape: tuple[int, int],
    bias: bool,
    live: bool,
    channels_first: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, frames, shape[1], generator=generator).to(dtype)
    if channels_first:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    weight = torch.randn(*shape, generator=generator).to(dtype)
    offset = torch.randn(shape[0], generator=generator).to(dtype) if bias else None
    expected = torch.einsum("bnc,oc->bno", x.double(), weight.double()) + (0 if offset is None else offset.double())
    if live:
        with Live().run():
            y = frame_product(x, weight, offset)
    else:
        y = frame_product(x, weight, offset)
    assert y.shape == (batch, frames, shape[0])
    assert y.dtype == dtype
    # The sum of 40 products of standard normal numbers in float32.
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=2e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("rows", [(1, 1), (1, 2), (2, 1), (3, 1)])
@pytest.mark.parametrize("channels", [1024, 1025])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels_first", [True, False])
def test_large_weights(rows: tuple[int, int], channels: int, bias: bool, channels_first: bool) -> None:
    assert channels * 512 >= LARGE
    torch.manual_seed(0)
    x = torch.randn(*rows, 512)
    x = x.transpose(1, 2).contiguous().transpose(1, 2) if channels_first else x
    layer = torch.nn.Linear(512, channels, bias=bias)
    expected = torch.nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    y = frame_product(x, layer.weight, layer.bias)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_gradients_pass_through_every_form(frames: int) -> None:
    x = torch.randn(1, frames, 5, requires_grad=True)
    weight, bias = torch.randn(4, 5, requires_grad=True), torch.randn(4, requires_grad=True)
    frame_product(x, weight, bias).square().sum().backward()
    got = [tensor.grad.clone() for tensor in (x, weight, bias)]
    for tensor in (x, weight, bias):
        tensor.grad = None
    torch.nn.functional.linear(x, weight, bias).square().sum().backward()
    for mine, tensor in zip(got, (x, weight, bias), strict=True):
        torch.testing.assert_close(mine, tensor.grad, rtol=1e-5, atol=1e-5)


def test_several_products_are_each_of_them() -> None:
    x = torch.randn(1, 1, 6)
    layers = [(torch.randn(4, 6), torch.randn(4)), (torch.randn(3, 6), None)]
    for y, (weight, bias) in zip(frame_products(x, *layers), layers, strict=True):
        torch.testing.assert_close(y, torch.nn.functional.linear(x, weight, bias), rtol=0, atol=1e-5)


def test_a_layout_follows_weights_that_are_written_to_or_replaced() -> None:
    live = Live()
    x, weight = torch.randn(1, 8, 6), torch.nn.Parameter(torch.randn(4, 6))
    for change in (lambda: weight.mul_(2), lambda: weight.add_(1), lambda: None):
        with torch.no_grad():
            change()
        with live.run(), torch.inference_mode():
            y = frame_product(x, weight)
        torch.testing.assert_close(y.clone(), x @ weight.detach().T, rtol=0, atol=1e-5)
    with torch.no_grad():
        weight.data = torch.randn(4, 6)
    with live.run(), torch.inference_mode():
        torch.testing.assert_close(frame_product(x, weight), x @ weight.detach().T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize("kernel", [1, 3, 4])
@pytest.mark.parametrize("frames", [1, 2, 63, 66])
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("frames_first", [False, True])
def test_convolutions_of_few_frames_are_those_of_many(
    groups: int, kernel: int, frames: int, live: bool, frames_first: bool
) -> None:
    block = Conv(Stream(50, 8), channels=8, kernel=kernel, stride=2, dilation=3, groups=groups).double()
    x = torch.randn(2, 8, 2 * frames, dtype=torch.float64)
    if frames_first:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    padded = torch.nn.functional.pad(x, (block.history, 0))
    first = block.history + block.newest + 1 - block.span
    expected = torch.nn.functional.conv1d(padded[..., first:], block.weight, block.bias, 2, 0, 3, groups)
    with Live().run() if live else nullcontext():
        y, state = block.step(x, block.init_state(2, dtype=x.dtype), ())
    torch.testing.assert_close(y, expected[..., :frames], rtol=0, atol=1e-12)
    assert state == () or state.is_contiguous()


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(14, 7), (3, 3), (2, 5), (9, 2)])
def test_transposed_convolutions_of_few_frames_are_those_of_many(frames: int, kernel: int, stride: int) -> None:
    block = TransposedConv(Stream(25, 3), channels=4, kernel=kernel, stride=stride).double()
    x = torch.randn(2, 3, frames, dtype=torch.float64)
    whole = torch.nn.functional.conv_transpose1d(x, block.weight, block.bias, stride)
    whole = torch.nn.functional.pad(whole, (0, frames * stride))[..., : frames * stride]
    if kernel < stride:
        at = torch.arange(frames * stride) >= (frames - 1) * stride + kernel
        whole[..., at] = block.bias[:, None]
    torch.testing.assert_close(block(x), whole, rtol=0, atol=1e-12)
