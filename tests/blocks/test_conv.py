from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from astrape.blocks import Stream, block_class
from astrape.blocks.conv import Conv, Downsample, RepeatUpsample, TransposedConv
from astrape.blocks.state import state_bytes, state_leaves
from tests.blocks.chunks import assert_chunks_agree, assert_declared, chunk_lists, influence, noise

RATE = 1000

convs = st.fixed_dictionaries(
    {
        "kernel": st.integers(1, 7),
        "stride": st.integers(1, 6),
        "dilation": st.integers(1, 4),
        "align": st.sampled_from(["last", "first"]),
        "bias": st.booleans(),
        "groups": st.sampled_from([1, 2]),
    }
)
transposed = st.fixed_dictionaries(
    {
        "kernel": st.integers(1, 15),
        "stride": st.integers(1, 6),
        "groups": st.sampled_from([1, 2]),
        "bias": st.booleans(),
    }
)


def torch_conv(block: Conv, x: torch.Tensor, left: int) -> torch.Tensor:
    """torch's own layer with the block's weights, on input with ``left`` zeros before it (cut, where negative)."""
    layer = nn.Conv1d(
        block.channels_in,
        block.channels_out,
        block.kernel,
        block.stride,
        dilation=block.dilation,
        groups=block.groups,
        bias=block.bias is not None,
    ).double()
    layer.load_state_dict(block.state_dict())
    return layer(functional.pad(x, (left, 0)))


@settings(max_examples=80, deadline=None)
@given(params=convs, chunks=chunk_lists, seed=st.integers(0, 99))
def test_conv_equals_torch_with_explicit_padding_in_any_chunks(
    params: dict[str, object], chunks: list[int], seed: int
) -> None:
    block = Conv(Stream(RATE, 4), channels=6, **params).double()  # type: ignore[arg-type]
    x = noise(block, 3 + sum(chunks), seed=seed)
    left = block.span - (block.stride if block.align == "last" else 1)
    want = torch_conv(block, x, left)[..., : 3 + sum(chunks)]
    torch.testing.assert_close(block(x), want, rtol=1e-12, atol=1e-12)
    assert_chunks_agree(block, chunks, seed=seed)


@settings(max_examples=40, deadline=None)
@given(params=convs)
def test_conv_declares_what_gradients_measure(params: dict[str, object]) -> None:
    block = Conv(Stream(RATE, 2), channels=2, **params)  # type: ignore[arg-type]
    assert_declared(block, quanta=block.history // block.stride + 4)


def test_alignments_of_the_striding_adapter() -> None:
    shape = {"channels": 256, "kernel": 4, "stride": 4, "groups": 256}
    last = Conv(Stream(200, 512), **shape)  # type: ignore[arg-type]
    first = Conv(Stream(200, 512), align="first", **shape)  # type: ignore[arg-type]
    assert (last.latency, first.latency) == (0, Fraction(15, 1000))
    assert (state_bytes(last.init_state(1)), state_bytes(first.init_state(1))) == (0, 3 * 512 * 4)


def test_depthwise_is_one_group_a_channel() -> None:
    block = Conv(Stream(RATE, 6), kernel=3, depthwise=True)
    assert (block.groups, tuple(block.weight.shape)) == (6, (6, 1, 3))
    assert tuple(Conv(Stream(RATE, 6), channels=12, kernel=3, depthwise=True).weight.shape) == (12, 1, 3)


def test_state_is_no_longer_than_the_window_reaches_back() -> None:
    sizes = {(5, 1, 16): 64, (4, 4, 1): 0, (2, 5, 1): 0, (10, 5, 1): 5}
    for (kernel, stride, dilation), frames in sizes.items():
        block = Conv(Stream(RATE, 2), kernel=kernel, stride=stride, dilation=dilation)
        assert sum(leaf.shape[1] for _, leaf in state_leaves(block.init_state(1))) == frames


def test_first_weights_are_drawn_as_torch_draws_them() -> None:
    torch.manual_seed(3)
    block = Conv(Stream(RATE, 4), channels=6, kernel=3, groups=2)
    up = TransposedConv(Stream(RATE, 4), channels=6, kernel=5, stride=2)
    torch.manual_seed(3)
    oracle, oracle_up = nn.Conv1d(4, 6, 3, groups=2), nn.ConvTranspose1d(4, 6, 5, 2)
    for mine, theirs in ((block, oracle), (up, oracle_up)):
        assert {name: value.shape for name, value in mine.state_dict().items()} == {
            name: value.shape for name, value in theirs.state_dict().items()
        }
        for name, value in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[name], value)


