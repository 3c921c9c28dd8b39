"""Sessions with a chunk: what is replayed is what the graph gives, to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import astrape
from astrape.blocks import StreamBlock, register
from astrape.graph.firing import Firing
from tests.graph.random_recipes import compiled, random_recipes
from tests.graph.recipes import recipe
from tests.graph.replaying import assert_equal, noise


@settings(max_examples=40, deadline=None)
@given(recipe=random_recipes(), seed=st.integers(0, 99), frames=st.integers(1, 24), constant=st.booleans())
def test_random_graphs(recipe, seed, frames, constant):
    graph = compiled(recipe, seed)
    first = next(iter(graph.inputs.values())).rate
    chunk = {name: max(1, int(frames * stream.rate / first)) for name, stream in graph.inputs.items()}
    captured = graph.stream(chunk=chunk, constant_latency=constant)
    plain = graph.stream(constant_latency=constant)
    assert captured.uncaptured is None
    for push in range(12):
        # One push of another length leads off the beaten track, and the flush at the end begins anew.
        now = chunk if push != 8 else {name: 2 * count + 1 for name, count in chunk.items()}
        given_now = {"level": 0.3} if push == 5 and "level" in graph.controls else {}
        x = noise(graph, now, seed + push)
        assert_equal(graph, captured.push(x, **given_now), plain.push(x, **given_now))
        if push == 10:
            assert_equal(graph, captured.flush(), plain.flush())


@pytest.mark.parametrize(
    ("name", "chunk", "captured_steps"),
    [
        ("astrape-vc-small", 441, 4),
        ("astrape-vc-small", 512, 8),
        ("astrape-vc-small", 1764, 1),
        ("voice-changer", 256, 3),
    ],
)
def test_shipped_recipes(name, chunk, captured_steps):
    torch.manual_seed(0)
    graph = astrape.load(name).eval()
    captured, plain = graph.stream(2, chunk=chunk), graph.stream(2)
    assert (captured.captured_steps, captured.uncaptured) == (captured_steps, None)
    for push in range(24):
        controls = {}
        if push in (0, 9):
            controls = {
                control: torch.randn(2, channels) if channels > 1 else graph.control_specs[control].default or 0.0
                for control, channels in graph.controls.items()
            }
        if push == 15 and "pitch" in graph.controls:
            controls = {"pitch": 5.0}
        x = noise(graph, {"mic": chunk}, push, batch=2)
        assert_equal(graph, captured.push(x, **controls), plain.push(x, **controls))


@pytest.mark.parametrize(
    ("name", "chunk", "captured_steps"),
    [("voice-changer", 441, 10), ("voice-changer", 480, 10), ("denoiser", 512, 10), ("astrape-vc-small", 480, 20)],
)
def test_every_push_of_the_length_is_replayed(name, chunk, captured_steps, monkeypatch):
    graph = astrape.load(name).eval()
    session = graph.stream(chunk=chunk)
    assert 0 < session.captured_steps <= captured_steps
    controls = {control: torch.zeros(count) for control, count in graph.controls.items() if count > 1}
    run = Firing.fire

    def watched(self: Firing, counts: Any, *rest: Any) -> Any:
        assert not any(counts), f"run and not replayed: {counts}"
        return run(self, counts, *rest)

    monkeypatch.setattr(Firing, "fire", watched)
    for push in range(60):
        session.push(noise(graph, {"mic": chunk}, push), **(controls if push == 0 else {}))


def test_snapshots_rows_and_resets_pass_from_captured_steps_to_the_graph_and_back():
    torch.manual_seed(0)
    graph = astrape.load("astrape-vc-small").double().eval()
    speaker = torch.randn(2, 128, dtype=torch.float64)
    captured, plain = graph.stream(2, chunk=441), graph.stream(2)
    saved: list[dict[str, Any]] = []

    def both(push: int, **controls: Any) -> None:
        x = noise(graph, {"mic": 441}, push, batch=2)
        assert_equal(graph, captured.push(x, **controls), plain.push(x, **controls))

    for push in range(9):
        both(push, **({"speaker": speaker} if push == 0 else {}))
        if push == 5:
            saved = [captured.snapshot(), plain.snapshot()]
    # Each from the other's snapshot, which what was replayed since has not changed.
    captured.restore(saved[1])
    plain.restore(saved[0])
    for push in range(6, 12):
        both(push)
    for session in (captured, plain):
        session.reset([1])
    for push in range(12, 20):
        both(push)
    for session in (captured, plain):
        session.reset()
    for push in range(8):
        both(push, speaker=speaker.flip(0))


def test_what_a_push_returns_is_the_callers():
    graph = astrape.load("astrape-vc-small").eval()
    session = graph.stream(chunk=1764)
    speaker = torch.randn(1, 128)
    first = session.push(noise(graph, {"mic": 1764}, 0), speaker=speaker)
    copy = {name: tensor.clone() for name, tensor in first.items()}
    session.push(noise(graph, {"mic": 1764}, 1))
    assert_equal(graph, first, copy)


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.integers(1, 5),
    hop=st.integers(5, 17),
    stride=st.integers(2, 24),
    chunk=st.integers(1, 23),
    seed=st.integers(0, 99),
)
def test_what_waits_between_captured_steps_is_there_in_the_next_push(kernel, hop, stride, chunk, seed):
    """Filters into hops into strides: several segments, whose results wait for later pushes."""
    torch.manual_seed(seed)
    blocks = {
        "filter": {"use": "conv", "kernel": kernel},
        "hops": {"use": "framing", "size": hop, "hop": hop},
        "back": {"use": "overlap_add", "hop": hop},
        "slow": {"use": "conv", "kernel": stride, "stride": stride, "channels": 3},
    }
    graph = astrape.compile(recipe(blocks))
    captured, plain = graph.stream(chunk=chunk), graph.stream()
    assert captured.uncaptured is None
    for push in range(40):
        now = 3 * chunk + 1 if push == 25 else chunk
        x = noise(graph, {"mic": now}, push)
        assert_equal(graph, captured.push(x), plain.push(x))


@register("test_moving")
class Moving(StreamBlock):
    """A state that goes from one place to the next."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> Any:
        return {name: torch.zeros(batch_size, 1, 1, device=device, dtype=dtype) for name in "abc"}

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        if x.shape[-1] == 0:
            return x, state
        return x + state["c"], {"a": x[..., -1:].clone(), "b": state["a"], "c": state["b"]}


