"""Sessions with a chunk: what is played from tape is what the graph gives, to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_recipes import compiled, random_recipes
from recipes import recipe
from torch import Tensor

import astrape
from astrape.blocks import Stream, StreamBlock, register
from astrape.graph.firing import Firing
from astrape.graph.graph import Graph


def named(graph: Graph, y: Any) -> dict[str, Tensor]:
    return y if isinstance(y, dict) else {graph.main: y}


def noise(graph: Graph, frames: dict[str, int], seed: int, batch: int = 1) -> Any:
    generator = torch.Generator().manual_seed(seed)
    ports = {
        name: 0.1 * torch.randn(batch, stream.channels, frames[name], generator=generator).to(graph.dtype)
        for name, stream in graph.inputs.items()
    }
    return ports if len(ports) > 1 else next(iter(ports.values()))


def assert_equal(graph: Graph, got: Any, want: Any) -> None:
    for name, tensor in named(graph, want).items():
        assert torch.equal(named(graph, got)[name], tensor), name


@settings(max_examples=40, deadline=None)
@given(recipe=random_recipes(), seed=st.integers(0, 99), frames=st.integers(1, 40), constant=st.booleans())
def test_random_graphs(recipe, seed, frames, constant):
    graph = compiled(recipe, seed)
    taped = graph.stream(chunk=frames, constant_latency=constant)
    plain = graph.stream(constant_latency=constant)
    assert taped.untaped is None
    first = next(iter(graph.inputs.values())).rate
    chunk = {name: int(frames * stream.rate / first) for name, stream in graph.inputs.items()}
    for push in range(12):
        # One push of another length leads off the beaten track, and the flush at the end begins anew.
        now = chunk if push != 8 else {name: 2 * count + 1 for name, count in chunk.items()}
        given_now = {"level": 0.3} if push == 5 and "level" in graph.controls else {}
        x = noise(graph, now, seed + push)
        assert_equal(graph, taped.push(x, **given_now), plain.push(x, **given_now))
        if push == 10:
            assert_equal(graph, taped.flush(), plain.flush())


@pytest.mark.parametrize(
    ("name", "chunk", "tapes"),
    [
        ("astrape-vc-small", 441, 4),
        ("astrape-vc-small", 512, 8),
        ("astrape-vc-small", 1764, 1),
        ("voice-changer", 256, 3),
    ],
)
def test_shipped_recipes(name, chunk, tapes):
    torch.manual_seed(0)
    graph = astrape.load(name).eval()
    taped, plain = graph.stream(2, chunk=chunk), graph.stream(2)
    assert (taped.tapes, taped.untaped) == (tapes, None)
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
        assert_equal(graph, taped.push(x, **controls), plain.push(x, **controls))


@pytest.mark.parametrize(
    ("name", "chunk", "tapes"),
    [("voice-changer", 441, 10), ("voice-changer", 480, 10), ("denoiser", 512, 10), ("astrape-vc-small", 480, 20)],
)
def test_every_push_of_the_length_plays_from_tape(name, chunk, tapes, monkeypatch):
    graph = astrape.load(name).eval()
    session = graph.stream(chunk=chunk)
    assert 0 < session.tapes <= tapes
    controls = {control: torch.zeros(count) for control, count in graph.controls.items() if count > 1}
    run = Firing.fire

    def watched(self: Firing, counts: Any, *rest: Any) -> Any:
        assert not any(counts), f"run and not played: {counts}"
        return run(self, counts, *rest)

    monkeypatch.setattr(Firing, "fire", watched)
    for push in range(60):
        session.push(noise(graph, {"mic": chunk}, push), **(controls if push == 0 else {}))


def test_snapshots_rows_and_resets_pass_from_tape_to_graph_and_back():
    torch.manual_seed(0)
    graph = astrape.load("astrape-vc-small").double().eval()
    speaker = torch.randn(2, 128, dtype=torch.float64)
    taped, plain = graph.stream(2, chunk=441), graph.stream(2)
    saved: list[dict[str, Any]] = []

    def both(push: int, **controls: Any) -> None:
        x = noise(graph, {"mic": 441}, push, batch=2)
        assert_equal(graph, taped.push(x, **controls), plain.push(x, **controls))

    for push in range(9):
        both(push, **({"speaker": speaker} if push == 0 else {}))
        if push == 5:
            saved = [taped.snapshot(), plain.snapshot()]
    # Each from the other's snapshot, which what was played since has not changed.
    taped.restore(saved[1])
    plain.restore(saved[0])
    for push in range(6, 12):
        both(push)
    for session in (taped, plain):
        session.reset([1])
    for push in range(12, 20):
        both(push)
    for session in (taped, plain):
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


@register("test_peeking")
class Peeking(StreamBlock):
    """A block that decides by a value, in a way that no operator shows."""

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        return x * (1.0 + x.abs().mean().tolist()), state


@register("test_deciding")
class Deciding(StreamBlock):
    """A block that decides by a value."""

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        return (x if bool((x > 0).all()) else -x), state


@register("test_secretive")
class Secretive(StreamBlock):
    """A block that prepares what nobody can look into."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        self.controls["level"] = 1

    def prepare(self, controls: Any) -> Any:
        return iter((controls["level"],))

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        return x * 2, state


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        ("test_peeking", "beyond what operators do"),
        ("test_deciding", "depends on values"),
        ("test_secretive", "'odd' prepares a tuple_iterator"),
    ],
)
def test_a_block_that_cannot_be_taped_runs_as_it_is(use, reason):
    graph = astrape.compile(recipe({"odd": {"use": use}}, controls={"level": {"channels": 1, "default": 1.0}}))
    taped, plain = graph.stream(chunk=32), graph.stream()
    assert taped.tapes == 0
    assert reason in taped.untaped
    for push in range(4):
        x = noise(graph, {"mic": 32}, push)
        assert_equal(graph, taped.push(x), plain.push(x))


def test_long_pushes_are_left_as_they_are():
    graph = astrape.compile(recipe({"g": {"use": "gain", "gain": 2}}))
    session = graph.stream(chunk=10_000)
    assert session.tapes == 0
    assert "10000 frames" in session.untaped


@pytest.mark.parametrize("chunk", [0, -3, True, 2.5, {"nobody": 4}, {}, {"mic": 0}])
def test_a_chunk_that_is_none_is_refused(chunk):
    graph = astrape.compile(recipe({"g": {"use": "gain", "gain": 2}}))
    with pytest.raises(astrape.StreamError, match="chunk must be frames of mic, at least 1, not"):
        graph.stream(chunk=chunk)
