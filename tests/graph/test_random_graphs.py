"""Graphs drawn at random keep the time model: both modes equal, clocks exact, rows and states apart."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from astrape.blocks.state import state_leaves
from astrape.graph.graph import Graph
from tests.graph.random_recipes import (
    arrivals,
    compiled,
    counted_framings,
    crooked_recipes,
    random_recipes,
    uneven_recipes,
)

Ports = dict[str, Tensor]
seeds = st.integers(0, 2**16)


def by_port(names: Iterable[str], signal: Any) -> Ports:
    return dict(signal) if isinstance(signal, dict) else {next(iter(names)): signal}


def noise(graph: Graph, frames: dict[str, int], *, batch: int = 1, seed: int = 0) -> Ports:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(batch, stream.channels, frames[name], generator=generator, dtype=torch.float64)
        for name, stream in graph.inputs.items()
    }


def fed(graph: Graph, ports: Ports) -> Any:
    return ports if len(graph.inputs) > 1 else next(iter(ports.values()))


def whole(graph: Graph, ports: Ports, **controls: Any) -> Ports:
    return by_port(graph.outputs, graph(fed(graph, ports), **controls))


def joined(parts: list[Ports]) -> Ports:
    return {name: torch.cat([part[name] for part in parts], dim=-1) for name in parts[0]}


def assert_same(got: Ports, want: Ports) -> None:
    assert got.keys() == want.keys()
    for name in want:
        size = float(want[name].detach().abs().max()) if want[name].numel() else 1.0
        torch.testing.assert_close(
            got[name], want[name], rtol=0, atol=1e-10 * max(1.0, size), msg=lambda m, n=name: f"{n}: {m}"
        )


def push(graph: Graph, session: Any, ports: Ports, **controls: Any) -> Ports:
    return by_port(graph.outputs, session.push(fed(graph, ports), **controls))


class Cuts:
    """Cuts every input into pieces at random, apart from the others: some run ahead, and some pieces are empty."""

    def __init__(self, seed: int, spread: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.spread = spread

    def __call__(self, ports: Ports) -> Iterable[Ports]:
        begun = dict.fromkeys(ports, 0)
        while any(begun[name] < x.shape[-1] for name, x in ports.items()):
            piece = {}
            for name, x in ports.items():
                count = int(torch.randint(0, self.spread + 1, (1,), generator=self.generator))
                piece[name] = x[..., begun[name] : begun[name] + count]
                begun[name] = min(begun[name] + count, x.shape[-1])
            yield piece


def lengths(graph: Graph, periods: Fraction) -> dict[str, int]:
    return {name: int(count * periods) for name, count in graph.consumes.items()}


@settings(max_examples=150)
@given(recipe=random_recipes(), seed=seeds, spread=st.sampled_from([1, 5, 60]))
def test_any_chunks_give_what_the_whole_gives(recipe, seed, spread):
    """Also when the caller reuses its buffers, and writes over what it was given."""
    graph = compiled(recipe, seed)
    x = noise(graph, lengths(graph, Fraction(13, 5)), seed=seed)
    with torch.no_grad():
        want = whole(graph, x)
    session = graph.stream()
    size, parts = session.state_bytes, []
    for piece in Cuts(seed, spread)(x):
        buffers = {name: part.clone() for name, part in piece.items()}
        y = push(graph, session, buffers)
        parts.append({name: part.clone() for name, part in y.items()})
        for tensor in (*buffers.values(), *y.values()):
            tensor.fill_(math.nan)
        assert session.state_bytes == size
    assert_same(joined(parts), want)
    assert not session.faults


@settings(max_examples=120)
@given(recipe=crooked_recipes(), seed=seeds)
def test_what_an_alignment_error_proposes_makes_the_paths_meet(recipe, seed):
    graph = compiled(recipe, seed)
    for node in graph.nodes.values():
        assert len({graph.signal_latency[read] for read in node.sources.values()}) == 1
    x = noise(graph, lengths(graph, Fraction(7, 2)), seed=seed)
    with torch.no_grad():
        assert_same(joined([push(graph, graph.stream(), x)]), whole(graph, x))


@settings(max_examples=70)
@given(recipe=random_recipes(), seed=seeds)
def test_steps_over_quanta_with_explicit_state_equal_the_whole(recipe, seed):
    graph = compiled(recipe, seed)
    x = noise(graph, lengths(graph, Fraction(4)), batch=2, seed=seed)
    state = graph.init_state(2, dtype=torch.float64)
    form = [(path, leaf.shape, leaf.dtype, leaf.stride()) for path, leaf in state_leaves(state)]
    parts, begun = [], 0
    with torch.no_grad():
        for quanta in (1, 0, 2, 1):
            piece = {
                name: x[name][..., begun * count : (begun + quanta) * count] for name, count in graph.consumes.items()
            }
            before = copy.deepcopy(state)
            y, after = graph.step(fed(graph, piece), state)
            for (path, leaf), (_, saved) in zip(state_leaves(state), state_leaves(before), strict=True):
                assert torch.equal(leaf, saved), f"{path} was changed by a step"
            state, begun = after, begun + quanta
            assert [(path, leaf.shape, leaf.dtype, leaf.stride()) for path, leaf in state_leaves(state)] == form
            parts.append(by_port(graph.outputs, y))
        assert_same(joined(parts), whole(graph, x))
        rows = [whole(graph, {name: part[row : row + 1] for name, part in x.items()}) for row in range(2)]
        assert_same({name: torch.cat([row[name] for row in rows]) for name in rows[0]}, whole(graph, x))


@settings(max_examples=90)
@given(recipe=random_recipes() | uneven_recipes(), seed=seeds)
def test_framing_and_constant_latency_are_exact(recipe, seed):
    """Fed in order of time, every output comes as late as declared, and a host that waits so long never runs dry.

    Where the framing is not a whole number of output frames, the last frame due may not be there before the next input.
    """
    graph = compiled(recipe, seed)
    declared = {name: framing.seconds for name, framing in graph.framings.items()}
    assert counted_framings(graph) == declared
    session, constant = graph.stream(), graph.stream(constant_latency=True)
    x = noise(graph, graph.consumes, seed=seed)
    with torch.no_grad():
        want = whole(graph, x)
    heard = dict.fromkeys(graph.inputs, 0)
    given_frames, steady = dict.fromkeys(graph.outputs, 0), []
    late = dict.fromkeys(graph.outputs, Fraction(0))
    for now, names in arrivals(graph):
        piece = {n: x[n][..., heard[n] : heard[n] + int(n in names)] for n in graph.inputs}
        heard = {n: heard[n] + int(n in names) for n in heard}
        for name, part in push(graph, session, piece).items():
            if part.shape[-1]:
                late[name] = max(late[name], now - (given_frames[name] + 1) / graph.outputs[name].rate)
                given_frames[name] += part.shape[-1]
        steady.append(push(graph, constant, piece))
        elapsed = min(heard[n] / graph.inputs[n].rate for n in heard)
        for name, stream in graph.outputs.items():
            waits = graph.host_latencies[name] - math.ceil(graph.latencies[name] * stream.rate)
            due, there = int(elapsed * stream.rate), given_frames[name] + waits
            assert there >= due - int((declared[name] * stream.rate).denominator > 1)
            assert sum(part[name].shape[-1] for part in steady) == min(due, there)
    assert late == declared
    for name, y in joined(steady).items():
        hidden = y.shape[-1] - (want[name].shape[-1] - constant._late[name].shape[-1])
        silent, sound = y[..., :hidden], y[..., hidden:]
        assert not silent.any()
        assert_same({name: sound}, {name: want[name][..., : sound.shape[-1]]})
        rate = graph.outputs[name].rate
        assert graph.host_latencies[name] == math.ceil((graph.latencies[name] + declared[name]) * rate)
        assert 0 <= graph.host_latencies[name] - (hidden + graph.latencies[name] * rate) < 1


@settings(max_examples=70)
@given(
    recipe=random_recipes() | uneven_recipes(),
    seed=seeds,
    share=st.sampled_from([0, 1, 37, 99]),
    constant=st.booleans(),
)
def test_flush_gives_exactly_the_missing_frames(recipe, seed, share, constant):
    graph = compiled(recipe, seed)
    full = lengths(graph, Fraction(2))
    frames = {name: (count * share + 99 * index) // 100 for index, (name, count) in enumerate(full.items())}
    x = noise(graph, frames, seed=seed)
    session = graph.stream(constant_latency=constant)
    for _ in range(2):
        parts = [push(graph, session, piece) for piece in Cuts(seed, 20)(x)]
        y = joined([*parts, by_port(graph.outputs, session.flush())])
        assert set(session.positions.values()) == {0}
        heard = max(frames[name] / stream.rate for name, stream in graph.inputs.items())
        periods = math.ceil((heard + max(graph.latencies.values())) / graph.period) + 2
        padded = {
            name: torch.cat([t, t.new_zeros(*t.shape[:2], periods * graph.consumes[name] - t.shape[-1])], dim=-1)
            for name, t in x.items()
        }
        with torch.no_grad():
            want = whole(graph, padded)
        for name, stream in graph.outputs.items():
            skip = graph.host_latencies[name] if constant else math.ceil(graph.latencies[name] * stream.rate)
            assert y[name].shape[-1] == math.ceil(heard * stream.rate) + skip
        if not constant:
            assert_same(y, {name: want[name][..., : y[name].shape[-1]] for name in want})


@settings(max_examples=60)
@given(recipe=random_recipes(), seed=seeds, share=st.integers(0, 99))
def test_rows_snapshots_and_faults_stay_apart(recipe, seed, share):
    graph = compiled(recipe, seed)
    x = noise(graph, lengths(graph, Fraction(3)), batch=3, seed=seed)
    cut = {name: count * (100 + share) // 100 for name, count in graph.consumes.items()}
    head = {name: t[..., : cut[name]] for name, t in x.items()}
    tail = {name: t[..., cut[name] :].clone() for name, t in x.items()}
    session = graph.stream(batch_size=3)
    first = push(graph, session, head)
    saved = session.snapshot()
    alone = joined([first, *(push(graph, session, piece) for piece in Cuts(seed, 30)(tail))])
    with torch.no_grad():
        want = whole(graph, x)
    assert_same(alone, want)

    session.restore(saved)
    session.reset(rows=[1])
    second = joined([first, push(graph, session, tail)])
    silenced = {name: t.clone() for name, t in x.items()}
    begun = min(cut[name] // count for name, count in graph.consumes.items())
    for name, count in graph.consumes.items():
        silenced[name][1, :, begun * count : cut[name]] = 0
    fresh = whole(graph, {name: t[1:2, :, begun * graph.consumes[name] :] for name, t in silenced.items()})
    for name in want:
        shift, known = begun * graph.produces[name], first[name].shape[-1]
        assert_same({name: second[name][[0, 2]]}, {name: want[name][[0, 2]]})
        assert_same({name: second[name][1:2, :, known:]}, {name: fresh[name].detach()[..., known - shift :]})

    session.restore(saved)
    port = next(iter(tail))
    tail[port][2, :, tail[port].shape[-1] // 2] = math.nan
    third = joined([first, *(push(graph, session, piece) for piece in Cuts(seed, 30)(tail))])
    assert {fault.row for fault in session.faults} == ({2} if tail[port].shape[-1] else set())
    assert all(bool(torch.isfinite(y).all()) for y in third.values())
    assert_same({name: y[:2] for name, y in third.items()}, {name: y[:2] for name, y in want.items()})
    session.reset()
    again = push(graph, session, x)
    assert_same(again, want)


@settings(max_examples=60)
@given(recipe=random_recipes(), seed=seeds, share=st.integers(1, 99))
def test_padding_causality_and_reach(recipe, seed, share):
    """Right padding changes nothing valid, and nothing older than the declared receptive field is heard."""
    graph = compiled(recipe, seed)
    reach = graph.receptive_field
    memory = 2 if reach is None else min(6, math.ceil(reach / graph.period))
    lead, count = next(iter(graph.consumes.items()))
    frames = count * share // 100 + (memory + 1) * count
    valid = {name: int(frames / graph.inputs[lead].rate * stream.rate) for name, stream in graph.inputs.items()}
    x = noise(graph, lengths(graph, Fraction(memory + 3)), seed=seed)
    short = {name: t[..., : valid[name]] for name, t in x.items()}
    with torch.no_grad():
        long, brief = whole(graph, x), whole(graph, short)
        told = by_port(graph.outputs, graph.output_lengths(torch.tensor([frames])))
        for name, y in brief.items():
            assert y.shape[-1] == int(told[name])
        assert_same(brief, {name: long[name][..., : y.shape[-1]] for name, y in brief.items()})
        if reach is None:
            return
        # The output of period k begins no earlier than (k + 1) periods less the reach.
        period = memory + 2
        since = (period + 1) * graph.period - reach
        older = {name: t.clone() for name, t in x.items()}
        for name, t in older.items():
            t[..., : max(0, math.floor(since * graph.inputs[name].rate))] += 1.0
        changed = whole(graph, older)
        for name in long:
            begins = period * graph.produces[name]
            assert_same({name: changed[name][..., begins:]}, {name: long[name][..., begins:]})


@settings(max_examples=45)
@given(recipe=random_recipes(), seed=seeds)
def test_copies_gradients_and_weights(recipe, seed):
    graph = compiled(recipe, seed)
    x = noise(graph, lengths(graph, Fraction(2)), seed=seed)
    want = whole(graph, x)
    buffer = io.BytesIO()
    torch.save(graph, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(graph), torch.load(buffer, weights_only=False), graph.deploy()):
        assert_same(whole(other, x), want)
        assert other.latencies == graph.latencies
        assert other.framings == graph.framings
        assert other.dtype == torch.float64
        with torch.no_grad():
            assert_same(push(other, other.stream(), x), {name: y.detach() for name, y in want.items()})
    again = compiled(recipe, seed + 1)
    again.load_state_dict(graph.state_dict())
    assert_same(whole(again, x), want)

    def slopes(run: Any) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in x.values()]
        outputs = run(dict(zip(x, leaves, strict=True)))
        wanted = [*leaves, *graph.parameters()]
        total = sum((y * torch.cos(torch.arange(y.shape[-1]))).sum() for y in outputs.values())
        found = torch.autograd.grad(total, wanted, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(found, wanted, strict=True)]

    def stepped(ports: Ports) -> Ports:
        state, parts = graph.init_state(1, dtype=torch.float64), []
        for k in range(2):
            piece = {name: ports[name][..., k * count : (k + 1) * count] for name, count in graph.consumes.items()}
            y, state = graph.step(fed(graph, piece), state)
            parts.append(by_port(graph.outputs, y))
        return joined(parts)

    for once, twice in zip(slopes(lambda ports: whole(graph, ports)), slopes(stepped), strict=True):
        scale = max(1.0, float(once.abs().max()) if once.numel() else 1.0)
        torch.testing.assert_close(twice, once, rtol=0, atol=1e-9 * scale)


@st.composite
def paths(draw: Any) -> dict[str, Any]:
    """Delays, transforms and their inverses, resamplers there and back: all they do to a sound is to make it late."""
    blocks: dict[str, Any] = {}
    rate = 4800
    for index in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["delay", "stft", "framing", "resampler", "beside"]))
        hop = draw(st.sampled_from([2, 4, 8]))
        if kind == "delay":
            blocks[f"d{index}"] = {"use": "delay", "frames": draw(st.integers(0, 30))}
        elif kind == "stft":
            blocks |= {
                f"s{index}": {"use": "stft", "n_fft": 4 * hop, "hop": hop},
                f"i{index}": {"use": "istft", "n_fft": 4 * hop, "hop": hop},
            }
        elif kind == "framing":
            blocks |= {
                f"f{index}": {"use": "framing", "size": 2 * hop, "hop": hop},
                f"o{index}": {"use": "overlap_add", "hop": hop, "window": "hann"},
            }
        elif kind == "resampler":
            rate = draw(st.sampled_from([r for r in (3200, 4800, 7200) if r != rate]))
            blocks[f"r{index}"] = {"use": "resampler", "rate": rate, "zeros": 6, "stopband_db": 50}
        elif blocks:
            before = list(blocks)[-1]
            blocks[f"late{index}"] = {"use": "delay", "from": before, "frames": draw(st.integers(1, 9))}
            blocks[f"b{index}"] = {"use": "mix", "from": [before, f"late{index}"], "weights": [0.5, 0.5]}
    blocks["end"] = {"use": "gain", "gain": 1.0, **({} if blocks else {"from": "mic"})}
    inputs = {"mic": {"rate": 4800, "channels": 1}}
    return {"recipe": "path", "inputs": inputs, "blocks": blocks, "outputs": {"wav": "end"}}


@settings(max_examples=60)
@given(recipe=paths(), shift=st.integers(0, 40))
def test_a_pulse_comes_out_at_the_declared_latency(recipe, shift):
    """Measured by its centre: a smooth pulse passes every resampler unchanged, but for the time it takes.

    Frames stand for their instants ``n / r`` here: a resampler puts its first sample where the input has its first.
    """
    graph = compiled(recipe)
    at = 400 + shift
    frames = at + 800 + math.ceil(graph.latency * graph.rate_in)
    n = torch.arange(frames, dtype=torch.float64)
    x = torch.exp(-0.5 * ((n - at) / 16) ** 2).reshape(1, 1, -1)
    with torch.no_grad():
        y = graph(x)[0, 0]
    instants = torch.arange(len(y), dtype=torch.float64) / float(graph.rate_out)
    seen = float((instants * y).sum() / y.sum())
    assert abs(seen - float(at / graph.rate_in + graph.latency)) < 0.02 / float(graph.rate_in)


@settings(max_examples=40)
@given(recipe=uneven_recipes(), size=st.integers(1, 90))
def test_latencies_that_both_end_within_a_frame_are_rounded_once(recipe, size):
    """A pulse through a session of constant latency comes at that latency, in the frame that its sum ends in."""
    graph = compiled(recipe)
    rate = graph.rate_out
    assert graph.host_samples == math.ceil((graph.latency + graph.framing) * rate)
    at, frames = 500, 1000 + math.ceil(graph.host_latency * graph.rate_in)
    x = torch.exp(-0.5 * ((torch.arange(frames, dtype=torch.float64) - at) / 16) ** 2).reshape(1, 1, -1)
    y = torch.cat([graph.stream(constant_latency=True).push(x)], dim=-1)[0, 0]
    assert y.shape[-1] in (int(frames * rate / graph.rate_in) - 1, int(frames * rate / graph.rate_in))
    seen = float((torch.arange(len(y)) * y).sum() / y.sum()) - float(at * rate / graph.rate_in)
    assert graph.host_samples - 1 < seen + 0.01
    assert seen - 0.01 <= graph.host_samples
    steady, plain = (
        torch.cat(list(graph.stream(constant_latency=constant).compensated(x.split(size, dim=-1))), dim=-1)
        for constant in (True, False)
    )
    torch.testing.assert_close(steady, plain, rtol=0, atol=1e-12)
    assert steady.shape[-1] == math.ceil(frames * rate / graph.rate_in)


@pytest.mark.slow
@settings(max_examples=400)
@given(recipe=random_recipes(blocks=25), seed=seeds, spread=st.sampled_from([1, 7, 100]))
def test_large_graphs_stream_as_they_run(recipe, seed, spread):
    graph = compiled(recipe, seed)
    x = noise(graph, lengths(graph, Fraction(13, 5)), seed=seed)
    session = graph.stream()
    got = joined([push(graph, session, piece) for piece in Cuts(seed, spread)(x)])
    with torch.no_grad():
        assert_same(got, whole(graph, x))
    assert counted_framings(graph) == {name: framing.seconds for name, framing in graph.framings.items()}
