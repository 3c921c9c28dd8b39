"""Sessions with a chunk: what is replayed is what the graph gives, to the last bit."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import astrape
from astrape.blocks import Stream, StreamBlock, register
from astrape.capture import record
from astrape.graph.firing import Firing
from astrape.graph.graph import Graph
from astrape.graph.session import replay
from tests.graph.random_recipes import compiled, random_recipes
from tests.graph.recipes import recipe


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
def test_every_push_of_the_length_plays_from_tape(name, chunk, captured_steps, monkeypatch):
    graph = astrape.load(name).eval()
    session = graph.stream(chunk=chunk)
    assert 0 < session.captured_steps <= captured_steps
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
    captured, plain = graph.stream(2, chunk=441), graph.stream(2)
    saved: list[dict[str, Any]] = []

    def both(push: int, **controls: Any) -> None:
        x = noise(graph, {"mic": 441}, push, batch=2)
        assert_equal(graph, captured.push(x, **controls), plain.push(x, **controls))

    for push in range(9):
        both(push, **({"speaker": speaker} if push == 0 else {}))
        if push == 5:
            saved = [captured.snapshot(), plain.snapshot()]
    # Each from the other's snapshot, which what was played since has not changed.
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


@register("test_peeking")
class Peeking(StreamBlock):
    """A block that decides by a value, in a way that no operator shows."""

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        return x * (1.0 + x.abs().mean().tolist()), state


@register("test_counting")
class Counting(StreamBlock):
    """A block that hides a clock."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        self.calls = 0

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        self.calls += 1
        return x * (self.calls % 2), state


@register("test_holding")
class Holding(StreamBlock):
    """A block that writes to a tensor it makes of a number, whose memory no operator has made."""

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        peak = torch.tensor(0.5, dtype=x.dtype)
        return x / peak.clamp_(min=x.abs().max()), state


@register("test_choosy")
class Choosy(StreamBlock):
    """A block that takes nothing while it is recorded."""

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        if torch.is_grad_enabled() is False and not torch.is_inference_mode_enabled():
            raise KeyError("it is loud")
        return x, state


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
        ("test_peeking", "'tolist' depends on values"),
        ("test_holding", "neither state nor made"),
        ("test_choosy", "it is loud"),
        ("test_deciding", "depends on values"),
        ("test_secretive", "'odd' prepares a tuple_iterator"),
    ],
)
def test_a_block_that_cannot_be_taped_runs_as_it_is(use, reason):
    graph = astrape.compile(recipe({"odd": {"use": use}}, controls={"level": {"channels": 1, "default": 1.0}}))
    captured, plain = graph.stream(chunk=32), graph.stream()
    assert captured.captured_steps == 0
    assert reason in captured.uncaptured
    for push in range(4):
        x = noise(graph, {"mic": 32}, push)
        assert_equal(graph, captured.push(x), plain.push(x))


def test_a_block_that_hides_a_clock_is_found_out():
    session = astrape.compile(recipe({"odd": {"use": "test_counting"}})).stream(chunk=32)
    assert session.captured_steps == 0
    assert "beyond what operators do" in session.uncaptured


class HostsTimeOut(RuntimeError):
    """What a host's alarm may raise: a kind of its own."""


@register("test_alarmed")
class Alarmed(StreamBlock):
    """A block during whose recording the host's alarm goes off."""

    raises: type[BaseException] = TimeoutError
    after = 0

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        Alarmed.after -= 1
        if Alarmed.after == 0:
            raise self.raises("the host has waited long enough")
        return x * 2, state


@pytest.mark.parametrize("after", [1, 2, 3, 5])
@pytest.mark.parametrize("raises", [TimeoutError, HostsTimeOut, KeyboardInterrupt, MemoryError])
def test_what_is_not_about_recording_is_for_the_host_to_hear(raises, after, monkeypatch):
    graph = astrape.compile(recipe({"odd": {"use": "test_alarmed"}}))
    monkeypatch.setattr(Alarmed, "raises", raises)
    monkeypatch.setattr(Alarmed, "after", after)
    with pytest.raises(raises, match="long enough"):
        graph.stream(chunk=8)
    assert graph.stream(chunk=8).captured_steps == 1


