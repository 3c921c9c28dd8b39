"""Graphs and sessions under odd recipes and careless callers."""

from __future__ import annotations

import io
import math
import threading
import time
from fractions import Fraction

import pytest
import torch

import astrape
from astrape.blocks.state import state_leaves
from tests.graph.recipes import recipe

LIVE = {"v": {"channels": 1, "default": 1.0}, "w": {"channels": 1, "default": 1.0, "max": 2.0}}


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.float64)


def test_a_node_may_be_called_as_a_loop_might_be():
    blocks = {
        "loop0": {"use": "gain", "gain": 2.0, "from": "mic"},
        "sum": {"use": "add", "from": ["loop0", "back"]},
        "back": {"use": "delay", "frames": 3},
    }
    y = astrape.compile(recipe(blocks, outputs={"wav": "sum"})).double()(ones(1, 1, 5))
    assert y.flatten().tolist() == [2, 2, 2, 4, 4]


def test_delays_in_a_row_close_a_loop_and_are_heard_outside():
    blocks = {
        "sum": {"use": "add", "from": ["mic", "b"]},
        "a": {"use": "delay", "frames": 3},
        "b": {"use": "delay", "frames": 2},
    }
    graph = astrape.compile(recipe(blocks, outputs={"wav": "sum", "b": "b"})).double()
    y = graph(ones(1, 1, 11))
    assert y["wav"].flatten().tolist() == [1] * 5 + [2] * 5 + [3]
    assert y["b"].flatten().tolist() == [0] * 5 + [1] * 5 + [2]
    assert graph.latencies == {"wav": 0, "b": Fraction(5, 1000)}


def test_a_delay_without_frames_is_no_delay_to_a_loop():
    blocks = {
        "sum": {"use": "add", "from": ["mic", "b"]},
        "a": {"use": "delay", "frames": 3},
        "b": {"use": "delay", "frames": 0},
    }
    y = astrape.compile(recipe(blocks, outputs={"wav": "sum"})).double()(ones(1, 1, 7))
    assert y.flatten().tolist() == [1, 1, 1, 2, 2, 2, 3]
    blocks["a"]["frames"] = 0
    with pytest.raises(astrape.CausalityError, match=r"cycle without a delay.*at least one frame"):
        astrape.compile(recipe(blocks, outputs={"wav": "sum"}))


def test_a_loop_that_never_turns_names_the_delay_that_is_too_short():
    blocks = {
        "sum": {"use": "add", "from": ["mic", "long", "short"]},
        "frames": {"use": "framing", "size": 12, "hop": 12},
        "spread": {"use": "overlap_add", "hop": 12},
        "long": {"use": "delay", "frames": 5, "from": "sum"},
        "short": {"use": "delay", "frames": 11, "from": "spread"},
    }
    with pytest.raises(astrape.CausalityError, match=r"delay '(long|short)' of (\d+) frames") as refused:
        astrape.compile(recipe(blocks, outputs={"wav": "sum"}))
    assert "at least 12 frames" in str(refused.value)
    for name in ("long", "short"):
        blocks[name]["frames"] = 12
    astrape.compile(recipe(blocks, outputs={"wav": "sum"}))


def test_two_loops_may_share_nodes():
    blocks = {
        "sum": {"use": "add", "from": ["mic", "ga", "gb"]},
        "a": {"use": "delay", "frames": 3, "from": "sum"},
        "ga": {"use": "gain", "gain": 0.3},
        "b": {"use": "delay", "frames": 5, "from": "sum"},
        "gb": {"use": "gain", "gain": 0.2},
    }
    graph = astrape.compile(recipe(blocks, outputs={"wav": "sum"})).double()
    x = torch.randn(1, 1, 50, dtype=torch.float64)
    want = x.clone()
    for n in range(3, 50):
        want[..., n] += 0.3 * want[..., n - 3] + (0.2 * want[..., n - 5] if n >= 5 else 0)
    torch.testing.assert_close(graph(x), want, rtol=0, atol=1e-12)


def test_less_than_a_quantum_gives_nothing_in_both_modes():
    """Also from blocks that could not run on no frames at all, and from a loop whose members take turns."""
    blocks = {
        "sum": {"use": "add", "from": ["mic", "back"]},
        "frames": {"use": "framing", "size": 4, "hop": 4},
        "spread": {"use": "overlap_add", "hop": 4},
        "quick": {"use": "delay", "frames": 1, "from": "sum"},
        "both": {"use": "add", "from": ["quick", "spread"]},
        "back": {"use": "delay", "frames": 4},
    }
    graph = astrape.compile(recipe(blocks, outputs={"wav": "spread"})).double()
    for frames in range(4):
        assert graph(ones(2, 1, frames)).shape == (2, 1, 0)
        assert graph.stream(batch_size=2).push(ones(2, 1, frames)).shape == (2, 1, 0)


