"""Pictures: that what is drawn adds up, that long graphs fit, that files hold something."""

from __future__ import annotations

import builtins
import shutil
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

import astrape as library
from astrape.graph.report.drawing import save_graph_picture
from astrape.graph.report.plot import waterfall
from tests.cli.audio import astrape, fails


@pytest.fixture(params=["graphviz", "networkx"])
def drawn_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to draw: with Graphviz's program, where it is installed, and without."""
    if request.param == "networkx":
        monkeypatch.setenv("PATH", "")
    elif shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed")
    return str(request.param)


def test_a_long_graph_stays_on_the_page(tmp_path: Path, drawn_by: str) -> None:
    blocks: dict[str, Any] = {f"d{index}": {"use": "delay", "frames": 1} for index in range(60)}
    blocks["sum"] = {"use": "add", "from": ["mic", "d10", "d59"]}
    wide = {"recipe": "chain", "inputs": {"mic": {"rate": 16000, "channels": 1}}, "blocks": blocks}
    save_graph_picture(library.compile({**wide, "outputs": {"wav": "sum"}}), tmp_path / "long.svg")
    root = ET.parse(tmp_path / "long.svg").getroot()
    width, height = (float(root.attrib[side].removesuffix("pt")) / 72 for side in ("width", "height"))
    assert width < 24
    assert height < 90


@pytest.mark.parametrize("name", ["dry-wet", "echo", "multirate", "nested", "tiny-encoder", "voice-changer"])
def test_bars_of_the_waterfall_add_up_to_the_host_latency(name: str) -> None:
    graph = library.load(name)
    for output, stream in graph.outputs.items():
        bars = waterfall(graph, output, graph.report().critical_path(output))
        assert sum((bar[2] for bar in bars), Fraction(0)) == graph.host_latencies[output] / stream.rate
        assert all(bar[2] >= 0 for bar in bars)


def test_bars_go_through_the_blocks_and_not_through_the_delay_beside_them() -> None:
    graph = library.load("dry-wet")
    bars = waterfall(graph, "wav", graph.report().critical_path("wav"))
    assert [bar[0] for bar in bars] == ["spectrum", "wet", "framing"]


def test_many_blocks_are_few_bars() -> None:
    blocks = {f"d{index}": {"use": "delay", "frames": 1 + index} for index in range(50)}
    recipe = {"recipe": "chain", "inputs": {"mic": {"rate": 16000, "channels": 1}}, "blocks": blocks}
    graph = library.compile({**recipe, "outputs": {"wav": "d49"}})
    bars = waterfall(graph, "wav", graph.report().critical_path("wav"))
    assert len(bars) < 27
    assert any("27 smaller blocks" in bar[0] for bar in bars)
    assert sum(bar[2] for bar in bars) == Fraction(50 * 51 // 2, 16000)


@pytest.mark.parametrize("name", ["dry-wet", "echo"])
def test_graph_files_hold_a_picture(tmp_path: Path, name: str, drawn_by: str) -> None:
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


def test_the_same_graph_gives_the_same_file(tmp_path: Path, drawn_by: str) -> None:
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


def test_a_large_graph_is_drawn(tmp_path: Path, drawn_by: str) -> None:
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
    assert max(matplotlib.image.imread(tmp_path / "large.png").shape) > 1000


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
    monkeypatch.setenv("PATH", "")
    fails(astrape("graph", "echo", "-o", tmp_path / "echo.svg"), 'pip install "astrape[plot]"')
    assert astrape("graph", "echo", "-o", tmp_path / "echo.dot").exit_code == 0