def test_recording_ends_when_its_time_is_over(monkeypatch):
    """Patterns that it was enough for replayed, others run as they are, with equal results; and it is told."""
    blocks = {"hops": {"use": "framing", "size": 8, "hop": 5}, "back": {"use": "overlap_add", "hop": 5}}
    graph = astrape.compile(recipe(blocks))
    every = graph.stream(chunk=13)
    assert every.captured_steps > 1
    assert every.uncaptured is None
    ticks = iter(range(10**6))
    monkeypatch.setattr(record.time, "thread_time", lambda: 0.001 * next(ticks))
    for seconds in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0):
        monkeypatch.setattr(replay, "MOST_SECONDS", seconds)
        some, plain = graph.stream(chunk=13), graph.stream()
        assert some.captured_steps <= every.captured_steps
        if some.captured_steps < every.captured_steps:
            assert f"recording takes more than {seconds:g} s" in some.uncaptured
        if 0 < some.captured_steps < every.captured_steps:
            assert (
                f"{some.captured_steps} of {every.captured_steps} patterns are captured, the others run as they are"
                in some.uncaptured
            )
        for push in range(12):
            x = noise(graph, {"mic": 13}, push)
            assert_equal(graph, some.push(x), plain.push(x))


def test_a_loop_of_a_thousand_turns_does_not_block_its_host():
    blocks: dict[str, Any] = {"sum": {"use": "add", "from": ["mic", "back"]}}
    blocks |= {f"c{index}": {"use": "conv", "kernel": 3} for index in range(20)}
    blocks |= {"half": {"use": "gain", "gain": 0.1}, "back": {"use": "delay", "frames": 1}}
    graph = astrape.compile(recipe(blocks))
    begun = time.thread_time()
    session = graph.stream(chunk=1000)
    assert time.thread_time() - begun < replay.MOST_SECONDS + 2
    assert (session.captured_steps, session.uncaptured) == (2, None), (
        "an iteration is recorded, and not a thousand of them"
    )


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.integers(1, 5),
    hop=st.integers(5, 17),
    stride=st.integers(2, 24),
    chunk=st.integers(1, 23),
    seed=st.integers(0, 99),
)
def test_what_waits_between_tapes_is_there_in_the_next_push(kernel, hop, stride, chunk, seed):
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


