"""The engine of ``bench``: what is timed by hand is the same work that the session does."""

from __future__ import annotations

import math

import pytest
import torch

import astrape
from astrape.blocks.state import map_state
from astrape.errors import AstrapeError
from astrape.graph.backends import native
from astrape.graph.session import Session
from astrape.runtime.by_hand import ByHand, Sessionless, recorded
from astrape.runtime.machine import Machine, measure_machine
from astrape.runtime.rows import rows_in_turns
from astrape.runtime.side_by_side import named_backends, side_by_side


@pytest.mark.parametrize("name", ["multirate", "echo", "dry-wet"])
def test_replayed_calls_are_all_the_work_there_is(name: str) -> None:
    graph = astrape.load(name)
    runner = Sessionless(graph, {})
    calls = []
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad(), recorded(graph, calls.append):
        for frames in (441, 100, 0, 882, 441, 7):
            runner.advance({"mic": torch.randn(1, 1, frames, generator=generator)})
    by_hand = ByHand(graph, runner.prepared)
    with torch.no_grad():
        by_hand.run(calls)
    seen = 0
    for unit, replayed in zip(graph.actors, by_hand.state, strict=True):
        kept = []
        map_state(lambda tensor, kept=kept: kept.append(tensor) or tensor, runner.state[unit.name])
        again = []
        map_state(lambda tensor, again=again: again.append(tensor) or tensor, replayed)
        assert len(kept) == len(again)
        assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))
        seen += len(kept)
    assert seen > 0
    # Nothing is left watching.
    assert all("step" not in unit.block.__dict__ for unit in graph.actors)


def test_the_floor_is_the_slower_of_work_and_traffic() -> None:
    machine = Machine(memory_gb_s=10.0, working_set_bytes=1, working_set_gb_s=20.0, matmul_gflop_s=100.0)
    assert machine.floor_ms(flops=1e9, traffic=0) == pytest.approx(10.0)
    assert machine.floor_ms(flops=1e9, traffic=4e8) == pytest.approx(20.0)


def test_a_machine_is_measured() -> None:
    machine = measure_machine(2**20)
    assert machine.working_set_gb_s > 0.1
    assert machine.memory_gb_s > 0.1
    assert machine.matmul_gflop_s > 0.1


def test_backends_are_given_the_same_pushes_in_turns(monkeypatch) -> None:
    """Each hears every piece once a turn, in the state that it was left in; one that cannot run says why."""
    heard: dict[str, list[torch.Tensor]] = {"eager": [], "recorded": []}
    push = Session.push

    def listening(self, x, **controls):
        heard[self.backend.name].append(x["mic"])
        return push(self, x, **controls)

    monkeypatch.setattr(Session, "push", listening)
    graph = astrape.load("multirate").double()
    generator = torch.Generator().manual_seed(0)
    pieces = [{"mic": torch.randn(1, 1, 441, generator=generator, dtype=torch.float64)} for _ in range(7)]
    eager, recorded, onnx = side_by_side(graph, ["eager", "recorded", "onnx"], pieces, {}, 0.1, floor_ms=0.5)
    assert len(heard["eager"]) == len(heard["recorded"]) >= 80
    assert all(a is b for a, b in zip(heard["eager"], heard["recorded"], strict=True))
    assert eager.to_eager == 1.0
    assert recorded.chosen.startswith("recorded: 2 patterns")
    assert recorded.above_floor == pytest.approx(recorded.computing_ms / 0.5)
    assert recorded.load == pytest.approx(recorded.median_ms / 10)
    assert recorded.median_ms <= recorded.p99_ms <= recorded.p999_ms <= recorded.worst_ms
    assert math.isnan(onnx.median_ms)
    assert "torch.float32" in onnx.chosen


def test_backends_that_are_ready_are_compared(monkeypatch) -> None:
    graph = astrape.load("multirate")
    monkeypatch.setattr(native, "library", lambda: None)
    assert named_backends(graph, []) == ["eager", "recorded"]
    assert named_backends(graph, ["onnx", "eager"]) == ["eager", "onnx"]
    with pytest.raises(AstrapeError, match="must be one of recorded, eager, compiled, onnx, not 'quick'"):
        named_backends(graph, ["quick"])


def test_a_precision_is_of_the_compared_backends_alone() -> None:
    """Eager keeps its weights, so that it stays what others are compared with; who cannot do it says so."""
    pieces = [{"mic": torch.zeros(1, 1, 441)}]
    eager, captured = side_by_side(astrape.load("multirate"), ["eager", "recorded"], pieces, {}, 0.0, 1.0, "float16")
    assert eager.chosen == "eager: asked for"
    assert eager.to_eager == 1.0
    assert math.isnan(captured.median_ms)
    assert captured.chosen.startswith("backend 'recorded' reads weights as float32 alone: hint: backend='compiled'")


def test_rows_are_streams_of_one_session(monkeypatch) -> None:
    """Each session hears as many rows as it is named for, all as often."""
    heard: dict[tuple[int, str], list[tuple[int, ...]]] = {}
    push = Session.push

    def listening(self, x, **controls):
        heard.setdefault((self.batch_size, self.backend.name), []).append(tuple(x["mic"].shape))
        return push(self, x, **controls)

    monkeypatch.setattr(Session, "push", listening)
    graph = astrape.load("multirate")
    found = rows_in_turns(graph, 10.0, [1, 3], seconds=0.1, backends=["eager", "recorded"])
    keys = [(1, "eager"), (1, "recorded"), (3, "eager"), (3, "recorded")]
    assert [(one.rows, one.backend) for one in found] == sorted(heard) == keys
    assert len({len(shapes) for shapes in heard.values()}) == 1
    for (rows, _), shapes in heard.items():
        assert set(shapes) == {(rows, 1, 441)}
    for one in found:
        assert one.chosen.startswith(one.backend)
        assert one.share == pytest.approx(one.computing_ms / 10)
        assert one.per_stream == pytest.approx(one.share / one.rows)


@pytest.mark.parametrize(
    ("chunk", "rows", "said"),
    [(10.0, [0], "rows must be 1 to 256, not 0"), (10.0, [], "not none"), (0.0, [1], "a chunk must be 0.01 to 10000")],
)
def test_rows_out_of_range_are_told(chunk: float, rows: list[int], said: str) -> None:
    with pytest.raises(AstrapeError, match=said):
        rows_in_turns(astrape.load("multirate"), chunk, rows)
