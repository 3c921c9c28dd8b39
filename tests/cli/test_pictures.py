"""Pictures: that the layout keeps its promises, that what is drawn adds up, that files hold something."""

from __future__ import annotations

import builtins
import xml.etree.ElementTree as ET
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.image
import networkx as nx
import numpy as np
import pytest
from audio import astrape, fails
from hypothesis import given, settings
from hypothesis import strategies as st

import astrape as library
from astrape.graph.report.drawing import draw_graph
from astrape.graph.report.layout import arrange
from astrape.graph.report.plot import _bars


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    count = draw(st.integers(1, 40))
    names = [f"n{index}" for index in range(count)]
    edges = set()
    for index in range(1, count):
        for source in draw(st.lists(st.integers(max(0, index - 12), index - 1), max_size=3)):
            edges.add((names[source], names[index]))
    return names, sorted(edges)


@settings(max_examples=60)
@given(graphs(), st.integers(1, 9), st.data())
def test_layout_keeps_its_promises(
    graph: tuple[list[str], list[tuple[str, str]]], columns: int, data: st.DataObject
) -> None:
    names, edges = graph
    late = data.draw(st.lists(st.sampled_from(names), unique=True))
    layout = arrange(names, edges, late, columns)
    assert set(layout.layer) == set(names)
    assert all(layout.layer[a] < layout.layer[b] for a, b in edges)
    # Every edge can be followed from its source to its target along the segments.
    drawn = nx.DiGraph(layout.segments)
    for a, b in edges:
        chain = [(a, layer) for layer in range(layout.layer[a], layout.layer[b])] + [(b, layout.layer[b])]
        assert all(drawn.has_edge(*pair) for pair in pairwise(chain))
    # No two vertices of a column overlap, and none leaves its band.
    columns_of: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for vertex, (band, column, height) in layout.place.items():
        size = 1.0 if layout.layer[vertex[0]] == vertex[1] else 0.5
        assert column < columns
        assert -1e-6 <= height - 0.5 <= layout.heights[band] - 1 + 1e-6
        columns_of.setdefault((band, column), []).append((height, size))
    for places in columns_of.values():
        places.sort()
        for (above, size_above), (below, size_below) in pairwise(places):
            assert below - above >= (size_above + size_below) / 2 - 1e-6


def test_a_long_graph_stays_on_the_page() -> None:
    blocks: dict[str, Any] = {f"d{index}": {"use": "delay", "frames": 1} for index in range(60)}
    blocks["sum"] = {"use": "add", "from": ["mic", "d10", "d59"]}
    wide = {"recipe": "chain", "inputs": {"mic": {"rate": 16000, "channels": 1}}, "blocks": blocks}
    drawing = draw_graph(library.compile({**wide, "outputs": {"wav": "sum"}}))
    assert drawing.width < 24
    assert drawing.height < 40


@pytest.mark.parametrize("name", ["dry-wet", "echo", "multirate", "nested", "tiny-encoder", "voice-changer"])
def test_bars_of_the_waterfall_add_up_to_the_host_latency(name: str) -> None:
    graph = library.load(name)
    for output, stream in graph.outputs.items():
        bars = _bars(graph.report(), output)
        assert sum((bar[2] for bar in bars), Fraction(0)) == graph.host_latencies[output] / stream.rate
        assert all(bar[2] >= 0 for bar in bars)


def test_bars_go_through_the_blocks_and_not_through_the_delay_beside_them() -> None:
    assert [bar[0] for bar in _bars(library.load("dry-wet").report(), "wav")] == ["spectrum", "wet", "framing"]


def test_many_blocks_are_few_bars() -> None:
    blocks = {f"d{index}": {"use": "delay", "frames": 1 + index} for index in range(50)}
    recipe = {"recipe": "chain", "inputs": {"mic": {"rate": 16000, "channels": 1}}, "blocks": blocks}
    bars = _bars(library.compile({**recipe, "outputs": {"wav": "d49"}}).report(), "wav")
    assert len(bars) < 27
    assert any("27 smaller blocks" in bar[0] for bar in bars)
    assert sum(bar[2] for bar in bars) == Fraction(50 * 51 // 2, 16000)


@pytest.mark.parametrize("name", ["dry-wet", "echo"])
def test_graph_files_hold_a_picture(tmp_path: Path, name: str) -> None:
    for ending in ("svg", "png", "pdf"):
        path = tmp_path / f"{name}.{ending}"
        result = astrape("graph", name, "-o", path)
        assert result.exit_code == 0, result.output
        assert path.stat().st_size > 4_000
    image = matplotlib.image.imread(tmp_path / f"{name}.png")
    assert min(image.shape[:2]) > 300
    assert 0.5 < (image[..., :3].min(axis=-1) > 0.99).mean() < 0.99
    assert len(np.unique((image[..., :3] * 15).astype(int).reshape(-1, 3), axis=0)) > 20
    assert ET.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")
    assert {path.suffix for path in tmp_path.iterdir()} == {".svg", ".png", ".pdf"}


def test_the_same_graph_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        astrape("graph", "nested", "-o", tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_dot_text_has_every_node_and_edge(tmp_path: Path) -> None:
    astrape("graph", "echo", "-o", tmp_path / "echo.dot")
    text = (tmp_path / "echo.dot").read_text()
    assert text.count("->") == 5
    assert text.count("style=dashed") == 1
    for word in ("later", "again", "loop", "mic", "wav", "44.1 kHz × 1", "feedback"):
        assert word in text


def test_a_large_graph_is_drawn(tmp_path: Path) -> None:
    blocks: dict[str, Any] = {f"d{index}": {"use": "gain", "gain": 1.0} for index in range(400)}
    for index in range(20, 400, 20):
        blocks[f"d{index}"] = {"use": "add", "from": [f"d{index - 1}", f"d{index - 20}"]}
    lines = "\n".join(f"  {name}: {params}".replace("'", "") for name, params in blocks.items())
    path = tmp_path / "large.yaml"
    head = "recipe: large\ninputs: {mic: {rate: 16000, channels: 1}}\nblocks:\n"
    path.write_text(f"{head}{lines}\noutputs: {{w: d399}}\n")
    result = astrape("graph", path, "-o", tmp_path / "large.png")
    assert result.exit_code == 0, result.output
    assert "400 blocks" in result.output
    assert matplotlib.image.imread(tmp_path / "large.png").shape[1] > 1000


def test_wrong_targets(tmp_path: Path) -> None:
    fails(astrape("graph", "echo", "-o", tmp_path / "echo.bmp"), "echo.bmp", ".png, .svg or .pdf")
    fails(astrape("graph", "echo", "-o", tmp_path / "none" / "echo.png"), "no folder")
    fails(astrape("report", "echo", "--plot", tmp_path / "echo.jpeg"), ".png, .svg or .pdf")
    fails(astrape("graph", "echo"), "-o")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    fails(astrape("graph", "echo", "-o", tmp_path / "echo.svg"), 'pip install "astrape[plot]"')
    assert astrape("graph", "echo", "-o", tmp_path / "echo.dot").exit_code == 0
