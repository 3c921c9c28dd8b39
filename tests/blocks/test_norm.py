from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from astrape.blocks import Stream, block_class
from astrape.blocks.norm import Norm
from astrape.errors import CausalityError
from tests.blocks.chunks import assert_chunks_agree, assert_declared, chunk_lists, noise, run_chunks

SOURCE = Stream(100, 4)


def randomise(block: Norm) -> Norm:
    """Weight and bias away from one and zero, in float64."""
    generator = torch.Generator().manual_seed(1)
    block = block.double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return block


def naive_cumulative(
    x: npt.NDArray[np.float64], *, group: str, warmup: int, floor: float, eps: float
) -> npt.NDArray[np.float64]:
    """Statistics of each prefix from scratch, virtual frames and all."""
    batch, channels, frames = x.shape
    y = np.empty_like(x)
    for row in range(batch):
        for frame in range(frames):
            for channel in range(channels):
                rows = slice(None) if group == "all" else slice(channel, channel + 1)
                heard = x[row, rows, : frame + 1].ravel()
                virtual = warmup * (channels if group == "all" else 1)
                count = len(heard) + virtual
                mean = heard.sum() / count
                variance = (((heard - mean) ** 2).sum() + virtual * (1 + mean**2)) / count
                y[row, channel, frame] = (x[row, channel, frame] - mean) / math.sqrt(max(variance, floor) + eps)
    return y


def test_layer_equals_torch() -> None:
    block = randomise(Norm(SOURCE))
    layer = nn.LayerNorm(4).double()
    layer.load_state_dict(block.state_dict())
    x = noise(block, 6)
    torch.testing.assert_close(block(x), layer(x.transpose(1, 2)).transpose(1, 2), rtol=1e-12, atol=1e-12)


