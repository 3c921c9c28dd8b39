"""Feedback loops replayed iteration by iteration: what the blocks give, to the last bit, and without their Python."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import astrape
from astrape.blocks import Stream, StreamBlock, register
from astrape.graph.compile import loop
from astrape.graph.graph import Graph
from tests.graph.recipes import recipe


@contextlib.contextmanager
def as_it_is() -> Iterator[None]:
    """Within it no loop is captured."""
    before = loop.FEWEST_PASSES
    loop.FEWEST_PASSES = 1 << 60
    try:
        yield
    finally:
        loop.FEWEST_PASSES = before


def noise(graph: Graph, frames: int, seed: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    ((_, stream),) = graph.inputs.items()
    return 0.3 * torch.randn(batch, stream.channels, frames, generator=generator).to(graph.dtype)


@register("test_called")
class Called(StreamBlock):
    """A block that counts how often its Python runs; the result does not depend on it."""

    calls = 0

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        Called.calls += 1
        return torch.nn.functional.gelu(x), state


@register("test_in_place")
class InPlace(StreamBlock):
    """A block that hands back its state's own memory, changed, and lays it out the other way round."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> Any:
        return torch.zeros(batch_size, self.channels_in, 3, device=device, dtype=dtype)

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        joined = torch.cat((state, x), dim=-1).mT.contiguous().mT
        return torch.nn.functional.mish(joined[..., : x.shape[-1]]) - 0.25 * x, joined[..., -3:]


MEMBERS: dict[str, dict[str, Any]] = {
    "gain": {"use": "gain", "gain": 0.4},
    "level": {"use": "gain", "gain": "level", "smooth_ms": 5},
    "conv": {"use": "conv", "kernel": 3},
    "gru": {"use": "gru"},
    "lowpass": {"use": "biquad", "kind": "lowpass", "frequency": 100.0},
    "norm": {"use": "norm", "kind": "rms"},
    "bend": {"use": "test_called"},
    "turned": {"use": "test_in_place"},
    "linear": {"use": "linear"},
    "late": {"use": "delay", "frames": 2, "compensate": False},
}


@st.composite
def loops(draw: Any) -> tuple[dict[str, Any], int]:
    """A recipe of a loop, and the frames of a pass."""
    channels = draw(st.integers(1, 3))
    hop = draw(st.sampled_from([1, 1, 1, 2, 3]))
    delay = hop * draw(st.integers(1, 3)) + draw(st.integers(0, 2))
    blocks: dict[str, Any] = {"sum": {"use": "add", "from": ["mic", "back"]}}
    for index in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from([*MEMBERS]))
        blocks[f"{kind}{index}"] = dict(MEMBERS[kind])
        if kind in ("gru", "linear"):
            blocks[f"{kind}{index}"]["channels"] = channels
    if hop > 1 and channels == 1:
        blocks["frames"] = {"use": "framing", "size": hop, "hop": hop}
        blocks["spread"] = {"use": "overlap_add", "hop": hop}
    last = [*blocks][-1]
    blocks["quiet"] = {"use": "gain", "gain": 0.3, "from": last}
    blocks["back"] = {"use": "delay", "frames": delay, "channels": channels}
    outputs = {"wav": "sum"}
    if draw(st.booleans()):
        outputs["inner"] = last
    after = draw(st.booleans())
    if after:
        blocks["tail"] = {"use": "conv", "kernel": 4, "stride": 4, "from": "sum"}
        outputs["slow"] = "tail"
    controls = {"level": {"channels": 1, "default": 0.5, "min": 0, "max": 1}}
    used = any(block.get("gain") == "level" for block in blocks.values())
    more = {"controls": controls} if used else {}
    return recipe(blocks, channels=channels, outputs=outputs, **more), delay


def equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name
    else:
        assert torch.equal(one, other)