def test_a_state_that_moves_survives_pushes_of_other_lengths():
    graph = astrape.compile(recipe({"m": {"use": "test_moving"}}))
    captured, plain = graph.stream(chunk=4), graph.stream()
    for push, frames in enumerate([4, 4, 3, 4, 4, 1, 2, 4, 4, 4]):
        x = noise(graph, {"mic": frames}, push)
        assert_equal(graph, captured.push(x), plain.push(x))


@pytest.mark.parametrize("batch", [1, 3])
def test_captured_steps_outlast_controls_however_they_are_given(batch):
    controls = {"level": {"channels": 1, "default": 0.5}}
    blocks = {
        "loud": {"use": "gain", "gain": "level", "smooth_ms": 3},
        "louder": {"use": "gain", "gain": "level", "smooth_ms": 0},
    }
    graph = astrape.compile(recipe(blocks, channels=2, controls=controls))
    captured, plain = graph.stream(batch, chunk=16), graph.stream(batch)
    given: list[Any] = [
        None,
        0.7,
        torch.tensor([0.2]),
        torch.full((1, 1), 0.4),
        torch.rand(batch, 1),
        torch.tensor(0.3),
    ]
    given += [torch.rand(1, 2 * batch).expand(4, -1)[0, ::2].reshape(batch, 1), 1]
    for push, level in enumerate(given):
        x = noise(graph, {"mic": 16}, push, batch)
        values = {} if level is None else {"level": level}
        assert_equal(graph, captured.push(x, **values), plain.push(x, **values))
        assert captured.captured_steps
        assert captured.uncaptured is None