def test_the_deployed_graph_keeps_precision_and_mode():
    training = {"blocks": {"h": {"use": "gain", "gain": "v", "from": "g"}}, "outputs": {"h": "h"}}
    controls = {"v": {"channels": 1}}
    spec = recipe({"g": {"use": "linear", "channels": 2}}, training=training, controls=controls)
    whole = astrape.compile(spec, training=True).double().eval()
    live = whole.deploy()
    assert (live.dtype, live.training) == (torch.float64, False)
    assert live.stream().push(ones(1, 1, 3)).dtype == torch.float64
    assert live.controls == {} == astrape.compile(spec).controls, "a control that only training hears is not asked for"


def test_the_mend_sees_through_delays_that_were_inserted_and_past_idle_paths():
    """The delay goes where it moves the latest path: one on a side branch would be aligned away."""
    blocks = {
        "late": {"use": "delay", "frames": 1, "from": "mic"},
        "first": {"use": "add", "from": ["mic", "late"]},
        "low": {"use": "framing", "size": 3, "hop": 3, "from": "first"},
        "slow": {"use": "delay", "frames": 2},
        "pair": {"use": "add", "from": ["low", "slow"]},
        "dry": {"use": "framing", "size": 2, "hop": 2, "from": "mic"},
        "wide": {"use": "overlap_add", "hop": 3, "from": "pair"},
        "down": {"use": "framing", "size": 2, "hop": 2},
        "mix": {"use": "add", "from": ["dry", "down"]},
    }
    wanted = r"node 'mix'.*insert a delay of 1 frames \(at 1200 Hz\) before '"
    with pytest.raises(astrape.AlignmentError, match=wanted) as refused:
        astrape.compile(recipe(blocks, rate=1200))
    node = str(refused.value).partition("before '")[2].partition("'")[0]
    source = blocks[node].get("from", list(blocks)[list(blocks).index(node) - 1])
    read = str(refused.value).rpartition("reads from '")[2].partition("'")[0] if isinstance(source, list) else source
    blocks[node]["from"] = ["pause" if s == read else s for s in source] if isinstance(source, list) else "pause"
    blocks["pause"] = {"use": "delay", "frames": 1, "from": read}
    graph = astrape.compile(recipe(blocks, rate=1200, outputs={"wav": "mix"}))
    assert graph.latency in (Fraction(7, 1200), Fraction(8, 1200)), "on the dry path, or on the one that is late"


def test_the_mend_goes_into_no_loop():
    """A delay between two nodes of a loop is one of the loop's own, which does not count as latency."""
    blocks = {
        "head": {"use": "add", "from": ["mic", "back"]},
        "body": {"use": "gain", "gain": 0.5},
        "back": {"use": "delay", "frames": 4},
        "wet": {"use": "conv", "from": "body", "kernel": 2, "stride": 2, "align": "first"},
        "plain": {"use": "conv", "from": "head", "kernel": 2, "stride": 2},
        "dry": {"use": "conv", "from": "mic", "kernel": 2, "stride": 2},
        "pair": {"use": "add", "from": ["dry", "plain"]},
        "mix": {"use": "add", "from": ["pair", "wet"]},
    }
    with pytest.raises(astrape.AlignmentError, match=r"insert a delay of 1 frames \(at 1000 Hz\) before 'wet'$"):
        astrape.compile(recipe(blocks))
    blocks |= {"pause": {"use": "delay", "frames": 1, "from": "body"}, "wet": {**blocks["wet"], "from": "pause"}}
    assert astrape.compile(recipe(blocks, outputs={"wav": "mix"})).latency == Fraction(2, 1000)


def test_outputs_are_the_callers_own():
    """An output that is an input, and one signal under two names: writing into one changes nothing else."""
    blocks = {"g": {"use": "gain", "gain": 2.0}}
    session = astrape.compile(recipe(blocks, outputs={"dry": "mic", "a": "g", "b": "g"})).stream()
    x = torch.ones(1, 1, 3, requires_grad=True)
    with pytest.warns(UserWarning, match="'mic' requires a gradient"):
        y = session.push(x)
    assert not any(tensor.requires_grad for tensor in y.values())
    for tensor in y.values():
        tensor.add_(tensor[..., :1].clone())
    assert [tensor.flatten().tolist() for tensor in (x, *y.values())] == [[1] * 3, [2] * 3, [4] * 3, [4] * 3]