@settings(max_examples=25, deadline=None)
@given(
    drawn=loops(),
    double=st.booleans(),
    batch=st.integers(1, 3),
    chunk=st.integers(1, 150),
    sizes=st.lists(st.integers(0, 400), min_size=3, max_size=6),
    seed=st.integers(0, 99),
)
def test_sessions_give_what_blocks_give(drawn, double, batch, chunk, sizes, seed):
    torch.manual_seed(seed)
    graph = astrape.compile(drawn[0]).eval()
    graph = graph.double() if double else graph
    plain = graph.stream(batch)
    replayed, captured = graph.stream(batch), graph.stream(batch, chunk=chunk)
    assert captured.uncaptured is None
    saved: Any = None
    for push, frames in enumerate([*sizes, chunk, 300, chunk, chunk, 40, chunk]):
        x = noise(graph, frames, seed + push, batch)
        controls = {"level": 0.1 * push % 1} if push % 3 == 2 and "level" in graph.controls else {}
        with as_it_is():
            want = plain.push(x, **controls)
        equal(replayed.push(x, **controls), want)
        equal(captured.push(x, **controls), want)
        if push == 4:
            saved = plain.snapshot()
        if push == 7 and batch > 1:
            with as_it_is():
                plain.reset([1])
            replayed.reset([1])
            captured.reset([1])
        if push == 8:
            plain.restore(saved)
            replayed.restore(saved)
            captured.restore(saved)
    with as_it_is():
        want = plain.flush()
    equal(replayed.flush(), want)
    equal(captured.flush(), want)


@settings(max_examples=15, deadline=None)
@given(drawn=loops(), frames=st.integers(900, 1500), batch=st.integers(1, 2), seed=st.integers(0, 99))
def test_whole_sequences_are_what_blocks_give(drawn, frames, batch, seed):
    torch.manual_seed(seed)
    graph = astrape.compile(drawn[0]).eval()
    x = noise(graph, frames, seed, batch)
    with torch.no_grad():
        with as_it_is():
            want = graph(x)
        got = graph(x)
    equal(got, want)
    for tensor in got.values() if isinstance(got, dict) else [got]:
        assert not tensor.is_inference()


def bent(delay: int = 1, **more: Any) -> Graph:
    blocks = {
        "sum": {"use": "add", "from": ["mic", "back"]},
        "bend": {"use": "test_called"},
        "layer": {"use": "linear", "channels": 1},
        "quiet": {"use": "gain", "gain": 0.3},
        "back": {"use": "delay", "frames": delay},
    }
    return astrape.compile(recipe({**blocks, **more}, outputs={"wav": "sum"})).eval()


@pytest.mark.parametrize("chunk", [None, 480])
def test_the_blocks_python_runs_for_a_few_iterations_only(chunk):
    """10 pushes of 480 iterations, and 4800 calls if each ran by itself."""
    graph = bent()
    Called.calls = 0
    session = graph.stream(chunk=chunk)
    captured = Called.calls
    for push in range(10):
        session.push(noise(graph, 480, push))
    if chunk is None:
        assert 0 < Called.calls < 10
    else:
        assert 0 < Called.calls == captured < 10
        assert (session.captured_steps, session.uncaptured) == (1, None)
    with torch.no_grad():
        Called.calls = 0
        graph(noise(graph, 5000, 0))
    assert 0 < Called.calls < 10


def test_small_pushes_are_replayed_once_there_were_enough():
    graph = bent()
    session = graph.stream()
    Called.calls = 0
    for push in range(100):
        session.push(noise(graph, 16, push))
    assert 240 <= Called.calls < 300


@pytest.mark.parametrize("delay", [1, 3])
def test_gradients_flow_through_many_iterations(delay):
    graph = bent(delay).double()
    x = noise(graph, 600, 0).requires_grad_()
    graph(x)[..., -1].sum().backward()
    assert x.grad is not None
    near = x.grad[0, 0].flip(0)[: 5 * delay : delay]
    assert bool((near != 0).all())
    weight = graph.nodes["layer"].block.weight
    assert weight.grad is not None
    assert float(weight.grad.abs().sum()) > 0
    # A loop without weights, whose input alone asks for a gradient.
    comb = astrape.compile(
        recipe(
            {
                "sum": {"use": "add", "from": ["mic", "back"]},
                "quiet": {"use": "gain", "gain": 0.5},
                "back": {"use": "delay", "frames": delay},
            },
            outputs={"wav": "sum"},
        )
    )
    x = noise(comb, 600, 1).double().requires_grad_()
    comb.double()(x)[..., -1].sum().backward()
    assert x.grad is not None
    want = torch.tensor([0.5**k for k in range(5)], dtype=torch.float64)
    torch.testing.assert_close(x.grad[0, 0].flip(0)[: 5 * delay : delay], want)


