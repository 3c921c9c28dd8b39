from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.blocks import Stream, block_class
from astrape.blocks.plumbing import Add, Concat, Delay, Gain, Mix, Multiply, Split
from astrape.errors import RateError, StreamError
from tests.blocks.chunks import assert_chunks_agree, assert_declared, chunk_lists, noise, run_chunks

AUDIO = Stream(16000, 2)


def test_names() -> None:
    named = {"delay": Delay, "gain": Gain, "add": Add, "multiply": Multiply, "mix": Mix, "concat": Concat}
    named["split"] = Split
    assert {name: block_class(name) for name in named} == named


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(0, 12), chunks=chunk_lists)
def test_delay_is_a_shift_with_zeros_before(frames: int, chunks: list[int]) -> None:
    block = Delay(AUDIO, frames=frames)
    x = noise(block, sum(chunks))
    shifted = torch.cat([torch.zeros(2, 2, frames, dtype=x.dtype), x], dim=-1)[..., : x.shape[-1]]
    assert torch.equal(block(x), shifted)
    assert torch.equal(run_chunks(block, x, chunks)[""], shifted)


@pytest.mark.parametrize("frames", [0, 1, 7])
def test_delay_declares_what_it_does(frames: int) -> None:
    block = Delay(AUDIO, frames=frames)
    assert block.latency == Fraction(frames, 16000)
    assert_declared(block)


def test_an_echo_is_no_latency() -> None:
    block = Delay(AUDIO, frames=100, compensate=False)
    assert (block.latency, block.latency_by) == (0, "declared")
    assert block.receptive_field == Fraction(101, 16000)


@pytest.mark.parametrize("ms", [Fraction(5, 2), "5/2", 2.5, "2.5"])
def test_milliseconds_are_exact(ms: float | str | Fraction) -> None:
    assert Delay(AUDIO, ms=ms).frames == 40


def test_decimal_milliseconds_count_as_written() -> None:
    assert Delay(Stream(10000, 1), ms=0.1).frames == 1


def test_a_fraction_of_a_frame_is_refused_with_the_nearest_two() -> None:
    with pytest.raises(ValueError, match=r"44\.1 frames.*frames 44 \(ms '440/441'\) or 45 \(ms '50/49'\)"):
        Delay(Stream(44100, 1), ms=1)
    assert Delay(Stream(44100, 1), ms="440/441").frames == 44


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"frames": 1, "ms": 1},
        *({"frames": frames} for frames in (-1, 1 << 40, True, 1.5)),
        *({"ms": ms} for ms in (-1, math.nan, 1e300, "soon", "1/0", "1e999999999", True, [])),
    ],
)
def test_delay_refuses(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"frames|ms"):
        Delay(AUDIO, **given)  # type: ignore[arg-type]


def test_delay_asserts_its_stream() -> None:
    assert Delay(AUDIO, frames=1, rate="16000", channels=2).frames == 1
    for wrong in ({"rate": 8000}, {"channels": 1}):
        with pytest.raises(RateError, match="meant for"):
            Delay(AUDIO, frames=1, **wrong)  # type: ignore[arg-type]


def test_fixed_gain() -> None:
    block = Gain(AUDIO, gain=-0.5)
    x = noise(block, 9)
    assert torch.equal(block(x), -0.5 * x)
    assert_declared(block)


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.tuples(st.floats(-4, 4), st.integers(1, 40)), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_live_gain_follows_the_recursion_wherever_it_is_cut(values: list[tuple[float, int]], seed: int) -> None:
    """The closed form within a step against the recursion frame by frame, with each step cut again at random."""
    block = Gain(AUDIO, gain="level", smooth_ms=1.0)
    generator = torch.Generator().manual_seed(seed)
    pole = math.exp(-1 / 16)
    state, level, ys, want = block.init_state(1, dtype=torch.float64), values[0][0], [], []
    for value, frames in values:
        first = int(torch.randint(0, frames + 1, (1,), generator=generator))
        for count in (first, frames - first):
            controls = block.read_controls({"level": value}, torch.ones(1, 2, 1, dtype=torch.float64))
            y, state = block.step(torch.ones(1, 2, count, dtype=torch.float64), state, block.prepare(controls))
            ys.append(y)
        for _ in range(frames):
            level += (1 - pole) * (value - level)
            want.append(level)
    expected = torch.tensor(want, dtype=torch.float64).expand(1, 2, -1)
    torch.testing.assert_close(torch.cat(ys, dim=-1), expected, rtol=1e-10, atol=1e-10)


def test_live_gain_starts_at_its_first_value_and_changes_without_a_click() -> None:
    block = Gain(Stream(16000, 1), gain="level")
    ones = torch.ones(1, 1, 800)
    first, state = block.step(ones, block.init_state(1), {"level": torch.tensor([[0.25]])})
    second, _ = block.step(ones, state, {"level": torch.tensor([[1.0]])})
    assert torch.equal(first, torch.full_like(first, 0.25))
    assert float(torch.cat([first, second], dim=-1).diff().abs().max()) < 0.75 / 80
    assert float(second[..., -1]) == pytest.approx(1, abs=1e-4)


