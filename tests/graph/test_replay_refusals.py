"""Refusals to replay, with their reasons: blocks that decide by values, time that is over, empty chunks."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import astrape
from astrape.blocks import Stream, StreamBlock, register
from astrape.capture import record
from astrape.graph.session import replay
from tests.graph.recipes import recipe
from tests.graph.replaying import assert_equal, noise


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
def test_a_block_that_cannot_be_captured_runs_as_it_is(use, reason):
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
    """An exception of its own kind, as a host's alarm may raise."""


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


def test_a_loop_of_a_thousand_iterations_does_not_block_its_host():
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


def test_under_autocast_nothing_is_replayed():
    graph = astrape.compile(recipe({"l": {"use": "linear", "channels": 8}, "c": {"use": "conv", "kernel": 3}}))
    captured, plain = graph.stream(chunk=16), graph.stream()
    for push in range(6):
        with torch.autocast("cpu", torch.bfloat16, enabled=push % 2 == 1):
            x = noise(graph, {"mic": 16}, push)
            assert_equal(graph, captured.push(x), plain.push(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast" in graph.stream(chunk=16).uncaptured


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
