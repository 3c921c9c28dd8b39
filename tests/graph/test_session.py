"""Sessions: any chunks, flush to the sample, constant latency, rows, snapshots, controls, faults."""

from __future__ import annotations

import contextlib
import math
import warnings
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import astrape
from astrape.blocks.live import current as live
from astrape.testing.strategies import chunkings
from tests.graph.interrupts import interrupted_at
from tests.graph.recipes import counted_framing, recipe

TANGLE = {
    "level": {"use": "gain", "gain": "level", "smooth_ms": 0, "from": "mic"},
    "frames": {"use": "framing", "size": 12, "hop": 6},
    "slow": {"use": "delay", "frames": 2},
    "mixed": {"use": "linear", "channels": 12},
    "wide": {"use": "overlap_add", "hop": 6, "window": "hann"},
    "mix": {"use": "add", "from": ["level", "wide"]},
    "coarse": {"use": "framing", "size": 4, "hop": 4},
}
CONTROL = {"level": {"channels": 1, "default": 1.0}}


def tangle(**rest):
    torch.manual_seed(3)
    outputs = rest.pop("outputs", {"wav": "mix", "coarse": "coarse"})
    blocks = {name: node for name, node in TANGLE.items() if name != "coarse" or "coarse" in outputs}
    return astrape.compile(recipe(blocks, controls=CONTROL, outputs=outputs, **rest)).double()


def noise(frames: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 1, frames, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pushed(session, x, chunks, **controls):
    parts = [session.push(part, **controls) for part in x.split(chunks, dim=-1)]
    return {name: torch.cat([part[name] for part in parts], dim=-1) for name in parts[0]}


@settings(max_examples=25, deadline=None)
@given(chunks=chunkings(90), seed=st.integers(0, 99))
def test_any_chunks_equal_the_whole(chunks, seed):
    graph = tangle()
    x = noise(90, 2, seed)
    want, got = graph(x), pushed(graph.stream(batch_size=2), x, chunks)
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=1e-12)


def test_an_empty_push_gives_what_is_ready():
    session = tangle().stream()
    y = session.push(noise(0))
    assert {name: tensor.shape for name, tensor in y.items()} == {"wav": (1, 1, 0), "coarse": (1, 4, 0)}


