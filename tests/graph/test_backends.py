"""Backends behind one face: whatever runs a session, it keeps the sessions' contract."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

import astrape
from astrape.errors import StreamError
from astrape.graph.backends.held import BACKENDS
from astrape.graph.graph import Graph
from astrape.measure.subject import Subject
from astrape.testing import session as contract
from tests.graph.recipes import recipe

pytestmark = pytest.mark.timeout(900)

BLOCKS = {
    "frames": {"use": "framing", "size": 8, "hop": 4},
    "mixed": {"use": "conv", "channels": 8, "kernel": 3},
    "loud": {"use": "gain", "gain": "level", "smooth_ms": 0},
    "tf": {"use": "transformer", "layers": 1, "heads": 2, "window": 4, "ffn": 8, "rotary": "half"},
    "wav": {"use": "overlap_add", "hop": 4, "window": "hann"},
}
LEVEL = {"level": {"channels": 1, "default": 1.0, "min": 0.0, "max": 2.0}}


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.manual_seed(2)
    graph = astrape.compile(recipe(BLOCKS, controls=LEVEL, outputs={"wav": "wav", "tf": "tf"}))
    return Subject(graph, controls=[{"level": 1.0}, {"level": 0.4}], tolerance=2e-5, dtype=torch.float32)


@pytest.fixture(params=BACKENDS)
def backed(request, subject: Subject, monkeypatch) -> Subject:
    """The subject, whose graph streams by one backend."""
    graph = subject.block
    monkeypatch.setattr(Graph, "stream", lambda self, **rest: _STREAM(self, backend=request.param, **rest))
    assert graph.stream().backend.name == request.param
    return subject


_STREAM = Graph.stream


@pytest.mark.parametrize(
    "check",
    [
        lambda subject: contract.check_session_chunks(subject, examples=5),
        contract.check_flush,
        contract.check_constant_latency,
        contract.check_session_reset,
        contract.check_session_snapshot,
        contract.check_session_faults,
        contract.check_session_state,
        contract.check_control_position,
    ],
    ids=["chunks", "flush", "constant", "reset", "snapshot", "faults", "state", "control"],
)
def test_every_backend_keeps_the_contract(backed: Subject, check) -> None:
    check(backed)


def test_what_was_chosen_is_told() -> None:
    graph = astrape.load("multirate")
    assert str(graph.stream().backend) == "eager: no chunk was named, so pushes may have any length"
    assert graph.stream(backend="eager").backend == ("eager", "asked for")
    assert str(graph.stream(chunk=441).backend) == "recorded: 2 patterns of pushes captured"
    assert graph.stream(backend="recorded").backend.name == "recorded"
    long = graph.stream(chunk=9000).backend
    assert long.name == "eager"
    assert "9000" in long.why
    with pytest.raises(StreamError, match="backend must be one of recorded, eager, compiled, onnx, not 'cuda'"):
        graph.stream(backend="cuda")
    with pytest.raises(StreamError, match=r"runs in torch.float32 on the cpu, not in torch.float64"):
        graph.stream(backend="onnx", dtype=torch.float64)


def test_an_output_that_waits_longer_says_so() -> None:
    """A gain goes on sample by sample in a session that runs blocks, and by fours where the graph runs whole."""
    blocks = {"g": {"use": "gain", "gain": 0.5}, "f": {"use": "framing", "size": 4, "hop": 4, "from": "mic"}}
    graph = astrape.compile(recipe(blocks, outputs={"wav": "g", "frames": "f"}))
    eager = graph.stream(backend="eager", constant_latency=True)
    whole = graph.stream(backend="onnx", constant_latency=True)
    assert (eager.latency_frames("wav"), whole.latency_frames("wav")) == (0, 3)
    assert graph.framing == Fraction(0)
    x = torch.randn(1, 1, 41)
    got = torch.cat([whole.push(part)["wav"] for part in x.split(3, dim=-1)] + [whole.flush()["wav"]], dim=-1)
    assert got.shape[-1] == 44
    assert torch.equal(got[..., 3:], 0.5 * x)


def test_a_snapshot_passes_between_backends_at_whole_quanta(subject: Subject) -> None:
    graph = subject.block
    x = torch.randn(1, 1, 80)
    eager, onnx = graph.stream(), graph.stream(backend="onnx")
    eager.push(x[..., :40])
    onnx.restore(eager.snapshot())
    got, want = onnx.push(x[..., 40:]), eager.push(x[..., 40:])
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=2e-5)
    onnx.push(x[..., :3])
    with pytest.raises(StreamError, match="amid a quantum, backends differ in what waits"):
        eager.restore(onnx.snapshot())
