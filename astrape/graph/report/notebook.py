"""What a graph, a session and a report say of themselves: a line at the prompt, a picture or a table in a notebook."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from astrape.blocks.base import Stream
from astrape.errors import AstrapeError
from astrape.graph.report.plot import save_graph_picture, save_latency_plot
from astrape.graph.report.table import rate, shown, size

if TYPE_CHECKING:
    from torch import Tensor

    from astrape.graph.graph import Graph
    from astrape.graph.report.report import Report
    from astrape.graph.session import Session

__all__ = ["graph_html", "graph_line", "graph_svg", "report_html", "report_line", "report_svg", "session_line"]

MOST_DRAWN = 200
"""Nodes of the largest graph that is drawn unasked: it takes a second or two."""


def graph_line(graph: Graph) -> str:
    """Rates, latency and size of a graph in one line."""
    parts = [f"{_streams(graph.inputs)} -> {_streams(graph.outputs)}"]
    if graph.training_only:
        parts.append("training-only nodes among it (deploy() is what streams)")
    else:
        parts.append(_latency(graph))
    if graph.controls:
        parts.append(f"controls {', '.join(graph.controls)}")
    count = sum(parameter.numel() for parameter in graph.parameters())
    parts.append(f"{_many(len(graph.nodes), 'block')}, {count:,} parameters, {graph.dtype} on {graph.device}")
    return f"<Graph '{graph.name}': {'; '.join(parts)}>"


def session_line(session: Session) -> str:
    """Position, latency, controls and faults of a session in one line."""
    graph = session.graph
    heard = ", ".join(
        f"{session.positions[name]} frames of {name} ({float(session.positions[name] / stream.rate):.3f} s)"
        for name, stream in graph.inputs.items()
    )
    late = ", ".join(
        f"{session.latency_frames(name)} frames of {name} late"
        f" ({shown(session.latency_frames(name) / stream.rate, '')})"
        for name, stream in graph.outputs.items()
    )
    parts = [f"{_many(session.batch_size, 'stream')} at {heard}", late]
    if session.controls:
        parts.append(", ".join(f"{name} = {_value(value)}" for name, value in session.controls.items()))
    parts.append(f"state {size(session.state_bytes)}")
    if session.faults:
        parts.append(_many(len(session.faults), "fault"))
    return f"<Session of '{graph.name}': {'; '.join(parts)}>"


def report_line(report: Report) -> str:
    """A graph's latency in one line, and whether what was measured agrees."""
    parts = [_latency(report.graph), _many(len(report.blocks), "block")]
    if report.measured is not None:
        wrong = len(report.disagreements)
        parts.append(f"{wrong} of the declared numbers measured otherwise" if wrong else "measured, and all agree")
    return f"<Report of '{report.graph.name}': {'; '.join(parts)}>"


def graph_html(graph: Graph) -> str:
    """A graph's line, and its picture where matplotlib is there and the graph is no giant."""
    frame = ElementTree.Element("div")
    _add(frame, "p", graph_line(graph).strip("<>"), style="font-family: monospace")
    picture = graph_svg(graph)
    if picture is not None:
        source = f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}"
        _add(frame, "img", src=source, alt=f"{graph.name}, compiled", style="max-width: 100%; background: white")
    return _text(frame)


def report_html(report: Report) -> str:
    """The report's table with all columns, and its summary."""
    content = report.table()
    frame = ElementTree.Element("div", style="overflow-x: auto")
    table = _add(frame, "table")
    _add(table, "caption", f"{report.graph.name}: latency", style="text-align: left; font-style: italic")
    head = _add(_add(table, "thead"), "tr")
    for column in content.columns:
        _add(head, "th", column.head, scope="col", style=_aligned(column.left))
    body = _add(table, "tbody")
    for cells in zip(*(content.cells[column.head] for column in content.columns), strict=True):
        row = _add(body, "tr")
        for column, cell in zip(content.columns, cells, strict=True):
            _add(row, "td", cell, style=_aligned(column.left))
    for line in report.summary().splitlines():
        _add(frame, "p", line, style="margin: 0")
    return _text(frame)


def graph_svg(graph: Graph) -> str | None:
    """The picture of a graph; ``None`` without matplotlib, and for a giant."""
    if len(graph.nodes) > MOST_DRAWN:
        return None
    return _drawn(lambda path: save_graph_picture(graph, path))


def report_svg(report: Report) -> str | None:
    """The waterfall of a report; ``None`` without matplotlib."""
    return _drawn(lambda path: save_latency_plot(report, path))


def _drawn(save: Callable[[Path], None]) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.svg"
        try:
            save(path)
        except AstrapeError:
            return None
        text = path.read_text(encoding="utf-8")
    return text[text.index("<svg") :]


def _add(parent: ElementTree.Element, tag: str, text: str = "", **attributes: str) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag, attributes)
    child.text = text
    return child


def _text(element: ElementTree.Element) -> str:
    return ElementTree.tostring(element, encoding="unicode", method="html")


def _aligned(left: bool) -> str:
    return f"text-align: {'left' if left else 'right'}; white-space: nowrap; padding: 0.1em 0.6em"


def _streams(streams: Mapping[str, Stream]) -> str:
    return ", ".join(
        f"{name} ({rate(stream.rate)} Hz, {_many(stream.channels, 'channel')})" for name, stream in streams.items()
    )


def _latency(graph: Graph) -> str:
    output = graph.outputs[graph.main]
    return (
        f"host latency {shown(graph.host_latency)} = {_many(graph.host_samples, 'sample')} at {rate(output.rate)} Hz "
        f"(look-ahead {shown(graph.lookahead)}, algorithmic {shown(graph.latency)}, framing {shown(graph.framing)})"
    )


def _value(value: Tensor) -> str:
    if value.numel() and bool((value == value.flatten()[0]).all()):
        return f"{float(value.flatten()[0]):g}"
    return f"{_many(value.shape[-1], 'value')}" + (" a stream" if value.shape[0] > 1 else "")


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