def test_a_step_leaves_the_state_that_it_was_given():
    graph = bent()
    with torch.no_grad():
        _, state = graph.step(noise(graph, 700, 0), graph.init_state(1))
        before = {name: tensor.clone() for name, tensor in state["loop:0"]["tokens"].items()}
        one, _ = graph.step(noise(graph, 700, 1), state)
        again, _ = graph.step(noise(graph, 700, 1), state)
    equal(one, again)
    equal(state["loop:0"]["tokens"], before)


def test_whole_sequences_follow_the_weights():
    graph = bent()
    x = noise(graph, 700, 0)
    for scale in (1.0, 0.5, -0.7):
        with torch.no_grad():
            graph.nodes["layer"].block.weight.fill_(scale)
            got = graph(x)
            with as_it_is():
                equal(got, graph(x))
    graph.double()
    with torch.no_grad():
        got = graph(x.double())
        with as_it_is():
            equal(got, graph(x.double()))


@register("test_deciding_in_a_loop")
class Deciding(StreamBlock):
    """A block that decides by a value, which no captured step can."""

    asked = 0

    def __init__(self, source: Stream) -> None:
        super().__init__(source)

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        Deciding.asked += 1
        return (x if bool((x > 0).all()) else -0.5 * x), state


@pytest.mark.parametrize("chunk", [None, 100])
def test_a_loop_that_cannot_be_captured_runs_as_it_is(chunk):
    odd = {"use": "test_deciding_in_a_loop", "from": "quiet"}
    graph = bent(odd=odd, back={"use": "delay", "frames": 1, "from": "odd"})
    with as_it_is():
        plain = graph.stream()
    session = graph.stream(chunk=chunk)
    if chunk:
        assert session.captured_steps == 0
        assert "depends on values" in session.uncaptured
    for push in range(8):
        x = noise(graph, 100, push)
        Deciding.asked = 0
        got = session.push(x)
        # That it cannot be is found out once.
        assert Deciding.asked == 100 or push in (0, 1, 2)
        with as_it_is():
            equal(got, plain.push(x))


def test_what_traces_sees_every_iteration(monkeypatch):
    monkeypatch.setattr(loop, "WORTH_CAPTURING", loop.FEWEST_PASSES)
    graph = bent()
    x = noise(graph, 8, 0)
    with torch.no_grad():
        want = graph(x)
        program = torch.export.export(graph, (x,), strict=False)
        torch.testing.assert_close(program.module()(2 * x), graph(2 * x))
        torch.testing.assert_close(program.module()(x), want)


def test_under_autocast_nothing_is_replayed():
    graph = bent()
    session, plain = graph.stream(chunk=300), graph.stream()
    for push in range(6):
        x = noise(graph, 300, push)
        with torch.autocast("cpu", torch.bfloat16, enabled=push % 2 == 1):
            got = session.push(x)
            with as_it_is():
                equal(got, plain.push(x))


def test_a_session_that_is_interrupted_in_a_replay_refuses_to_go_on(monkeypatch):
    """An interrupt in the midst of the replay, and a session beside it that is not concerned."""
    graph = bent()
    session, other, plain = graph.stream(chunk=300), graph.stream(chunk=300), graph.stream()
    session.push(noise(graph, 300, 0))
    (held,) = [found for owner, found in session._executor._live._held.values() if isinstance(owner, loop.FeedbackLoop)]
    (captured,) = held["captured"]._captured_steps.values()
    calls = iter(range(500))

    def interrupting() -> None:
        if next(calls) == 200:
            raise KeyboardInterrupt

    captured._kernels.insert(1, interrupting)
    with pytest.raises(KeyboardInterrupt):
        session.push(noise(graph, 300, 1))
    with pytest.raises(astrape.StreamError, match="interrupted"):
        session.push(noise(graph, 300, 2))
    captured._kernels.pop(1)
    session.reset()
    for push in range(3):
        x = noise(graph, 300, push)
        with as_it_is():
            want = plain.push(x)
        equal(session.push(x), want)
        equal(other.push(x), want)
