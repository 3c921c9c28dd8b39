"""Feedback loops: equal in both modes to a sample-by-sample model, with any delay and any chunking."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import astrape
from astrape.testing.strategies import chunkings
from tests.graph.recipes import recipe


def echo(delay: int, feedback: float = 0.5, **rest):
    blocks = {
        "sum": {"use": "add", "from": ["mic", "quieter"]},
        "back": {"use": "delay", "frames": delay},
        "quieter": {"use": "gain", "gain": feedback},
    }
    return astrape.compile(recipe(blocks, outputs=rest.pop("outputs", {"wav": "sum"}), **rest)).double()


def comb(x: torch.Tensor, delay: int, feedback: float) -> torch.Tensor:
    y = x.clone()
    for n in range(delay, x.shape[-1]):
        y[..., n] = x[..., n] + feedback * y[..., n - delay]
    return y


@settings(max_examples=30, deadline=None)
@given(delay=st.integers(1, 40), chunks=chunkings(120), seed=st.integers(0, 99))
def test_an_echo_equals_the_difference_equation(delay, chunks, seed):
    graph = echo(delay)
    x = torch.randn(2, 1, 120, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    want = comb(x, delay, 0.5)
    torch.testing.assert_close(graph(x), want, rtol=0, atol=1e-12)
    session = graph.stream(batch_size=2)
    torch.testing.assert_close(
        torch.cat([session.push(part) for part in x.split(chunks, dim=-1)], dim=-1), want, rtol=0, atol=1e-12
    )


def test_the_loop_shows_no_latency_and_its_delay_output_does():
    graph = echo(40, outputs={"wav": "sum", "echo": "back"})
    assert graph.latencies == {"wav": 0, "echo": Fraction(40, 1000)}
    impulse = torch.zeros(1, 1, 100, dtype=torch.float64)
    impulse[..., 0] = 1
    y = graph(impulse)
    assert y["echo"][0, 0].nonzero().flatten().tolist() == [40, 80]
    assert y["wav"][0, 0].nonzero().flatten().tolist() == [0, 40, 80]


@pytest.mark.parametrize("delay", [12, 13, 24, 31])
def test_a_loop_around_a_larger_quantum(delay):
    """Frames of 12 are summed and spread inside the loop: one iteration takes 12 samples."""
    blocks = {
        "sum": {"use": "add", "from": ["mic", "back"]},
        "frames": {"use": "framing", "size": 12, "hop": 12},
        "spread": {"use": "overlap_add", "hop": 12},
        "half": {"use": "gain", "gain": -0.5},
        "back": {"use": "delay", "frames": delay},
    }
    graph = astrape.compile(recipe(blocks, outputs={"wav": "sum"})).double()
    x = torch.randn(1, 1, 96, dtype=torch.float64)
    torch.testing.assert_close(graph(x)[..., :96], comb(x, delay, -0.5)[..., :96], rtol=0, atol=1e-12)
    session = graph.stream()
    parts = [session.push(part) for part in x.split(5, dim=-1)]
    torch.testing.assert_close(torch.cat(parts, dim=-1), graph(x), rtol=0, atol=1e-12)


def test_a_delay_shorter_than_a_turn_is_refused():
    blocks = {
        "sum": {"use": "add", "from": ["mic", "back"]},
        "frames": {"use": "framing", "size": 12, "hop": 12},
        "spread": {"use": "overlap_add", "hop": 12},
        "back": {"use": "delay", "frames": 11},
    }
    with pytest.raises(astrape.CausalityError, match=r"never iterates.*11 frames is shorter than the 12.*at least 12"):
        astrape.compile(recipe(blocks, outputs={"wav": "sum"}))


def test_a_turn_may_interleave_its_members():
    """Two delays of 6 carry a turn of 12 although each is shorter than the turn."""
    blocks = {
        "sum": {"use": "add", "from": ["mic", "back"]},
        "block": {"use": "framing", "size": 4, "hop": 4, "from": "mic"},
        "spread": {"use": "overlap_add", "hop": 4},
        "both": {"use": "add", "from": ["spread", "sum"]},
        "back": {"use": "delay", "frames": 1},
    }
    graph = astrape.compile(recipe(blocks, outputs={"wav": "both"})).double()
    x = torch.randn(1, 1, 40, dtype=torch.float64)
    want = torch.zeros_like(x)
    for n in range(40):
        want[..., n] = 2 * x[..., n] + (want[..., n - 1] if n else 0)
    torch.testing.assert_close(graph(x), want, rtol=0, atol=1e-10)


def test_gradients_flow_through_a_loop():
    graph = echo(7)
    x = torch.randn(1, 1, 30, dtype=torch.float64, requires_grad=True)
    graph(x)[..., -1].sum().backward()
    assert x.grad is not None
    assert x.grad[0, 0].nonzero().flatten().tolist() == [29 - 7 * k for k in range(4, -1, -1)]


def test_a_loop_that_nothing_enters_is_refused():
    blocks = {
        "a": {"use": "delay", "frames": 3, "from": "b"},
        "b": {"use": "gain", "gain": 1, "from": "a"},
        "mix": {"use": "concat", "from": ["mic", "b"]},
    }
    with pytest.raises(astrape.RecipeError, match="nothing enters the loop"):
        astrape.compile(recipe(blocks))


def test_a_loop_delay_of_other_channels_asks_for_its_stream():
    blocks = {
        "join": {"use": "concat", "from": ["mic", "back"]},
        "wide": {"use": "linear", "channels": 3},
        "back": {"use": "delay", "frames": 2},
    }
    with pytest.raises(astrape.RateError, match=r"node 'back'.*3 channels.*`channels: 3`"):
        astrape.compile(recipe(blocks, outputs={"wav": "wide"}))
    blocks["back"] |= {"channels": 3}
    assert astrape.compile(recipe(blocks, outputs={"wav": "wide"})).outputs["wav"].channels == 3