@pytest.mark.parametrize("frames", [0, 1, 5, 12, 37, 90])
@pytest.mark.parametrize("constant", [False, True])
def test_flush_is_exact_and_leaves_the_session_reset(frames, constant):
    graph = tangle()
    x = noise(frames)
    padded = graph(torch.cat([x, torch.zeros(1, 1, 120, dtype=torch.float64)], dim=-1))
    session = graph.stream(constant_latency=constant)
    first = pushed(session, x, 7)
    last = session.flush()
    for name, stream in graph.outputs.items():
        late = session.latency_frames(name)
        whole = torch.cat([first[name], last[name]], dim=-1)
        assert whole.shape[-1] == math.ceil(frames * stream.rate / 1000) + late
        lead = graph.host_latencies[name] - math.ceil(graph.latencies[name] * stream.rate) if constant else 0
        assert not whole[..., :lead].any()
        torch.testing.assert_close(whole[..., lead:], padded[name][..., : whole.shape[-1] - lead], rtol=0, atol=1e-12)
    again = pushed(session, x, 5)
    for name in again:
        torch.testing.assert_close(again[name], first[name], rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(chunks=chunkings(90))
def test_constant_latency_returns_what_it_was_given(chunks):
    graph = tangle(outputs={"wav": "mix"})
    x = noise(90)
    session = graph.stream(constant_latency=True)
    parts = [session.push(part) for part in x.split(chunks, dim=-1)]
    assert [part.shape[-1] for part in parts] == chunks
    held = graph.host_samples - int(graph.latency * 1000)
    y = torch.cat(parts, dim=-1)
    assert not y[..., :held].any()
    torch.testing.assert_close(y[..., held:], graph(x)[..., : 90 - held], rtol=0, atol=1e-12)


def test_an_impulse_comes_out_at_the_host_latency():
    blocks = {"f": {"use": "framing", "size": 9, "hop": 9}, "o": {"use": "overlap_add", "hop": 9}}
    graph = astrape.compile(recipe(blocks))
    x = torch.zeros(1, 1, 50)
    x[..., 20] = 1
    session = graph.stream(constant_latency=True)
    y = torch.cat([session.push(part) for part in x.split(4, dim=-1)], dim=-1)
    assert graph.host_samples == 8
    assert y[0, 0].nonzero().flatten().tolist() == [28]


def test_compensated_output_has_the_length_of_the_input():
    graph = astrape.compile(recipe({"d": {"use": "delay", "frames": 17}}))
    x = torch.randn(1, 1, 101)
    y = torch.cat(list(graph.stream().compensated(x.split(10, dim=-1))), dim=-1)
    assert torch.equal(x, y)


@pytest.mark.parametrize("output", ["wav", "coarse"])
def test_framing_equals_a_count_of_tokens(output):
    graph = tangle()
    assert graph.framings[output].seconds == counted_framing(graph, output, 48)


def test_framing_does_not_add_up():
    blocks = {
        "a": {"use": "framing", "size": 10, "hop": 10},
        "b": {"use": "overlap_add", "hop": 10},
        "c": {"use": "framing", "size": 20, "hop": 20},
        "d": {"use": "overlap_add", "hop": 20},
    }
    graph = astrape.compile(recipe(blocks))
    assert graph.framing == Fraction(19, 1000)
    assert graph.framing == counted_framing(graph, "wav", 60)


@settings(max_examples=20, deadline=None)
@given(at=st.integers(0, 40), before=chunkings(40), rows=st.sampled_from([[1], [0, 2], [0, 1, 2]]))
def test_rows_reset_as_if_they_had_heard_silence_since_the_period_began(at, before, rows):
    graph = tangle()
    x, later = noise(at, 3, 1), noise(50, 3, 2)
    session = graph.stream(batch_size=3)
    if at:
        pushed(session, x, [c for c in before if c][:0] or at)
    session.reset(rows=rows)
    got = pushed(session, later, 7)
    lead = at % graph.quantum
    fresh = graph.stream(batch_size=3)
    fresh.push(torch.zeros(3, 1, lead, dtype=torch.float64))
    restarted = pushed(fresh, later, 11)
    went_on = graph.stream(batch_size=3)
    went_on.push(x)
    undisturbed = pushed(went_on, later, 13)
    for name in got:
        for row in range(3):
            want = restarted if row in rows else undisturbed
            torch.testing.assert_close(got[name][row], want[name][row], rtol=0, atol=1e-12)


def test_snapshots_bring_back_the_moment():
    graph = tangle()
    session = graph.stream()
    session.push(noise(31), level=0.3)
    saved = session.snapshot()
    first = pushed(session, noise(40, seed=5), 9)
    session.push(noise(13), level=2.0)
    session.restore(saved)
    second = pushed(session, noise(40, seed=5), 4)
    other = graph.stream()
    other.restore(saved)
    third = pushed(other, noise(40, seed=5), 40)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-12)
        torch.testing.assert_close(first[name], third[name], rtol=0, atol=1e-12)
    with pytest.raises(astrape.StreamError, match="batch_size"):
        graph.stream(batch_size=2).restore(saved)


@settings(max_examples=20, deadline=None)
@given(at=st.integers(0, 60), chunks=st.integers(1, 30))
def test_a_control_change_depends_on_the_position_alone(at, chunks):
    graph = tangle()
    x = noise(80)
    one = graph.stream()
    first = [one.push(x[..., :at]), one.push(x[..., at:], level=0.25)]
    other = graph.stream()
    second = [other.push(part) for part in x[..., :at].split(chunks, dim=-1)]
    second += [other.push(part, level=0.25) for part in x[..., at:].split(chunks, dim=-1)]
    for name in graph.outputs:
        torch.testing.assert_close(
            torch.cat([part[name] for part in first], dim=-1),
            torch.cat([part[name] for part in second], dim=-1),
            rtol=0,
            atol=1e-12,
        )