@settings(max_examples=60, deadline=None)
@given(params=transposed, chunks=chunk_lists, seed=st.integers(0, 99))
def test_transposed_conv_equals_torch_cut_to_length(params: dict[str, object], chunks: list[int], seed: int) -> None:
    block = TransposedConv(Stream(RATE, 4), channels=6, **params).double()  # type: ignore[arg-type]
    x = noise(block, 2 + sum(chunks), seed=seed)
    layer = nn.ConvTranspose1d(
        4,
        6,
        block.kernel,
        block.stride,
        output_padding=0,
        groups=block.groups,
        bias=block.bias is not None,
    ).double()
    layer.load_state_dict(block.state_dict())
    full = layer(functional.pad(x, (0, 1)))
    torch.testing.assert_close(block(x), full[..., : x.shape[-1] * block.stride], rtol=1e-12, atol=1e-12)
    assert_chunks_agree(block, chunks, seed=seed)


@pytest.mark.parametrize(("kernel", "stride"), [(14, 7), (7, 7), (3, 7), (5, 1), (1, 4), (16, 7), (8, 7)])
def test_transposed_conv_declares_what_gradients_measure(kernel: int, stride: int) -> None:
    assert_declared(TransposedConv(Stream(RATE, 2), kernel=kernel, stride=stride))


def test_transposed_conv_of_the_decoder() -> None:
    block = TransposedConv(Stream(25, 2), kernel=14, stride=7)
    assert influence(block)[0] == influence(block)[6] == (-1, 0)
    assert (block.rate_out, block.receptive_field, block.init_state(1).shape) == (175, Fraction(2, 25), (1, 2, 7))


@settings(max_examples=20, deadline=None)
@given(factor=st.integers(1, 6), chunks=chunk_lists)
def test_down_and_up_in_chunks(factor: int, chunks: list[int]) -> None:
    assert_chunks_agree(Downsample(Stream(RATE, 3), factor=factor), chunks)
    assert_chunks_agree(RepeatUpsample(Stream(RATE, 3), factor=factor), chunks)


def test_down_and_up() -> None:
    down = Downsample(Stream(50, 3), factor=2, channels=5).double()
    up = RepeatUpsample(down.output, factor=3)
    x = noise(down, 4)
    y = down(x)
    torch.testing.assert_close(y, torch_conv(down, x, 0))
    assert torch.equal(up(y), y.unsqueeze(-1).expand(-1, -1, -1, 3).flatten(2))
    assert (down.rate_out, up.rate_out, down.latency, down.init_state(1)) == (25, 75, 0, ())
    assert_declared(down)
    assert_declared(up)


@pytest.mark.parametrize(
    "wrong",
    [{"kernel": value} for value in (0, -1, 10**9, 2.5, True, None)]
    + [{name: value} for name in ("channels", "stride", "dilation", "groups") for value in (0, 10**9)]
    + [{"groups": 3}, {"align": "middle"}, {"depthwise": True, "groups": 2}, {"kernel": 65536, "dilation": 65536}]
    + [{"kernel": 65536, "channels": 65536}],
)
def test_conv_refuses(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"kernel|channels|stride|dilation|groups|align|weight|state"):
        Conv(Stream(RATE, 4), **({"kernel": 3} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"kernel": 0}, {"stride": 0}, {"stride": 10**9}, {"channels": 0}, {"groups": 3}])
def test_transposed_conv_refuses(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TransposedConv(Stream(RATE, 4), **({"kernel": 3, "stride": 2} | wrong))  # type: ignore[arg-type]


def test_factors_are_checked_and_names_registered() -> None:
    for cls in (Downsample, RepeatUpsample):
        for factor in (0, 10**9, 1.5):
            with pytest.raises(ValueError, match="factor"):
                cls(Stream(RATE, 2), factor=factor)  # type: ignore[arg-type]
    named = {"conv": Conv, "downsample": Downsample, "transposed_conv": TransposedConv}
    named |= {"repeat_upsample": RepeatUpsample}
    assert {name: block_class(name) for name in named} == named
