"""Graphs, sessions and reports as they are shown at a prompt and in a notebook."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch

import astrape


class Cells(HTMLParser):
    """The rows of a page's tables, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_a_graph_says_its_rates_latency_and_size_in_one_line() -> None:
    graph = astrape.load("voice-changer")
    line = repr(graph)
    assert "\n" not in line
    for text in (
        "'voice-changer'", "mic (44100 Hz, 1 channel) -> wav (44100 Hz, 1 channel)", "34.807 ms = 1,535 samples",
        "algorithmic 26.122 ms", "framing 8.685 ms", "pitch, formant", "7 blocks", "torch.float32 on cpu",
    ):  # fmt: skip
        assert text in line, line
    assert "float64" in repr(astrape.load("echo").double())
    encoder = repr(astrape.load("astrape-vc"))
    assert "wav (44100 Hz, 1 channel)" in encoder
    assert "content (25 Hz, 768 channels)" in encoder


def test_printed_it_is_the_tree_of_its_modules_with_rates() -> None:
    text = str(astrape.load("voice-changer"))
    assert "(spectra): STFT(" in text
    assert "44100 Hz x 1 -> 114.84375 Hz x 1538, latency 13.061 ms" in text


def test_a_session_says_where_it_is() -> None:
    graph = astrape.load("voice-changer")
    session = graph.stream(batch_size=2)
    assert "2 streams at 0 frames of mic (0.000 s)" in repr(session)
    session.push(torch.zeros(2, 1, 441), pitch=5.0)
    line = repr(session)
    assert "\n" not in line
    assert "2 streams at 441 frames of mic (0.010 s)" in line
    assert "1152 frames of wav late (26.122 ms)" in line
    assert "pitch = 5" in line
    assert "fault" not in line
    session.push(torch.full((2, 1, 1), torch.nan))
    assert "2 faults" in repr(session)
    session.reset()
    assert "at 0 frames" in repr(session)
    late = graph.stream(constant_latency=True)
    assert "1535 frames of wav late (34.807 ms)" in repr(late)


def test_a_report_says_its_latency_and_whether_it_agrees() -> None:
    graph = astrape.load("dry-wet")
    line = repr(graph.report())
    assert "39.887 ms = 1,759 samples" in line
    assert "measured" not in line
    assert "all agree" in repr(graph.report(measure=True))


def test_a_notebook_shows_the_report_as_a_table() -> None:
    report = astrape.load("dry-wet").report()
    rows = Cells(report._repr_html_()).rows
    assert rows[0][:2] == ["block", "type"]
    assert [row[0] for row in rows[1:]] == [row.name for row in report.blocks]
    ages = rows[0].index("age")
    assert [row[ages] for row in rows[1:]] == ["14.966 ms", "29.932 ms", "29.932 ms", "29.932 ms"]
    assert "host 39.887 ms = 1759 samples" in report._repr_html_()


def test_a_notebook_shows_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    graph = astrape.load("dry-wet")
    for picture in (graph._repr_svg_(), graph.report()._repr_svg_()):
        assert picture is not None
        root = ElementTree.fromstring(picture)
        assert root.tag.endswith("svg")
        assert float(root.attrib["width"].removesuffix("pt")) > 100
    images = [found for tag, found in Cells(graph._repr_html_()).seen if tag == "img"]
    assert len(images) == 1
    assert str(images[0]["src"]).startswith("data:image/svg+xml;base64,")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setenv("PATH", "")
    assert graph._repr_svg_() is None
    assert graph.report()._repr_svg_() is None
    assert "<img" not in graph._repr_html_()
    assert "dry-wet" in graph._repr_html_()


def test_names_of_foreign_recipes_are_text_and_no_markup() -> None:
    graph = astrape.load("echo")
    graph.name = "<script>alert(1)</script>&"
    for page in (graph._repr_html_(), graph.report()._repr_html_()):
        assert "script" not in [tag for tag, _ in Cells(page).seen]
        assert "&lt;script&gt;" in page


def test_a_giant_is_not_drawn_unasked() -> None:
    blocks = {f"g{index}": {"use": "gain", "gain": 1.0} for index in range(201)}
    graph = astrape.compile(
        {"recipe": "giant", "inputs": {"mic": {"rate": 100, "channels": 1}}, "blocks": blocks,
         "outputs": {"wav": "g200"}}
    )  # fmt: skip
    assert graph._repr_svg_() is None
    assert "201 blocks" in graph._repr_html_()
