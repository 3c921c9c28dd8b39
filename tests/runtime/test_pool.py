"""Many streams in one batch: each is what a session of its own gives, whoever comes and goes beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import astrape
from astrape.errors import AstrapeError, StreamError
from astrape.graph.graph import Graph
from astrape.runtime.pool import PooledStream, StreamPool
from tests.runtime.exports import SMALL

TICK = 160


@pytest.fixture(scope="module")
def graph() -> Graph[Any]:
    """The small graph, with a second output, and neither of a slower rate."""
    torch.manual_seed(5)
    recipe = {**SMALL, "blocks": {name: block for name, block in SMALL["blocks"].items() if name != "slow"}}
    blocks = {
        **recipe["blocks"],
        "up": {"use": "transposed_conv", "from": "tf", "kernel": 2, "stride": 2, "channels": 1},
    }
    made: Graph[Any] = astrape.compile({**recipe, "blocks": blocks, "outputs": {"wav": "up", "hiss": "hiss"}})
    for parameter in made.parameters():
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def voice(seed: int) -> dict[str, Tensor]:
    return {"speaker": torch.randn(4, generator=torch.Generator().manual_seed(seed))}


def alone(graph: Graph[Any], x: Tensor, *changes: tuple[int, dict[str, Any]]) -> Tensor:
    """The output of a session of one row, in pushes of a tick; controls change before the push of that number."""
    session, made, at = graph.stream(constant_latency=True), [], dict(changes)
    for index, piece in enumerate(x.split(TICK, dim=-1)):
        made.append(session.push(piece[None], **at.get(index, {}))["wav"][0])
    return torch.cat(made, dim=-1)


def apart(got: Tensor, want: Tensor) -> float:
    return float((got - want).norm() / want.norm())


class Speaker:
    """Somebody with so many ticks to say, who comes at some tick and then writes a tick at a time."""

    def __init__(self, seed: int, comes: int, ticks: int) -> None:
        self.x = 0.1 * torch.randn(1, ticks * TICK, generator=torch.Generator().manual_seed(seed))
        self.seed, self.comes, self.ticks = seed, comes, ticks
        self.stream: PooledStream | None = None
        self.made: list[Tensor] = []

    def live(self, pool: StreamPool, now: int) -> None:
        said = now - self.comes
        if said == 0:
            self.stream = pool.join(**voice(self.seed))
        if self.stream is not None and 0 <= said < self.ticks:
            self.stream.write(self.x[:, said * TICK : (said + 1) * TICK])

    def hear(self, now: int) -> None:
        if self.stream is not None:
            self.made.append(self.stream.read())
            if now - self.comes == self.ticks - 1:
                self.stream.leave()
                self.stream = None


@settings(max_examples=15, deadline=None)
@given(
    speakers=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=7),
    chunked=st.booleans(),
)
def test_each_is_a_stream_of_its_own_whoever_comes_and_goes(graph, speakers, chunked) -> None:
    people = [Speaker(seed, *when) for seed, when in enumerate(speakers)]
    busiest = max(sum(one.comes <= now < one.comes + one.ticks for one in people) for now in range(25))
    pool = StreamPool(graph, rows=busiest, tick=TICK, output="wav", backend=None if chunked else "eager")
    for now in range(25):
        for one in people:
            one.live(pool, now)
        pool.tick()
        for one in people:
            one.hear(now)
    assert pool.free == busiest
    for one in people:
        got = torch.cat(one.made, dim=-1)
        assert got.shape == one.x.shape
        assert apart(got, alone(graph, one.x, (0, voice(one.seed)))) < 1e-5


def test_controls_change_for_one_and_not_for_the_others(graph) -> None:
    x = 0.1 * torch.randn(1, 6 * TICK)
    pool = StreamPool(graph, rows=3, tick=TICK, output="wav")
    first, second = pool.join(**voice(1)), pool.join(**voice(1), level=0.5)
    made: dict[PooledStream, list[Tensor]] = {first: [], second: []}
    for index, piece in enumerate(x.split(TICK, dim=-1)):
        if index == 2:
            second.set(level=1.5)
        for stream in made:
            stream.write(piece)
        pool.tick()
        for stream, parts in made.items():
            parts.append(stream.read())
    assert apart(torch.cat(made[first], -1), alone(graph, x, (0, voice(1)))) < 1e-5
    assert apart(torch.cat(made[second], -1), alone(graph, x, (0, voice(1)), (2, {"level": 1.5}))) < 1e-5


def test_what_does_not_come_is_silence_and_counted(graph) -> None:
    pool = StreamPool(graph, rows=2, tick=TICK, ahead=2, output="wav")
    stream = pool.join(**voice(2))
    x = 0.1 * torch.randn(1, 3 * TICK)
    stream.write(x[:, : TICK + 50])
    pool.tick()
    assert stream.read().shape == (1, 0)
    assert pool.fed
    assert stream.starved == 0
    stream.write(x[:, TICK + 50 : 2 * TICK + 50])
    made = []
    for _ in range(4):
        pool.tick()
        made.append(stream.read())
    assert stream.starved == TICK - 50 + TICK
    assert not pool.fed
    stream.write(x[:, 2 * TICK + 50 :])
    pool.tick()
    made.append(stream.read())
    heard = torch.cat(
        [x[:, : 2 * TICK + 50], torch.zeros(1, 2 * TICK - 50), x[:, 2 * TICK + 50 :], torch.zeros(1, 50)], -1
    )
    assert apart(torch.cat(made, -1), alone(graph, heard, (0, voice(2)))) < 1e-5


def test_what_comes_too_fast_is_left_out_from_the_oldest_on_and_counted(graph) -> None:
    pool = StreamPool(graph, rows=1, tick=TICK, most=3, output="wav")
    stream = pool.join(**voice(3))
    x = 0.1 * torch.randn(1, 5 * TICK)
    stream.write(x[:, : 2 * TICK + 7])
    stream.write(x[:, 2 * TICK + 7 :])
    assert stream.dropped == 2 * TICK
    for _ in range(3):
        pool.tick()
    assert apart(stream.read(), alone(graph, x[:, 2 * TICK :], (0, voice(3)))) < 1e-5


def test_one_that_says_nan_is_silent_from_there_and_the_others_go_on(graph) -> None:
    pool = StreamPool(graph, rows=2, tick=TICK, output="wav")
    bad, good = pool.join(**voice(4)), pool.join(**voice(4))
    x = 0.1 * torch.randn(1, 3 * TICK)
    poisoned = x.clone()
    poisoned[:, TICK + 3] = float("nan")
    made: dict[PooledStream, list[Tensor]] = {bad: [], good: []}
    for index in range(3):
        for stream, said in ((bad, poisoned), (good, x)):
            stream.write(said[:, index * TICK : (index + 1) * TICK])
        pool.tick()
        for stream, parts in made.items():
            parts.append(stream.read())
    assert (bad.faulted, good.faulted) == (True, False)
    assert bool(torch.isfinite(torch.cat(made[bad], -1)).all())
    assert apart(torch.cat(made[good], -1), alone(graph, x, (0, voice(4)))) < 1e-5
    bad.leave()
    again = pool.join(**voice(4))
    assert again.row == 0
    again.write(x[:, :TICK])
    pool.tick()
    assert not again.faulted
    assert apart(again.read(), alone(graph, x[:, :TICK], (0, voice(4)))) < 1e-5


def test_what_does_not_fit_is_refused(graph) -> None:
    with pytest.raises(AstrapeError, match="name one of them as output"):
        StreamPool(graph, rows=1)
    with pytest.raises(StreamError, match="rows must be at least 1, not 0"):
        StreamPool(graph, rows=0, output="wav")
    with pytest.raises(StreamError, match=r"a tick of 161 frames is not whole periods of 2: hint: take 16\d"):
        StreamPool(graph, rows=1, tick=161, output="wav")
    with pytest.raises(StreamError, match=r"ahead must be 1 to most \(2\), not 3"):
        StreamPool(graph, rows=1, ahead=3, most=2, output="wav")
    pool = StreamPool(graph, rows=1, output="wav")
    with pytest.raises(StreamError, match=r"control 'speaker' \(4 channels\) has no value"):
        pool.join()
    with pytest.raises(StreamError, match="unknown control 'loud'"):
        pool.join(**voice(0), loud=1.0)
    with pytest.raises(StreamError, match="control 'level' is 3, above 2"):
        pool.join(**voice(0), level=3.0)
    assert pool.free == 1
    stream = pool.join(**voice(0))
    with pytest.raises(StreamError, match="all 1 rows are taken: hint"):
        pool.join(**voice(0))
    with pytest.raises(StreamError, match=r"takes \(1, frames\) of floats, not \(2, 5\)"):
        stream.write(torch.zeros(2, 5))
    with pytest.raises(StreamError, match=r"torch\.int16"):
        stream.write(torch.zeros(1, 5, dtype=torch.int16))
    with pytest.raises(StreamError, match="control 'speaker' is not finite"):
        stream.set(speaker=torch.full((4,), float("nan")))
    stream.leave()
    stream.leave()
    for use in (stream.read, lambda: stream.write(torch.zeros(1, 5)), lambda: stream.set(level=1.0)):
        with pytest.raises(StreamError, match="has left: hint: join anew"):
            use()