def test_rms_equals_its_formula() -> None:
    block = randomise(Norm(SOURCE, kind="rms", eps=1e-3))
    x = noise(block, 6)
    layer = nn.RMSNorm(4, eps=1e-3).double()
    layer.load_state_dict(block.state_dict())
    torch.testing.assert_close(block(x), layer(x.transpose(1, 2)).transpose(1, 2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("group", "groups"), [("channel", 4), ("all", 1)])
def test_utterance_equals_group_norm_and_looks_ahead(group: str, groups: int) -> None:
    block = randomise(Norm(SOURCE, kind="utterance", group=group))
    layer = nn.GroupNorm(groups, 4).double()
    layer.load_state_dict(block.state_dict())
    x = noise(block, 9)
    torch.testing.assert_close(block(x), layer(x), rtol=1e-12, atol=1e-12)
    assert block.lookahead is None
    with pytest.raises(CausalityError, match="looks ahead"):
        block.step(x, block.init_state(2), {})


@settings(max_examples=25, deadline=None)
@given(
    group=st.sampled_from(["channel", "all"]),
    warmup=st.integers(0, 5),
    floor=st.sampled_from([0.0, 0.5]),
    offset=st.sampled_from([0.0, 3.0]),
    chunks=chunk_lists,
    seed=st.integers(0, 99),
)
def test_cumulative_equals_the_statistics_of_every_prefix(
    group: str, warmup: int, floor: float, offset: float, chunks: list[int], seed: int
) -> None:
    block = Norm(SOURCE, kind="cumulative", group=group, warmup=warmup, floor=floor, affine=False)
    x = noise(block, sum(chunks), seed=seed) + offset
    want = naive_cumulative(x.numpy(), group=group, warmup=warmup, floor=floor, eps=1e-5)
    for y in (block(x), run_chunks(block, x, chunks)[""]):
        np.testing.assert_allclose(y.numpy(), want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("group", ["channel", "all"])
def test_the_last_frame_is_as_under_the_utterance(group: str) -> None:
    block = randomise(Norm(SOURCE, kind="cumulative", group=group))
    whole = randomise(Norm(SOURCE, kind="utterance", group=group))
    x = noise(block, 50)
    torch.testing.assert_close(block(x)[..., -1], whole(x)[..., -1], rtol=1e-10, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(["layer", "rms", "cumulative"]), chunks=chunk_lists)
def test_chunks_agree(kind: str, chunks: list[int]) -> None:
    assert_chunks_agree(randomise(Norm(SOURCE, kind=kind)), chunks)


def test_declared_times() -> None:
    for kind in ("layer", "rms"):
        assert_declared(Norm(SOURCE, kind=kind))
    cumulative = Norm(SOURCE, kind="cumulative")
    assert (cumulative.lookahead, cumulative.latency, cumulative.receptive_field) == (0, 0, None)
    assert cumulative.oldest_input(0) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_week_later_statistics_are_still_exact(dtype: torch.dtype) -> None:
    """Six hundred thousand seconds at 44.1 kHz, offset a thousand spreads, then one second more in single frames."""
    block = Norm(Stream(44100, 1), kind="cumulative", affine=False)
    count, mean, variance = 44100 * 604800, 1000.0, 1.0
    state = {
        "count": torch.full((1, 1, 1), count),
        "mean": torch.full((1, 1, 1), mean, dtype=torch.float64),
        "deviation": torch.full((1, 1, 1), count * variance, dtype=torch.float64),
    }
    generator = torch.Generator().manual_seed(2)
    x = (mean + torch.randn(1, 1, 2000, generator=generator, dtype=torch.float64)).to(dtype)
    parts = []
    for frame in x.split(1, dim=-1):
        y, state = block.step(frame, state, {})
        parts.append(y)
    assert int(state["count"]) == count + 2000
    heard = x[0, 0].numpy().astype(np.longdouble)
    total = count + 2000
    expected_mean = mean + (heard - mean).sum() / total
    expected = count * np.longdouble(variance) + ((heard - mean) ** 2).sum() - (expected_mean - mean) ** 2 * total
    # Each of the 2000 updates rounds once, by half a unit in the last place at most.
    assert float(state["mean"]) == pytest.approx(float(expected_mean), rel=2000 * 2**-53)
    assert float(state["deviation"] / total) == pytest.approx(float(expected / total), rel=2000 * 2**-53)
    want = (x.double() - float(expected_mean)) * float(expected / total + 1e-5) ** -0.5
    torch.testing.assert_close(torch.cat(parts, dim=-1).double(), want, rtol=1e-6, atol=1e-6)


def test_an_offset_of_a_million_spreads_costs_no_accuracy() -> None:
    block = Norm(SOURCE, kind="cumulative", affine=False, eps=0)
    x = noise(block, 400, batch=1)
    plain, moved = block(x)[..., 1:], block(x + 1e6)[..., 1:]
    torch.testing.assert_close(moved, plain, rtol=1e-6, atol=1e-6)


def test_silence_then_sound_is_held_by_the_floor() -> None:
    quiet = torch.zeros(1, 4, 500, dtype=torch.float64)
    x = torch.cat([quiet, torch.full((1, 4, 1), 0.01, dtype=torch.float64)], dim=-1)
    bare = Norm(SOURCE, kind="cumulative", affine=False, eps=0)(x)[..., -1]
    held = Norm(SOURCE, kind="cumulative", affine=False, eps=0, floor=1e-2)(x)[..., -1]
    assert float(bare.max()) == pytest.approx(math.sqrt(500), rel=1e-3)
    assert float(held.max()) < 0.1


def test_warm_up_leaves_the_start_almost_unnormalised() -> None:
    x = noise(Norm(SOURCE), 4)
    late = Norm(SOURCE, kind="cumulative", affine=False, warmup=10000)(x)
    torch.testing.assert_close(late, x, rtol=2e-3, atol=2e-3)
    first = Norm(SOURCE, kind="cumulative", affine=False)(x)
    assert float(first[..., 0].abs().max()) == 0
    assert float((first[..., 1].abs() - 1).abs().max()) < 1e-2


def test_state_keeps_its_width_in_half_precision() -> None:
    block = Norm(SOURCE, kind="cumulative")
    state = block.init_state(2, dtype=torch.bfloat16)
    assert {name: leaf.dtype for name, leaf in state.items()} == {
        "count": torch.int64,
        "mean": torch.float64,
        "deviation": torch.float64,
    }
    assert block.bfloat16().step(torch.ones(2, 4, 3, dtype=torch.bfloat16), state, {})[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "batch"},
        {"group": "pairs"},
        *({"eps": eps} for eps in (-1, math.nan)),
        *({"warmup": warmup} for warmup in (-1, 1 << 40, 0.5)),
        *({"floor": floor} for floor in (-1, math.inf)),
    ],
)
def test_refuses(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Norm(SOURCE, **({"kind": "cumulative"} | wrong))  # type: ignore[arg-type]
    assert block_class("norm") is Norm


@settings(max_examples=25, deadline=None)
@given(
    group=st.sampled_from(["channel", "all"]),
    warmup=st.sampled_from([0, 5]),
    chunks=chunk_lists,
    seed=st.integers(0, 99),
)
def test_skipped_silence_leaves_the_rest_as_without_it(group: str, warmup: int, chunks: list[int], seed: int) -> None:
    block = randomise(Norm(SOURCE, kind="cumulative", group=group, warmup=warmup, skip_silence=True))
    x = noise(block, 40)
    muted = torch.rand(40, generator=torch.Generator().manual_seed(seed)) < 0.5
    x[..., muted] = 0
    # A zero in one channel is a value like any other.
    x[:, 0, ~muted] *= torch.rand(int((~muted).sum()), generator=torch.Generator().manual_seed(seed + 1)) < 0.7
    y = run_chunks(block, x, [*chunks, 40 - sum(chunks)] if sum(chunks) < 40 else [40])[""]
    plain = randomise(Norm(SOURCE, kind="cumulative", group=group, warmup=warmup))
    torch.testing.assert_close(y[..., ~muted], plain(x[..., ~muted]), rtol=1e-9, atol=1e-9)
    assert torch.isfinite(y).all()


def test_what_zeros_in_the_middle_do_is_what_the_documentation_says() -> None:
    x = torch.randn(1, 1, 1100, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    x[..., 100:] = 0
    x[..., -1] = 1.0
    for skips, expected in ((True, 1.0), (False, 11**0.5)):
        y = Norm(Stream(100, 1), kind="cumulative", affine=False, skip_silence=skips).double()(x)
        assert abs(float(y[0, 0, -1]) / expected - 1) < 0.15