def test_under_autocast_nothing_is_played():
    graph = astrape.compile(recipe({"l": {"use": "linear", "channels": 8}, "c": {"use": "conv", "kernel": 3}}))
    captured, plain = graph.stream(chunk=16), graph.stream()
    for push in range(6):
        with torch.autocast("cpu", torch.bfloat16, enabled=push % 2 == 1):
            x = noise(graph, {"mic": 16}, push)
            assert_equal(graph, captured.push(x), plain.push(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast" in graph.stream(chunk=16).uncaptured


CURVES: dict[str, Any] = {
    "gelu": functional.gelu,
    "silu": functional.silu,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "elu": functional.elu,
    "mish": functional.mish,
    "softmax": lambda x: x.softmax(1),
    "logsumexp": lambda x: x.logsumexp(1, keepdim=True).expand_as(x),
    "expm1": torch.expm1,
    "erfinv": lambda x: torch.erfinv(0.1 * x.tanh()),
}


@register("test_curve")
class Curve(StreamBlock):
    """A function whose kernels round otherwise on strided memory, before a mean of four frames."""

    def __init__(self, source: Stream, *, kind: str) -> None:
        super().__init__(source, quantum=4, ratio=Fraction(1, 4))
        self.kind = kind

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        return CURVES[self.kind](x).unflatten(-1, (-1, 4)).mean(-1), state


@register("test_turned")
class Turned(StreamBlock):
    """Hands on, and keeps, what lies the other way round in memory: a view of the last frame among it."""

    def init_state(self, batch_size: int, device: Any = None, dtype: Any = None) -> Any:
        return torch.zeros(batch_size, self.channels_in, 2, device=device, dtype=dtype)

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        if x.shape[-1] == 0:
            return x, state
        heard = torch.cat((state, x), dim=-1).mT.contiguous().mT
        return functional.mish(heard[..., 1:-1]) + functional.gelu(state).sum(), heard[..., -2:]


@register("test_wide_level")
class WideLevel(StreamBlock):
    """A control of which every second channel is used, laid out over frames before it is bent."""

    def __init__(self, source: Stream) -> None:
        super().__init__(source)
        self.controls["levels"] = 2 * source.channels

    def prepare(self, controls: Any) -> Any:
        return controls["levels"][:, ::2].unsqueeze(-1).expand(-1, -1, 9)

    def step(self, x: Any, state: Any, controls: Any) -> tuple[Tensor, Any]:
        return x * functional.mish(controls).mean(-1, keepdim=True), state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", CURVES)
def test_how_memory_lies_between_units_makes_no_difference(kind, dtype):
    blocks = {
        "bent": {"use": "test_curve", "kind": kind},
        "turned": {"use": "test_turned"},
        "hops": {"use": "framing", "size": 11, "hop": 5},
        "again": {"use": "test_curve", "kind": kind},
    }
    for channels, batch, used in ((7, 1, ["bent"]), (3, 2, ["bent", "turned"]), (1, 3, list(blocks))):
        graph = astrape.compile(recipe({name: blocks[name] for name in used}, channels=channels)).to(dtype)
        captured, plain = graph.stream(batch, chunk=21), graph.stream(batch)
        assert captured.captured_steps, captured.uncaptured
        for push in range(40):
            x = noise(graph, {"mic": 21}, push, batch) * 10
            assert_equal(graph, captured.push(x), plain.push(x))
            if push == 20:
                plain.restore(plain.snapshot())


def test_how_what_is_prepared_lies_makes_no_difference():
    controls = {"levels": {"channels": 10, "default": [0.1 * n for n in range(10)]}}
    graph = astrape.compile(recipe({"wide": {"use": "test_wide_level"}}, channels=5, controls=controls))
    captured, plain = graph.stream(2, chunk=17), graph.stream(2)
    assert captured.captured_steps
    for push in range(6):
        x = noise(graph, {"mic": 17}, push, 2)
        levels = {"levels": torch.randn(2, 10)} if push % 2 else {}
        assert_equal(graph, captured.push(x, **levels), plain.push(x, **levels))


@pytest.mark.parametrize("batch", [1, 3])
def test_tapes_outlast_controls_however_they_are_given(batch):
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


def test_how_the_callers_memory_lies_makes_no_difference():
    graph = astrape.compile(recipe({"a": {"use": "activation", "kind": "gelu"}}, channels=2))
    captured, plain = graph.stream(chunk=441), graph.stream()
    for push in range(3):
        # As soundfile reads it, frames by channels.
        x = torch.randn(441, 2, generator=torch.Generator().manual_seed(push)).T[None]
        want = plain.push(x.contiguous())
        assert_equal(graph, captured.push(x), want)
        assert_equal(graph, graph.stream().push(x), want)


def test_a_chunk_that_is_no_whole_number_elsewhere_is_refused():
    inputs = {"mic": {"rate": 1000, "channels": 1}, "slow": {"rate": 400, "channels": 1}}
    blocks = {"up": {"use": "resampler", "from": "slow", "rate": 1000}, "sum": {"use": "add", "from": ["mic", "up"]}}
    graph = astrape.compile(recipe(blocks, inputs=inputs))
    with pytest.raises(astrape.StreamError, match="7 frames of 'mic' is 14/5 of 'slow'"):
        graph.stream(chunk=7)
    assert graph.stream(chunk={"mic": 10}).captured_steps
    assert graph.stream(chunk=np.int64(10)).captured_steps


def test_long_pushes_are_left_as_they_are():
    graph = astrape.compile(recipe({"g": {"use": "gain", "gain": 2}}))
    session = graph.stream(chunk=10_000)
    assert session.captured_steps == 0
    assert "10000 frames" in session.uncaptured


@pytest.mark.parametrize("chunk", [0, -3, True, 2.5, {"nobody": 4}, {}, {"mic": 0}])
def test_a_chunk_that_is_none_is_refused(chunk):
    graph = astrape.compile(recipe({"g": {"use": "gain", "gain": 2}}))
    with pytest.raises(astrape.StreamError, match="chunk must be frames of mic, at least 1, not"):
        graph.stream(chunk=chunk)