def test_a_refused_control_changes_none():
    blocks = {"g": {"use": "gain", "gain": "v", "smooth_ms": 0}, "h": {"use": "gain", "gain": "w", "smooth_ms": 0}}
    session = astrape.compile(recipe(blocks, controls=LIVE)).double().stream()
    session.push(ones(1, 1, 1))
    for wrong in (3.0, "loud", math.nan, torch.ones(4)):
        with pytest.raises(astrape.StreamError, match="control 'w'"):
            session.push(ones(1, 1, 1), v=5.0, w=wrong)
        assert session.controls["v"].item() == 1
        assert session.push(ones(1, 1, 1)).item() == 1
    with pytest.raises(astrape.StreamError, match=r"above 2: give at most 2$"):
        session.push(ones(1, 1, 1), w=3.0)


def test_a_control_belongs_to_the_session_once_it_is_given():
    graph = astrape.compile(recipe({"g": {"use": "gain", "gain": "v", "smooth_ms": 0}}, controls={"v": LIVE["v"]}))
    session = graph.double().stream(batch_size=2)
    value = torch.tensor([[2.0], [3.0]])
    session.push(ones(2, 1, 1), v=value)
    value.fill_(9)
    assert session.push(ones(2, 1, 1)).flatten().tolist() == [2, 3]


def test_a_fault_stays_at_its_port_however_the_stream_is_cut():
    inputs = {name: {"rate": 1000, "channels": 1} for name in ("a", "b")}
    graph = astrape.compile(recipe({"m": {"use": "concat", "from": ["a", "b"]}}, inputs=inputs)).double()
    bad, good = ones(1, 1, 8), ones(1, 1, 8)
    bad[..., 3] = math.nan
    for frames in (8, 4, 2, 1):
        session = graph.stream()
        pieces = zip(bad.split(frames, -1), good.split(frames, -1), strict=True)
        parts = [session.push({"a": a, "b": b}) for a, b in pieces]
        assert torch.cat(parts, dim=-1)[0].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1] * 8]
        assert [(fault.row, fault.port, fault.frame) for fault in session.faults] == [(0, "a", 3)]


def test_a_fault_inside_is_placed_in_what_the_host_is_given():
    """With constant latency the output is behind a queue: frame 2 of a frame of 4 comes out 3 later."""
    blocks = {"f": {"use": "framing", "size": 4, "hop": 4}, "o": {"use": "overlap_add", "hop": 4}}
    huge = {**blocks, "loud": {"use": "gain", "gain": 1e9}}
    session = astrape.compile(recipe(huge)).stream(constant_latency=True)
    x = torch.ones(1, 1, 12)
    x[..., 6] = 1e35
    session.push(x)
    assert [(fault.port, fault.frame) for fault in session.faults] == [("wav", 6 + 3)]