def test_only_what_listens_is_prepared_again():
    spec = {"a": {"channels": 1, "default": 1}, "b": {"channels": 1, "default": 1}}
    blocks = {"x": {"use": "gain", "gain": "a"}, "y": {"use": "gain", "gain": "b"}}
    graph = astrape.compile(recipe(blocks, controls=spec))
    calls = []
    for node in graph.nodes.values():
        original = node.block.prepare
        node.block.prepare = lambda c, name=node.name, f=original: (calls.append(name), f(c))[1]
    session = graph.stream()
    for _ in range(5):
        session.push(torch.ones(1, 1, 10))
    assert calls == ["x", "y"]
    session.push(torch.ones(1, 1, 10), b=0.5)
    assert calls == ["x", "y", "y"]
    # Given again as it is, in whatever form, it has not changed; and then it has.
    session.push(torch.ones(1, 1, 10), a=1.0, b=torch.tensor([[0.5]]))
    assert calls == ["x", "y", "y"]
    assert session.push(torch.ones(1, 1, 10), a=0.0, b=0.5).shape == (1, 1, 10)
    assert calls == ["x", "y", "y", "x"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_fault_stays_in_its_row_and_goes_with_reset(bad):
    graph = tangle()
    x = noise(60, 2)
    clean = pushed(graph.stream(batch_size=2), x, 7)
    broken, silenced = x.clone(), x.clone()
    broken[1, 0, 25] = bad
    silenced[1, 0, 25:] = 0
    session = graph.stream(batch_size=2)
    got = pushed(session, broken, 7)
    want = pushed(graph.stream(batch_size=2), silenced, 7)
    for name in got:
        torch.testing.assert_close(got[name][0], clean[name][0], rtol=0, atol=1e-12)
        torch.testing.assert_close(got[name][1], want[name][1], rtol=0, atol=1e-12)
    assert [(fault.row, fault.port, fault.frame) for fault in session.faults] == [(1, "mic", 25)]
    session.reset()
    assert session.faults == []
    again = pushed(session, x, 7)
    for name in again:
        torch.testing.assert_close(again[name], clean[name], rtol=0, atol=1e-12)


def test_state_does_not_grow():
    session = tangle().stream()
    session.push(noise(12))
    size = session.state_bytes
    for seed in range(50):
        session.push(noise(12 * (1 + seed % 3), seed=seed))
        assert session.state_bytes == size
        assert sum(tensor.shape[-1] for tensor in session._waiting.values()) <= 12


def test_several_inputs_may_run_ahead_of_each_other():
    inputs = {"a": {"rate": 1000, "channels": 1}, "b": {"rate": 1000, "channels": 2}}
    blocks = {"late": {"use": "delay", "frames": 3, "from": "a"}, "both": {"use": "concat", "from": ["late", "b"]}}
    graph = astrape.compile(recipe(blocks, inputs=inputs)).double()
    a, b = noise(40), torch.cat([noise(40, seed=1), noise(40, seed=2)], dim=1)
    session = graph.stream()
    parts = [
        session.push({"a": a[..., :30], "b": b[..., :10]}),
        session.push({"a": a[..., 30:30], "b": b[..., 10:25]}),
        session.push({"a": a[..., 30:], "b": b[..., 25:]}),
    ]
    assert [part.shape[-1] for part in parts] == [10, 15, 15]
    torch.testing.assert_close(torch.cat(parts, dim=-1), graph({"a": a, "b": b}), rtol=0, atol=0)
    whole = torch.cat([*parts, session.flush()], dim=-1)
    assert torch.equal(whole[:, 0, 3:], a[:, 0])


def test_a_session_of_another_precision_leaves_the_graph_alone():
    graph = tangle().float()
    session = graph.stream(dtype=torch.float64)
    y = session.push(noise(60).float())
    assert y["wav"].dtype == torch.float64
    assert next(graph.parameters()).dtype == torch.float32


def test_outputs_may_go_on_into_training():
    graph = astrape.compile(recipe({"g": {"use": "gain", "gain": 2.0}}))
    y = graph.stream().push(torch.ones(1, 1, 4))
    y += 1
    weight = torch.ones(1, requires_grad=True)
    (y * weight).sum().backward()
    assert weight.grad == 12


def test_a_session_whose_push_was_interrupted_says_so_and_can_be_restored(monkeypatch):
    graph = astrape.compile(recipe({"d": {"use": "delay", "frames": 3}, "g": {"use": "gain", "gain": 2.0}})).double()
    session = graph.stream()
    x = noise(20)
    session.push(x[..., :7])
    saved = session.snapshot()

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(graph.nodes["g"].block, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.push(x[..., 7:9])
    for attempt in (lambda: session.push(x), session.flush, session.snapshot, lambda: session.reset(rows=[0])):
        with pytest.raises(astrape.StreamError, match=r"interrupted.*reset\(\) or restore\(\)"):
            attempt()
    session.restore(saved)
    assert torch.equal(session.push(x[..., 7:]), graph(x)[..., 7:])
    session.reset()
    assert torch.equal(session.push(x), graph(x))


@pytest.mark.parametrize("chunk", [None, 10])
@pytest.mark.parametrize("what", ["push", "flush", "reset", "rows", "restore"])
def test_an_interrupt_at_any_moment_is_as_if_nothing_had_been_or_is_told(what, chunk):
    """After it a session either stands where it stood before the call, or takes nothing until it is reset.

    One that was to go back to some state may also have done so: asked again, it would do the same.
    """
    blocks = {
        "frames": {"use": "framing", "size": 8, "hop": 4},
        "back": {"use": "overlap_add", "hop": 4},
        "loud": {"use": "gain", "gain": "level"},
    }
    controls = {"level": {"channels": 1, "default": 0.5}}
    graph = astrape.compile(recipe(blocks, controls=controls)).double()
    x = noise(40)
    session, other = (graph.stream(constant_latency=True, chunk=chunk) for _ in range(2))
    foreign = other.snapshot()
    start = session.push(x[..., :10])
    saved = session.snapshot()
    calls: dict[str, Any] = {
        "push": lambda: session.push(x[..., 10:20], level=0.7),
        "flush": session.flush,
        "reset": session.reset,
        "rows": lambda: session.reset([0]),
        "restore": lambda: session.restore(foreign),
    }
    steady = graph.stream(constant_latency=True)
    assert torch.equal(steady.push(x[..., :10]), start)
    going_on = steady.push(x[..., 20:30])
    anew = graph.stream(constant_latency=True).push(x[..., 20:30])
    moment, refused, finished = 0, 0, False
    generator = torch.Generator().manual_seed(0)
    while not finished:
        moment += int(torch.randint(1, 9, (1,), generator=generator))
        _, interrupted = interrupted_at(moment, calls[what])
        finished = not interrupted
        assert torch.is_grad_enabled()
        assert live() is None
        with contextlib.suppress(astrape.StreamError) if interrupted else contextlib.nullcontext():
            refused += 1
            session.snapshot()
            refused -= 1
            y = session.push(x[..., 20:30])
            assert (
                not interrupted or torch.equal(y, going_on) or (what not in ("push", "flush") and torch.equal(y, anew))
            )
        session.restore(saved)
        assert torch.equal(session.push(x[..., 20:30]), going_on)
        session.restore(saved)
    assert refused > 3 or what == "restore"


def test_no_gradient_is_lost_without_a_word():
    graph = astrape.compile(recipe({"g": {"use": "gain", "gain": "level"}}, controls={"level": {"channels": 1}}))
    x, level = torch.ones(1, 1, 4, requires_grad=True), torch.ones(1, requires_grad=True)
    session = graph.stream()
    for pushed_x, pushed_level, name in ((x, 1.0, "mic"), (x.detach(), level, "level"), (x * 2, 1.0, "mic")):
        with pytest.warns(
            UserWarning, match=rf"'{name}' requires a gradient.*graph\(x\) or graph.step.*detach"
        ) as told:
            session.push(pushed_x, level=pushed_level)
        assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():
            session.push(x, level=level)
        session.push(x.detach(), level=level.detach())


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("turn", [lambda graph: graph.double(), lambda graph: graph.to("meta")])
def test_a_graph_that_is_turned_under_a_session_is_told(chunk, turn):
    graph = astrape.compile(recipe({"c": {"use": "conv", "kernel": 3}}))
    session = graph.stream(chunk=chunk)
    session.push(torch.ones(1, 1, 4))
    turn(graph)
    for attempt in (lambda: session.push(torch.ones(1, 1, 4)), session.flush, lambda: session.reset([0])):
        with pytest.raises(astrape.StreamError, match=r"when this session began: make a new session"):
            attempt()
    if graph.device.type != "meta":
        assert graph.stream(chunk=chunk).push(torch.ones(1, 1, 4)).dtype == torch.float64


def test_wrong_input_is_refused_in_one_line():
    graph = astrape.compile(recipe({"g": {"use": "gain", "gain": "level"}}, controls={"level": {"channels": 1}}))
    session = graph.stream()
    with pytest.raises(astrape.StreamError, match=r"'level'.*no value"):
        session.push(torch.zeros(1, 1, 4))
    refusals = [
        (torch.zeros(4), "unsqueeze"),
        (torch.zeros(1, 2, 4), "1, frames"),
        (torch.zeros(3, 1, 4), "3 rows"),
    ]
    for wrong, message in refusals:
        with pytest.raises(astrape.StreamError, match=message):
            session.push(wrong, level=1.0)
    with pytest.raises(astrape.StreamError, match="int16"):
        session.push(torch.zeros(1, 1, 4, dtype=torch.int16), level=1.0)
    deep = astrape.compile(recipe({"f": {"use": "framing", "size": 4, "hop": 4}}))
    state = deep.init_state(1)
    with pytest.raises(astrape.StreamError, match="whole multiple"):
        deep.step(torch.zeros(1, 1, 6), state, {})


@pytest.mark.parametrize("name", ["voice-changer", "denoiser"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_recipes_of_phases_and_powers_refuse_half_precision(name, dtype):
    with pytest.raises(astrape.StreamError, match="needs float32 or float64"):
        astrape.load(name).stream(dtype=dtype)
