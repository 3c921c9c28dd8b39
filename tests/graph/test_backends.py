"""Backends behind one face: whatever runs a session, it keeps the sessions' contract."""

from __future__ import annotations

import copy
from fractions import Fraction

import numpy as np
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


CHECKS = [
    lambda subject: contract.check_session_chunks(subject, examples=5),
    contract.check_flush,
    contract.check_constant_latency,
    contract.check_session_reset,
    contract.check_session_snapshot,
    contract.check_session_faults,
    contract.check_session_state,
    contract.check_control_position,
]


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
    CHECKS,
    ids=["chunks", "flush", "constant", "reset", "snapshot", "faults", "state", "control"],
)
def test_every_backend_keeps_the_contract(backed: Subject, check) -> None:
    check(backed)


def test_float16_weights_keep_the_contract(subject: Subject, monkeypatch) -> None:
    """Beside the graph as it is, within 2e-3: a weight is rounded by 2.4e-4 of itself, and layers add up."""
    graph = subject.block
    monkeypatch.setattr(
        Graph, "stream", lambda self, **rest: _STREAM(self, backend="compiled", precision="float16", **rest)
    )
    assert graph.stream().backend.precision == "float16"
    rough = Subject(graph, controls=[{"level": 1.0}, {"level": 0.4}], tolerance=2e-3, dtype=torch.float32)
    for check in CHECKS:
        check(rough)


def test_float16_is_the_weights_alone(subject: Subject) -> None:
    """A session is that of the graph with rounded parameters, which is rounded here by NumPy, up to float32's rounding.

    And it is another than that of the graph as it is, by more than ten times as much.
    """
    graph = subject.block
    rounded = copy.deepcopy(graph)
    for parameter in rounded.parameters():
        parameter.data = torch.from_numpy(parameter.detach().numpy().astype(np.float16).astype(np.float32))
    pieces = torch.randn(1, 1, 40 * graph.consumes["mic"], generator=torch.Generator().manual_seed(9)).chunk(40, dim=-1)
    before = {name: tensor.clone() for name, tensor in graph.state_dict().items()}
    session = graph.stream(backend="compiled", precision="float16")
    assert "as float16, rounded to it, as asked for" in session.backend.why
    found: list[dict[str, torch.Tensor]] = []
    for one in (session, rounded.stream(), graph.stream()):
        pushes = [one.push(piece, level=1.0) for piece in pieces]
        found.append({name: torch.cat([push[name] for push in pushes], dim=-1) for name in graph.outputs})
    got, want, plain = found
    for name in want:
        largest = float(want[name].abs().max())
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=2e-5 * max(1.0, largest))
    assert max(float((got[name] - plain[name]).abs().max()) for name in want) > 2e-4
    assert all(torch.equal(tensor, before[name]) for name, tensor in graph.state_dict().items())


def test_half_of_the_bytes_are_read_where_they_can(subject: Subject) -> None:
    """Left out, precision takes float16 only where nothing is lost; float32 never does."""
    graph = subject.block
    rounded = copy.deepcopy(graph)
    for parameter in rounded.parameters():
        parameter.data = parameter.detach().half().float()
    told = {
        (which, precision): one.stream(backend="compiled", precision=precision).backend
        for which, one in (("plain", graph), ("rounded", rounded))
        for precision in (None, "float32", "float16")
    }
    halves = {key for key, chosen in told.items() if "as float16" in chosen.why}
    assert halves == {("plain", "float16"), ("rounded", None), ("rounded", "float16")}
    assert "which holds them to the last bit" in told["rounded", None].why
    assert {key for key, chosen in told.items() if chosen.precision == "float16"} == {
        ("plain", "float16"),
        ("rounded", "float16"),
    }


def test_what_a_backend_cannot_do_is_refused(subject: Subject) -> None:
    graph = subject.block
    for backend in ("eager", "recorded", "onnx"):
        with pytest.raises(StreamError, match=f"'{backend}' reads weights as float32 alone: hint: backend='compiled'"):
            graph.stream(backend=backend, precision="float16")
        assert graph.stream(backend="eager", precision="float32").backend.precision == "float32"
    with pytest.raises(StreamError, match=r"without a backend reads weights as float32 alone: hint"):
        graph.stream(precision="float16")
    with pytest.raises(StreamError, match=r"precision must be one of float32, float16, int8, not 'half'"):
        graph.stream(precision="half")
    with pytest.raises(StreamError, match=r"'int8' is not there.*docs/speed.md; hint: precision='float16'"):
        graph.stream(backend="compiled", precision="int8")
    with pytest.raises(StreamError, match=r"in torch.float32, not in torch.float64: hint"):
        graph.stream(backend="compiled", precision="float16", dtype=torch.float64)
    large = copy.deepcopy(graph)
    name, parameter = next((n, p) for n, p in large.named_parameters() if p.dim() > 1)
    parameter.data[0] = 1e5
    with pytest.raises(StreamError, match=f"'{name}' has a weight of 100000, and float16 ends at 65504: hint"):
        large.stream(backend="compiled", precision="float16")


def test_what_was_chosen_is_told() -> None:
    graph = astrape.load("multirate")
    assert str(graph.stream().backend) == "eager: no chunk was named, so pushes may have any length"
    assert graph.stream(backend="eager").backend == ("eager", "asked for", "float32")
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