def test_zero_smoothing_jumps() -> None:
    block = Gain(AUDIO, gain="level", smooth_ms=0)
    state = block.init_state(1)
    for value in (0.5, -2.0):
        y, state = block.step(torch.ones(1, 2, 3), state, {"level": torch.tensor([[value]])})
        assert torch.equal(y, torch.full((1, 2, 3), value))


def test_live_gain_needs_its_control() -> None:
    with pytest.raises(StreamError, match="level"):
        Gain(AUDIO, gain="level")(torch.ones(1, 2, 4))


@given(chunks=chunk_lists)
@settings(max_examples=10, deadline=None)
def test_live_blocks_do_not_depend_on_chunks(chunks: list[int]) -> None:
    assert_chunks_agree(Gain(AUDIO, gain="g"), chunks, g=0.3)
    assert_chunks_agree(Mix({"a": AUDIO, "b": AUDIO}, wet="w"), chunks, w=0.3)
    assert_chunks_agree(Add({"a": AUDIO, "b": AUDIO, "c": AUDIO}), chunks)
    assert_chunks_agree(Concat({"a": AUDIO, "b": Stream(16000, 1)}), chunks)
    assert_chunks_agree(Split(AUDIO, parts=[1, 1]), chunks)


def test_fan_in_values() -> None:
    a, b = torch.randn(2, 2, 5), torch.randn(2, 2, 5)
    sources = {"a": AUDIO, "b": AUDIO}
    both = {"a": a, "b": b}
    assert torch.equal(Add(sources)(both), a + b)
    assert torch.equal(Concat(sources)(both), torch.cat([a, b], dim=1))
    torch.testing.assert_close(Mix(sources, weights=[0.5, -2])(both), 0.5 * a - 2 * b)
    torch.testing.assert_close(Mix(sources, wet=0.25)(both), 0.75 * a + 0.25 * b)
    torch.testing.assert_close(Mix(sources, wet="w")(both, w=1.0), b)
    torch.testing.assert_close(Mix(sources, weights=["w", "w"])(both, w=0.5), (a + b) / 2)


def test_split_is_concat_undone() -> None:
    block = Split(Stream(100, 6), parts=[1, 3, 2])
    x = torch.randn(2, 6, 4)
    parts = block(x)
    assert {name: stream.channels for name, stream in block.outputs.items()} == {"0": 1, "1": 3, "2": 2}
    assert torch.equal(Concat(block.outputs)(parts), x)


def test_fan_in_refuses() -> None:
    mixed = {"a": AUDIO, "b": Stream(16000, 3)}
    for build in (Add, lambda sources: Mix(sources, wet=0.5)):
        with pytest.raises(RateError, match="channel count, not 'a' 2, 'b' 3"):
            build(mixed)
    with pytest.raises(RateError, match="one rate"):
        Concat({"a": AUDIO, "b": Stream(8000, 2)})
    pair = {"a": AUDIO, "b": AUDIO}
    for wrong in ({}, {"wet": 0.5, "weights": [1, 1]}, {"weights": [1]}, {"weights": "ab"}, {"weights": [1, math.inf]}):
        with pytest.raises(ValueError, match=r"weights|gain"):
            Mix(pair, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two inputs"):
        Mix({"a": AUDIO}, wet=0.5)
    for parts in ([], [1], [3], [0, 2], "11", 2):
        with pytest.raises(ValueError, match="parts"):
            Split(AUDIO, parts=parts)  # type: ignore[arg-type]
    for gain in (math.nan, True, None):
        with pytest.raises(ValueError, match="gain"):
            Gain(AUDIO, gain=gain)  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(
    widths=st.lists(st.sampled_from([1, 3]), min_size=1, max_size=4), frames=st.integers(0, 6), seed=st.integers(0, 99)
)
def test_multiply_is_the_product_value_by_value(widths: list[int], frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    given_ = {str(place): rng.standard_normal((2, width, frames)) for place, width in enumerate(widths)}
    block = Multiply({name: Stream(100, width) for name, width in zip(given_, widths, strict=True)})
    want = np.ones((2, max(widths), frames))
    for value in given_.values():
        want = want * value
    got = block({name: torch.from_numpy(value) for name, value in given_.items()})
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12)
    assert block.channels_out == max(widths)


def test_multiply_spreads_one_channel_only() -> None:
    with pytest.raises(RateError, match="multiply needs inputs of the same channel count, not 'a' 2, 'c' 3"):
        Multiply({"a": Stream(100, 2), "b": Stream(100, 1), "c": Stream(100, 3)})
    with pytest.raises(RateError, match="one rate"):
        Multiply({"a": Stream(100, 2), "b": Stream(50, 2)})


def test_multiply_is_differentiable_in_all_inputs() -> None:
    a, b = (torch.randn(1, width, 4, dtype=torch.float64, requires_grad=True) for width in (3, 1))
    block = Multiply({"a": Stream(100, 3), "b": Stream(100, 1)})
    assert torch.autograd.gradcheck(lambda x, y: block({"a": x, "b": y}), (a, b))
