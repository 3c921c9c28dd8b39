"""Compiled graphs keep the contract, and sessions that do not are rejected, each for its own fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch

import astrape
from astrape.graph import Graph, Session
from astrape.testing import ContractError, Subject, check_graph
from astrape.testing.contract import check_sessions

RECIPES: dict[str, dict[str, Any]] = {
    "rates": {
        "inputs": {"mic": {"rate": 1000, "channels": 1}},
        "controls": {"level": {"channels": 1, "default": 0.5, "min": 0.0, "max": 2.0}},
        "blocks": {
            "down": {"use": "conv", "channels": 3, "kernel": 6, "stride": 4},
            "up": {"use": "transposed_conv", "channels": 1, "kernel": 8, "stride": 4},
            "loud": {"use": "gain", "gain": "level", "smooth_ms": 3},
        },
        "outputs": {"wav": "loud", "features": "down"},
    },
    "delay": {
        "inputs": {"mic": {"rate": 1000, "channels": 2}},
        "blocks": {
            "late": {"use": "delay", "frames": 5},
            "wav": {"use": "add", "from": ["mic", "late"]},
        },
        "outputs": {"wav": "wav"},
    },
    "echo": {
        "inputs": {"mic": {"rate": 1000, "channels": 1}},
        "blocks": {
            "loop": {"use": "add", "from": ["mic", "again"]},
            "later": {"use": "delay", "frames": 30},
            "again": {"use": "gain", "gain": 0.5},
        },
        "outputs": {"wav": "loop"},
    },
    "uneven rates": {
        "inputs": {"mic": {"rate": 22050, "channels": 1}},
        "blocks": {
            "down": {"use": "resampler", "rate": 16000, "zeros": 8, "stopband_db": 30},
            "slow": {"use": "conv", "kernel": 3, "stride": 3},
        },
        "outputs": {"wav": "slow"},
    },
    "two inputs": {
        "inputs": {"mic": {"rate": 1000, "channels": 1}, "slow": {"rate": 250, "channels": 1}},
        "blocks": {
            "up": {"use": "repeat_upsample", "from": "slow", "factor": 4},
            "wav": {"use": "add", "from": ["mic", "up"]},
        },
        "outputs": {"wav": "wav"},
    },
}


def build(name: str) -> Graph:
    torch.manual_seed(0)
    return astrape.compile({"recipe": name.replace(" ", "-"), **RECIPES[name]})


@pytest.mark.parametrize("name", RECIPES)
def test_graphs_pass(name: str) -> None:
    measured = check_graph(build(name), examples=8)
    assert measured.lookahead == 0


class HalfDeaf(Session):
    """Takes whole periods alone, and drops what is left of a push."""

    def push(self, x: Any, **controls: Any) -> Any:
        return super().push(x[..., : x.shape[-1] // 4 * 4], **controls)


class FixedTail(Session):
    """Ends every stream with one period of silence, whatever is missing."""

    def flush(self) -> Any:
        y = self.push(torch.zeros(self.batch_size, 1, 4, dtype=torch.float64))
        self.reset()
        return y


class NeverNew(Session):
    """Forgets to reset after a flush."""

    def flush(self) -> Any:
        saved = self.snapshot()
        y = super().flush()
        self.restore(saved)
        return y


class Hasty(Session):
    """Holds nothing back in constant-latency mode."""

    def _begin(self) -> None:
        super()._begin()
        self._late = {}


class ResetsAll(Session):
    """Resets every row where one was asked for."""

    def reset(self, rows: Any = None) -> None:
        super().reset()


class ResetsNone(Session):
    """Resets a row's positions in name alone."""

    def reset(self, rows: Any = None) -> None:
        if rows is None:
            super().reset()


class ForgetsWaiting(Session):
    """Leaves the frames that wait for a quantum out of its snapshots."""

    def snapshot(self) -> Any:
        return {**super().snapshot(), "waiting": {}}


class SilencesAll(Session):
    """Takes one row's NaN for everyone's."""

    def push(self, x: Any, **controls: Any) -> Any:
        return super().push(x if bool(torch.isfinite(x).all()) else torch.zeros_like(x), **controls)


class Grows(Session):
    """Keeps a record of all that it was given."""

    @property
    def state_bytes(self) -> int:
        return super().state_bytes + sum(self.positions.values())


class LateControls(Session):
    """Takes up a changed control with the next buffer."""

    pending: dict[str, Any] | None = None

    def push(self, x: Any, **controls: Any) -> Any:
        now = controls if self.pending is None else self.pending
        self.pending = controls
        return super().push(x, **now)


class PlaysFalse(Session):
    """Plays what it has captured a last bit too loud."""

    def push(self, x: Any, **controls: Any) -> Any:
        y = super().push(x, **controls)
        return {name: tensor * (1 + 2**-50) for name, tensor in y.items()} if self.captured_steps else y


SESSIONS: dict[type[Session], str] = {
    HalfDeaf: "session chunks",
    FixedTail: "flush",
    NeverNew: "flush",
    Hasty: "constant latency",
    ResetsAll: "session reset",
    ResetsNone: "session reset",
    ForgetsWaiting: "session snapshot",
    SilencesAll: "session faults",
    Grows: "session state",
    PlaysFalse: "session replay",
    LateControls: "control position",
}


@pytest.mark.parametrize("session", SESSIONS)
def test_each_broken_session_is_rejected_for_its_own_fault(session: type[Session]) -> None:
    """By the part of `check_graph` that looks at sessions; that it is a part of it, `FramesTooSoon` below shows."""

    class Broken(Graph):
        def stream(self, *args: Any, **options: Any) -> Session:
            return session(self, *args, **options)

    graph = build("rates")
    graph.__class__ = Broken
    with pytest.raises(ContractError) as caught:
        check_sessions(Subject(graph), examples=4)
    assert caught.value.property_name == SESSIONS[session], str(caught.value)


class FramesTooSoon(Graph):
    @property
    def framings(self) -> Any:
        return {name: replace(framing, seconds=framing.seconds / 2) for name, framing in super().framings.items()}


class OlderThanItSays(Graph):
    @property
    def latencies(self) -> Any:
        return dict.fromkeys(self.outputs, Fraction(0))


class ShortMemory(Graph):
    @property
    def receptive_field(self) -> Fraction:
        return Fraction(5, 1000)


class MiscountsLengths(Graph):
    def output_lengths(self, lengths: Any) -> Any:
        return {name: torch.ones_like(lengths) for name in self.outputs}


@pytest.mark.parametrize(
    ("kind", "name", "property_name"),
    [
        (FramesTooSoon, "rates", "framing"),
        (OlderThanItSays, "delay", "latency"),
        (ShortMemory, "delay", "receptive field"),
        (MiscountsLengths, "rates", "right padding"),
    ],
)
def test_each_wrong_declaration_of_a_graph_is_rejected(kind: type[Graph], name: str, property_name: str) -> None:
    graph = build(name)
    graph.__class__ = kind
    with pytest.raises(ContractError) as caught:
        check_graph(graph, examples=4)
    assert caught.value.property_name == property_name, str(caught.value)


def test_a_broken_block_breaks_its_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = build("rates")
    block = graph.nodes["down"].block
    plain: Callable[..., Any] = type(block).step

    def forgetful(self: Any, x: Any, state: Any, controls: Any) -> Any:
        y, after = plain(self, x, state, controls)
        return y, after if x.shape[-1] > 4 else state

    monkeypatch.setattr(type(block), "step", forgetful)
    with pytest.raises(ContractError) as caught:
        check_graph(graph, examples=4)
    assert caught.value.property_name == "step equals forward"
