"""A part of a graph between named signals: the same numbers as the whole, and the same clock."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import astrape
from astrape.errors import StreamError
from astrape.graph.subgraph import named_signals, split_at_control, subgraph

BLOCKS: dict[str, Any] = {
    "down": {"use": "resampler", "rate": 400, "zeros": 6},
    "wide": {"use": "conv", "channels": 6, "kernel": 3},
    "slow": {"use": "downsample", "factor": 4, "channels": 5},
    "late": {"use": "delay", "frames": 3},
    "mixed": {"use": "add", "from": ["slow", "late"]},
    "loud": {"use": "gain", "gain": "volume"},
}


def whole(**training: Any) -> astrape.Graph:
    recipe: dict[str, Any] = {
        "recipe": "whole",
        "inputs": {"mic": {"rate": 800, "channels": 1}},
        "controls": {"volume": {"channels": 1, "default": 1.5}},
        "blocks": BLOCKS,
        "outputs": {"out": "loud", "wide": "wide"},
        "training": {
            "blocks": {"guess": {"use": "linear", "from": "mixed", "channels": 3}},
            "outputs": {"guess": "guess", "stored": "wide"},
        },
    }
    torch.manual_seed(3)
    return astrape.compile(recipe, training=True).double()


@given(st.integers(1, 40), st.integers(1, 3), st.sampled_from(["stored", "wide", "slow"]))
def test_a_part_gives_what_the_whole_gives(periods: int, batch: int, entry: str) -> None:
    graph = whole()
    x = torch.randn(batch, 1, int(graph.period * 800) * periods, dtype=torch.float64)
    given_at: dict[str, torch.Tensor] = {}
    node = graph.nodes[named_signals(graph)[entry].node]
    hook = node.block.register_forward_hook(lambda block, inputs, y: given_at.update({entry: y}))
    full = graph(x, volume=0.7)
    hook.remove()
    part = subgraph(graph, ["out", "guess"], [entry])
    assert list(part.inputs) == [entry]
    assert "down" not in part.nodes
    got = part(given_at[entry], volume=0.7)
    for name in ("out", "guess"):
        torch.testing.assert_close(got[name], full[name], rtol=0, atol=0)


def test_latency_counts_from_the_microphone() -> None:
    graph = whole()
    part = subgraph(graph, ["out", "guess"], ["stored"])
    assert graph.latencies["stored"] > 0
    for name in ("out", "guess"):
        assert part.latencies[name] == graph.latencies[name]
    assert part.latency == graph.latencies["out"]
    assert part.framing == Fraction(0), "four frames at 400 Hz last as long as one at 100 Hz"


def test_parameters_and_precision_are_shared() -> None:
    graph = whole()
    part = subgraph(graph, ["guess"], ["stored"])
    assert part.dtype == torch.float64
    own = {id(parameter) for parameter in graph.parameters()}
    assert {id(parameter) for parameter in part.parameters()} < own
    part(torch.randn(1, 6, 16, dtype=torch.float64)).sum().backward()
    assert graph.nodes["guess"].block.get_parameter("weight").grad is not None
    assert graph.nodes["wide"].block.get_parameter("weight").grad is None


def test_controls_are_those_of_the_part() -> None:
    assert subgraph(whole(), ["guess"], ["stored"]).controls == {}
    assert subgraph(whole(), ["out"], ["stored"]).controls == {"volume": 1}


def test_a_part_with_training_only_nodes_has_no_step_and_without_them_streams() -> None:
    assert subgraph(whole(), ["guess"], ["stored"]).training_only
    part = subgraph(whole(), ["out"], ["stored"])
    session = part.stream()
    x = torch.randn(1, 6, 64, dtype=torch.float64)
    live = torch.cat([session.push(piece) for piece in x.split(5, dim=-1)], dim=-1)
    torch.testing.assert_close(live, part(x))


def test_two_entries_and_the_input_itself() -> None:
    graph = whole()
    part = subgraph(graph, ["out", "wide"], ["slow", "mic"])
    assert list(part.inputs) == ["slow", "mic"]
    x = torch.randn(1, 1, 160, dtype=torch.float64)
    full = graph(x)
    slow = graph.nodes["slow"].block(full["wide"])
    torch.testing.assert_close(part({"slow": slow, "mic": x})["out"], full["out"])


@pytest.mark.parametrize(
    ("entries", "outputs", "said"),
    [
        (["stord"], ["out"], "did you mean 'stored'"),
        (["stored"], ["outt"], "did you mean 'out'"),
        (["stored"], [], "asked for no output"),
        (["guess"], ["out"], "nothing that was asked for depends on 'guess'"),
        (["stored"], ["out", "guess"], None),
    ],
)
def test_what_cannot_be_cut(entries: list[str], outputs: list[str], said: str | None) -> None:
    if said is None:
        assert list(subgraph(whole(), outputs, entries).outputs) == outputs
        return
    with pytest.raises(StreamError, match=said):
        subgraph(whole(), outputs, entries)


def test_an_entry_inside_a_feedback_loop_is_refused() -> None:
    blocks = {
        "sum": {"use": "add", "from": ["mic", "back"]},
        "tone": {"use": "gain", "gain": 0.5},
        "back": {"use": "delay", "frames": 4},
    }
    recipe = {
        "recipe": "loop",
        "inputs": {"mic": {"rate": 100, "channels": 1}},
        "blocks": blocks,
        "outputs": {"out": "tone"},
    }
    graph = astrape.compile(recipe)
    with pytest.raises(StreamError, match="feedback loop"):
        subgraph(graph, ["out"], ["sum"])


def test_the_voice_graph_from_stored_features_in_float64() -> None:
    recipe = astrape.Recipe.load("astrape-vc-small")
    torch.manual_seed(5)
    graph = astrape.compile(recipe).double()
    mic = 0.1 * torch.randn(1, 1, 1764 * 12, dtype=torch.float64)
    speaker = torch.randn(1, 128, dtype=torch.float64)
    features = subgraph(graph, ["wav", "content", "codes"])
    kept: dict[str, torch.Tensor] = {}
    hook = graph.nodes["wavlm"].block.register_forward_hook(lambda block, given, y: kept.update(y=y))
    full = features(mic, speaker=speaker)
    hook.remove()
    part = subgraph(graph, ["wav", "content", "codes"], ["wavlm"])
    got = part(kept["y"], speaker=speaker)
    assert part.latencies == graph.latencies
    for name in full:
        torch.testing.assert_close(got[name], full[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("recipe", "control"),
    [
        ("astrape-mini", "speaker"),
        ("astrape-mini", "pitch"),
        ("astrape-vc-small", "speaker"),
        ("de-esser", "threshold"),
    ],
)
def test_a_graph_split_at_a_control_is_the_whole_in_two_parts(recipe: str, control: str) -> None:
    graph = astrape.load(recipe).double().eval()
    torch.manual_seed(1)
    x = torch.randn(1, 1, 6 * graph.quantum, dtype=torch.float64) * 0.1
    values = {name: torch.randn(1, channels) for name, channels in graph.controls.items() if name == "speaker"}
    fixed, following = split_at_control(graph, control)
    assert control not in fixed.controls
    assert control in following.controls
    with torch.no_grad():
        made = fixed(x, **{name: one for name, one in values.items() if name in fixed.controls})
        given = {next(iter(fixed.outputs)): made} if isinstance(made, torch.Tensor) else dict(made)
        given |= {name: x for name in following.inputs if name in graph.inputs}
        own = {name: one for name, one in values.items() if name in following.controls}
        y, expected = following(given, **own), graph(x, **values)
    whole_y = expected if isinstance(expected, torch.Tensor) else expected[graph.main]
    assert isinstance(y, torch.Tensor)
    assert torch.equal(y, whole_y)
    assert following.latency == graph.latency


def test_a_control_that_splits_nothing_off_is_refused() -> None:
    with pytest.raises(StreamError, match="'out' does not depend on a control 'speed'"):
        split_at_control(whole(), "speed")
    recipe = {
        "recipe": "loud",
        "inputs": {"mic": {"rate": 800, "channels": 1}},
        "controls": {"volume": {"channels": 1, "default": 1.5}},
        "blocks": {"loud": {"use": "gain", "gain": "volume"}},
        "outputs": {"out": "loud"},
    }
    with pytest.raises(StreamError, match="all of it depends on 'volume'"):
        split_at_control(astrape.compile(recipe), "volume")
