"""The limiter's promise, and its formula; saturation by its curves."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.blocks import Stream
from astrape.blocks.limiter import Limiter, Saturation, sliding_maximum
from tests.blocks.chunks import assert_chunks_agree, chunk_lists

RATE = 8000


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def bursts(frames: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    levels = 10 ** (2 * torch.rand(1, 1, frames // 50 + 1, generator=random) - 1.5)
    return torch.randn(1, 2, frames, generator=random) * levels.repeat_interleave(50, dim=-1)[..., :frames]


@settings(deadline=None, max_examples=25)
@given(
    ceiling_db=st.floats(-40, 0),
    lookahead_ms=st.sampled_from([0.0, 0.125, 1.0, 7.3]),
    release_ms=st.sampled_from([0.0, 2.0, 300.0]),
    seed=st.integers(0, 99),
)
def test_it_is_its_formula_and_nothing_exceeds_the_ceiling(ceiling_db, lookahead_ms, release_ms, seed):
    x = bursts(600, seed)
    block = Limiter(Stream(RATE, 2), ceiling_db=ceiling_db, lookahead_ms=lookahead_ms, release_ms=release_ms)
    y, ahead, ceiling = block(x), block.ahead, 10 ** (ceiling_db / 20)
    assert block.latency * RATE == ahead
    assert float(y.abs().max()) <= ceiling
    decay = math.exp(-1 / max(release_ms * RATE / 1000, 0.02))
    over = [max(0.0, 20 * math.log10(max(1e-6, float(level))) - ceiling_db) for level in x[0].abs().amax(0)]
    weights = [1 - math.cos(2 * math.pi * (k + 0.5) / (ahead + 1)) for k in range(ahead + 1)]
    held, before = [], 0.0
    for n in range(600):
        before = max(*over[max(0, n - ahead) : n + 1], decay * before)
        held.append(before)
    for n in range(ahead, 600):
        reduction = sum(w * (held[n - k] if n >= k else 0) for k, w in enumerate(weights)) / sum(weights)
        expected = x[0, :, n - ahead] * 10 ** (-reduction / 20)
        assert torch.allclose(y[0, :, n], expected, atol=1e-9)


def test_in_single_precision_nothing_exceeds_the_ceiling_either():
    block = Limiter(Stream(RATE, 2), ceiling_db=-3.0).float()
    y = block(bursts(20000, 5).float())
    assert float(y.abs().max()) <= float(torch.tensor(10 ** (-3 / 20), dtype=torch.float32))


def test_what_is_below_the_ceiling_is_only_delayed():
    x = 0.8 * torch.rand(1, 2, 500, generator=torch.Generator().manual_seed(1))
    block = Limiter(Stream(RATE, 2))
    assert torch.equal(block(x)[..., block.ahead :], x[..., : 500 - block.ahead])


def test_the_gain_falls_before_the_peak_comes():
    x = torch.full((1, 1, 400), 0.1)
    x[..., 200] = 10.0
    block = Limiter(Stream(RATE, 1), lookahead_ms=4.0, ceiling_db=0.0)
    gain = block(x)[0, 0, block.ahead :] / x[0, 0, : 400 - block.ahead]
    assert float(gain[200]) == pytest.approx(0.1)
    assert float(gain[167]) == pytest.approx(1)
    assert (gain[168:201].diff() < 0).all()
    assert float(-gain[150:250].log10().diff().min() * 20) < 2 * 20 / 33 * 1.01 + 1, "no click"


@settings(deadline=None, max_examples=15)
@given(chunks=chunk_lists)
def test_chunking_never_matters(chunks):
    assert_chunks_agree(Limiter(Stream(RATE, 2), ceiling_db="c", lookahead_ms=2.0), chunks, c=-6.0)
    assert_chunks_agree(Limiter(Stream(RATE, 1), ceiling_db=-6.0, lookahead_ms=0.0), chunks)
    assert_chunks_agree(Saturation(Stream(RATE, 2), drive_db="d"), chunks, d=6.0)


@settings(max_examples=30)
@given(length=st.integers(1, 40), seed=st.integers(0, 99))
def test_sliding_maximum_is_a_maximum_that_slides(length, seed):
    x = torch.randn(2, 1, 50, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(sliding_maximum(x, length), x.unfold(-1, length, 1).amax(-1))


@pytest.mark.parametrize("shape", ["tanh", "soft", "hard"])
def test_curves_are_straight_in_the_middle_and_bounded(shape):
    block = Saturation(Stream(RATE, 1), shape=shape, drive_db=6.0, output_db=-3.0)
    x = torch.linspace(-10, 10, 2001)[None, None]
    y, drive, output = block(x), 10 ** (6 / 20), 10 ** (-3 / 20)
    assert (y.diff() >= -1e-12).all()
    assert torch.allclose(y, -y.flip(-1))
    assert float(y.max()) == pytest.approx(output, rel=1e-6)
    small = 1e-5 * torch.ones(1, 1, 1)
    assert float(block(small)) == pytest.approx(1e-5 * drive * output, rel=1e-6)
    expected = {
        "tanh": lambda u: math.tanh(u),
        "hard": lambda u: max(-1.0, min(1.0, u)),
        "soft": lambda u: u - 4 / 27 * u**3 if abs(u) < 1.5 else math.copysign(1, u),
    }[shape]
    for value, bent in zip(x[0, 0, ::50].tolist(), y[0, 0, ::50].tolist(), strict=True):
        assert bent == pytest.approx(output * expected(drive * value), abs=1e-12)


@pytest.mark.parametrize("wrong", [{"ceiling_db": 1.0}, {"lookahead_ms": 200.0}, {"release_ms": -1.0}])
def test_a_limiter_names_what_is_wrong(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limiter(Stream(RATE, 1), **wrong)


@pytest.mark.parametrize("wrong", [{"shape": "round"}, {"drive_db": 90.0}])
def test_saturation_names_what_is_wrong(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Saturation(Stream(RATE, 1), **wrong)
