"""Gate and compressor against per-sample loops, over any chunking, and by what they do to signals."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.blocks.base import Stream, StreamBlock
from astrape.blocks.dynamics import Compressor, Gate, decaying_maximum

RATE = 8000


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def bursts(frames: int, channels: int, seed: int) -> torch.Tensor:
    """Noise whose level jumps between silence and full scale."""
    random = torch.Generator().manual_seed(seed)
    levels = torch.rand(2, 1, frames // 40 + 1, generator=random) ** 4
    return torch.randn(2, channels, frames, generator=random) * levels.repeat_interleave(40, dim=-1)[..., :frames]


def chunked(block: StreamBlock, x: torch.Tensor, sizes: list[int], **controls: float) -> torch.Tensor:
    prepared = block.prepare(block.read_controls(controls, x))
    state, parts, at = block.init_state(x.shape[0], dtype=x.dtype), [], 0
    for size in [*sizes, x.shape[-1]]:
        y, state = block.step(x[..., at : at + size], state, prepared)
        parts.append(y)
        at = min(at + size, x.shape[-1])
    return torch.cat(parts, dim=-1)


def gate_loop(x, threshold_db, floor_db, attack_ms, release_ms, hold_ms, hysteresis_db):
    """The gate as its documentation says it, one sample at a time."""
    opens, keeps = 10 ** (threshold_db / 20), 10 ** ((threshold_db - hysteresis_db) / 20)
    hold = round(hold_ms * RATE / 1000)
    attack, release = (math.exp(-1 / max(ms * RATE / 1000, 0.02)) for ms in (attack_ms, release_ms))
    is_open, quiet, target, openness, out = False, 10**9, 0.0, 0.0, []
    for frame in x.T:
        level = max(abs(float(value)) for value in frame)
        quiet = 0 if level >= keeps else quiet + 1
        if level >= opens:
            is_open = True
        elif quiet > hold:
            is_open = False
        target = 1.0 if is_open else target * release
        openness = attack * openness + (1 - attack) * target
        out.append(frame * 10 ** (floor_db * (1 - openness) / 20))
    return torch.stack(out, dim=-1)


def compressor_loop(x, threshold_db, ratio, attack_ms, release_ms, knee_db, makeup_db):
    """The compressor as its documentation says it, one sample at a time."""
    attack, release = (math.exp(-1 / max(ms * RATE / 1000, 0.02)) for ms in (attack_ms, release_ms))
    held, reduction, out = 0.0, 0.0, []
    for frame in x.T:
        over = 20 * math.log10(max(1e-6, *(abs(float(value)) for value in frame))) - threshold_db
        if over <= -knee_db / 2:
            bent = 0.0
        elif over < knee_db / 2:
            bent = (over + knee_db / 2) ** 2 / (2 * knee_db)
        else:
            bent = over
        held = max((1 - 1 / ratio) * bent, release * held)
        reduction = attack * reduction + (1 - attack) * held
        out.append(frame * 10 ** ((makeup_db - reduction) / 20))
    return torch.stack(out, dim=-1)


times = st.sampled_from([0.0, 0.5, 3.0, 40.0, 500.0])


@settings(deadline=None, max_examples=30)
@given(
    threshold_db=st.floats(-40, -3),
    floor_db=st.sampled_from([-80.0, -20.0, 0.0]),
    attack_ms=times,
    release_ms=times,
    hold_ms=times,
    hysteresis_db=st.sampled_from([0.0, 6.0]),
    seed=st.integers(0, 2**31),
)
def test_gate_equals_a_loop(seed, **params):
    x = bursts(500, 2, seed)
    y = Gate(Stream(RATE, 2), **params)(x)
    for row in range(2):
        assert torch.allclose(y[row], gate_loop(x[row], **params), atol=1e-10)


@settings(deadline=None, max_examples=30)
@given(
    threshold_db=st.floats(-40, 0),
    ratio=st.floats(1, 100),
    attack_ms=times,
    release_ms=times,
    knee_db=st.sampled_from([0.0, 6.0, 20.0]),
    makeup_db=st.floats(-10, 10),
    seed=st.integers(0, 2**31),
)
def test_compressor_equals_a_loop(seed, **params):
    x = bursts(400, 2, seed)
    y = Compressor(Stream(RATE, 2), **params)(x)
    for row in range(2):
        assert torch.allclose(y[row], compressor_loop(x[row], **params), atol=1e-10)


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(0, 300), max_size=10), seed=st.integers(0, 2**31))
def test_chunking_never_matters(sizes, seed):
    x = bursts(1200, 1, seed)
    for block, controls in (
        (Gate(Stream(RATE, 1), threshold_db="t"), {"t": -20.0}),
        (Gate(Stream(RATE, 1), threshold_db=-30.0, release_ms=5.0, hold_ms=4.0), {}),
        (Compressor(Stream(RATE, 1), threshold_db="t", ratio="r", makeup_db="m"), {"t": -30.0, "r": 4.0, "m": 3.0}),
    ):
        assert torch.allclose(chunked(block, x, sizes, **controls), block(x, **controls), atol=1e-10, rtol=0)


def test_nothing_after_a_sample_changes_it():
    x = bursts(600, 1, 3)
    changed = x.clone()
    changed[..., 400:] = 1.0
    for block in (Gate(Stream(RATE, 1)), Compressor(Stream(RATE, 1))):
        assert torch.equal(block(x)[..., :400], block(changed)[..., :400])


def test_gate_passes_speech_level_and_silences_room_noise():
    random = torch.Generator().manual_seed(1)
    noise = 10 ** (-65 / 20) * torch.randn(1, 1, RATE, generator=random)
    tone = 0.2 * torch.sin(2 * math.pi * 200 * torch.arange(RATE) / RATE)[None, None]
    y = Gate(Stream(RATE, 1), threshold_db=-45.0)(torch.cat([noise, tone, noise], dim=-1))
    assert y[..., :RATE].abs().max() < 10 ** (-60 / 20) * noise.abs().max() * 1.001
    assert torch.allclose(y[..., RATE + 400 : 2 * RATE], tone[..., 400:], atol=1e-6)
    assert y[..., -RATE // 4 :].abs().max() < 10 ** (-100 / 20)


def test_compressor_reaches_the_static_curve():
    t = torch.arange(4 * RATE) / RATE
    tone = 10 ** (-8 / 20) * torch.sign(torch.sin(2 * math.pi * 100 * t))[None, None]
    y = Compressor(Stream(RATE, 1), threshold_db=-20.0, ratio=4.0)(tone)
    assert 20 * math.log10(float(y[..., -1].abs())) == pytest.approx(-17, abs=0.01)


@pytest.mark.parametrize("time_constant", [0.02, 3.0, 70.0, 500.0])
def test_decaying_maximum_equals_a_loop_over_several_stretches(time_constant):
    x = bursts(20_000, 1, 11)[:1].abs() ** 3
    expected, held = [], 0.5
    for value in x[0, 0].tolist():
        held = max(value, held * math.exp(-1 / time_constant))
        expected.append(held)
    y = decaying_maximum(x, torch.tensor([[[0.5]]]), time_constant)
    assert torch.allclose(y[0, 0], torch.tensor(expected), rtol=1e-12, atol=1e-15)


def test_a_week_of_silence_leaves_the_counters_sound():
    block = Gate(Stream(RATE, 1))
    state = block.init_state(1)
    state["since"] = torch.full((1, 2), 2**40)
    y, state = block.step(torch.zeros(1, 1, 1000), state, block.prepare({}))
    assert int(state["since"].max()) == 2**40
    y, state = block.step(torch.full((1, 1, 400), 0.5), state, block.prepare({}))
    assert float(y[0, 0, -1]) == pytest.approx(0.5, abs=1e-6)


def test_compressor_has_gradients_and_survives_silence():
    block = Compressor(Stream(RATE, 1), threshold_db=-30.0)
    x = bursts(60, 1, 7)[:1].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: block(x), (x,))
    silent = torch.zeros(1, 1, 50, requires_grad=True)
    block(silent).sum().backward()
    assert torch.isfinite(silent.grad).all()


@pytest.mark.parametrize(
    ("block", "wrong"),
    [
        (Gate, {"threshold_db": 3.0}),
        (Gate, {"hold_ms": -1.0}),
        (Gate, {"floor_db": float("nan")}),
        (Compressor, {"ratio": 0.5}),
        (Compressor, {"release_ms": 1e9}),
    ],
)
def test_wrong_parameters_are_named(block, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        block(Stream(RATE, 1), **wrong)


@pytest.mark.parametrize("seconds", [0.02, 0.5, 5.0])
def test_a_mute_is_forgotten_as_fast_as_the_block_releases(seconds):
    tone = 0.3 * torch.sin(2 * math.pi * 200 * torch.arange(RATE) / RATE)[None, None]
    x = torch.cat([tone, torch.zeros(1, 1, round(seconds * RATE)), tone], dim=-1)
    for block in (Gate(Stream(RATE, 1)), Compressor(Stream(RATE, 1))):
        y = block(x)
        assert torch.allclose(y[..., -RATE // 2 :], y[..., RATE // 2 : RATE], atol=1e-3)
        assert not y[..., RATE:-RATE].any()