def test_a_snapshot_moves_between_precisions_and_is_plain_data():
    graph = astrape.load("voice-changer")
    x = torch.randn(1, 1, 3000) * 0.1
    single, double = graph.stream(), graph.stream(dtype=torch.float64)
    single.push(x.clone().fill_(math.nan))
    assert single.faults
    single.reset()
    single.push(x)
    buffer = io.BytesIO()
    torch.save(single.snapshot(), buffer)
    buffer.seek(0)
    double.restore(torch.load(buffer, weights_only=True))
    y = double.push(x)
    assert y.dtype == torch.float64
    assert {leaf.dtype for _, leaf in state_leaves(double._state)} <= {torch.float64, torch.int64}
    torch.testing.assert_close(y, single.push(x).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("other", [{"use": "delay", "frames": 4}, {"use": "framing", "size": 4, "hop": 4}])
def test_a_snapshot_of_another_graph_of_that_name_is_refused(other):
    session = astrape.compile(recipe({"d": {"use": "delay", "frames": 3}})).stream()
    stranger = astrape.compile(recipe({"e" if other["use"] == "framing" else "d": other})).stream()
    stranger.push(torch.ones(1, 1, 6))
    session.push(torch.ones(1, 1, 2))
    with pytest.raises(astrape.StreamError, match="does not fit 'test'"):
        session.restore(stranger.snapshot())
    assert session.push(torch.ones(1, 1, 2)).flatten().tolist() == [0, 1]


def test_what_is_no_tensor_is_refused_in_one_line():
    session = astrape.compile(recipe({"g": {"use": "gain", "gain": 1.0}})).stream()
    for wrong in ([1.0, 2.0], {"mic": [1.0]}, torch.ones(1, 1, 3).numpy(), None):
        with pytest.raises(astrape.StreamError, match="takes a tensor"):
            session.push(wrong)


def test_input_of_any_layout_precision_and_mode_is_taken():
    graph = astrape.load("voice-changer")
    session, plain = graph.stream(), graph.stream()
    x = torch.randn(1, 2205, 1).transpose(1, 2) * 0.1
    assert torch.equal(session.push(x), plain.push(x.contiguous().double().requires_grad_()))
    with torch.inference_mode():
        first = session.push(x)
        inner = graph.stream()
        inner.push(x)
        saved = inner.snapshot()
    assert torch.equal(first, plain.push(x))
    inner.reset(rows=[0])
    session.restore(saved)
    plain.reset()
    plain.push(x)
    assert torch.equal(session.push(x), plain.push(x))


def test_a_long_push_is_many_short_ones(monkeypatch):
    blocks = {"r": {"use": "resampler", "rate": 800}, "d": {"use": "delay", "frames": 3}}
    graph = astrape.compile(recipe(blocks)).double()
    x = torch.randn(1, 1, 10_000, dtype=torch.float64)
    x[..., 7000] = math.nan
    want, session = graph.stream(), graph.stream()
    whole = want.push(x)
    longest = 0
    real = graph.actors[0].block.step

    def watched(part, state, controls):
        nonlocal longest
        longest = max(longest, part.shape[-1])
        return real(part, state, controls)

    monkeypatch.setattr("astrape.graph.session.session.MOST_AT_ONCE", 64)
    monkeypatch.setattr(graph.actors[0].block, "step", watched)
    torch.testing.assert_close(session.push(x), whole, rtol=0, atol=1e-12)
    assert longest <= 64 + 5
    assert session.faults == want.faults


def test_positions_go_on_past_any_counter():
    blocks = {"r": {"use": "resampler", "rate": 16000}, "f": {"use": "framing", "size": 320, "hop": 160}}
    graph = astrape.compile(recipe({**blocks, "o": {"use": "overlap_add", "hop": 160}}, rate=44100)).double()
    week, fresh = graph.stream(constant_latency=True), graph.stream(constant_latency=True)
    periods = 2**36 // graph.quantum
    week.positions = {"mic": periods * graph.quantum}
    week._given = {"wav": periods * graph.produces["wav"]}
    x = torch.randn(1, 1, 8820, dtype=torch.float64)
    for part in x.split(300, dim=-1):
        assert torch.equal(week.push(part), fresh.push(part))
    assert week.flush().shape == fresh.flush().shape


def test_sessions_of_one_graph_run_in_threads():
    graph = astrape.load("voice-changer")
    x = torch.randn(1, 1, 8000) * 0.1
    want = torch.cat([*graph.stream().compensated(x.split(441, dim=-1))], dim=-1)
    found: dict[int, torch.Tensor] = {}

    def work(index: int) -> None:
        found[index] = torch.cat([*graph.stream().compensated(x.split(441, dim=-1))], dim=-1)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[index], want) for index in range(3))


def test_a_period_of_a_million_frames_is_no_burden():
    blocks = {
        "a": {"use": "framing", "size": 1009, "hop": 1009, "from": "mic"},
        "b": {"use": "framing", "size": 1013, "hop": 1013, "from": "mic"},
    }
    started = time.process_time()
    graph = astrape.compile(recipe(blocks, rate=44100, outputs={"a": "a", "b": "b"}))
    assert graph.quantum == 1009 * 1013
    session = graph.stream(batch_size=2)
    for _ in range(50):
        session.push(torch.zeros(2, 1, 441))
    session.reset(rows=[1])
    session.flush()
    assert graph.report(measure=True).disagreements == []
    assert time.process_time() - started < 20, "it took over two minutes once: CPU seconds, a guard, not a benchmark"


def test_the_step_can_be_exported():
    blocks = {
        "r": {"use": "resampler", "rate": 800},
        "sum": {"use": "add", "from": ["r", "back"]},
        "back": {"use": "delay", "frames": 9},
    }
    graph = astrape.compile(recipe(blocks, outputs={"wav": "sum"})).double()

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = graph

        def forward(self, x, state):
            return self.block.step(x, state)

    x, state = torch.randn(1, 1, graph.quantum, dtype=torch.float64), graph.init_state(1, dtype=torch.float64)
    y, _ = torch.export.export(Step(), (x, state)).module()(x, state)
    torch.testing.assert_close(y, graph.step(x, state)[0])


def test_a_thousand_outputs_are_reported_in_seconds():
    blocks = {f"g{index}": {"use": "gain", "gain": 1.0} for index in range(500)}
    graph = astrape.compile(recipe(blocks, outputs={f"o{index}": f"g{index}" for index in range(500)}))
    started = time.process_time()
    assert len(graph.report().to_dict()["outputs"]) == 500
    assert time.process_time() - started < 3, "quadratic work took over five seconds for half as many"
