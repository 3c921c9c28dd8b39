"""A graph as a line at the prompt, and as a picture in a notebook."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment

from astrape.blocks.base import Stream
from astrape.errors import AstrapeError
from astrape.graph.network import Network
from astrape.graph.report.drawing import save_graph_picture
from astrape.graph.text import many, ms, rate

__all__ = ["HTML", "drawn_svg", "graph_html", "graph_line", "graph_svg", "latency_line"]

MOST_DRAWN = 200
"""Nodes of the largest graph that is drawn unasked: it takes a second or two."""

HTML = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
"""Makes HTML: names from recipes become text in it and never markup."""

GRAPH = HTML.from_string("""<div><p style="font-family: monospace">{{ line }}</p>
{% if picture %}<img src="data:image/svg+xml;base64,{{ picture }}" alt="{{ name }}, compiled"
style="max-width: 100%; background: white">{% endif %}</div>""")


def graph_line(graph: Network[Any]) -> str:
    """Rates, latency and size of a graph in one line."""
    parts = [f"{_streams(graph.inputs)} -> {_streams(graph.outputs)}"]
    if graph.training_only:
        parts.append("training-only nodes among it (deploy() is what streams)")
    else:
        parts.append(latency_line(graph))
    if graph.controls:
        parts.append(f"controls {', '.join(graph.controls)}")
    count = sum(parameter.numel() for parameter in graph.parameters())
    parts.append(f"{many(len(graph.nodes), 'block')}, {count:,} parameters, {graph.dtype} on {graph.device}")
    return f"<Graph '{graph.name}': {'; '.join(parts)}>"


def graph_html(graph: Network[Any]) -> str:
    """A graph's line, and its picture where it can be drawn and the graph is not too large."""
    picture = graph_svg(graph)
    encoded = picture and base64.b64encode(picture.encode()).decode()
    return GRAPH.render(line=graph_line(graph).strip("<>"), picture=encoded, name=graph.name)


def graph_svg(graph: Network[Any]) -> str | None:
    """The picture of a graph; ``None`` without Graphviz and matplotlib, and for a giant."""
    return None if len(graph.nodes) > MOST_DRAWN else drawn_svg(lambda path: save_graph_picture(graph, path))


def latency_line(graph: Network[Any]) -> str:
    """The host latency and what it is made of."""
    output = graph.outputs[graph.main]
    return (
        f"host latency {ms(graph.host_latency)} = {many(graph.host_samples, 'sample')} at {rate(output.rate)} Hz "
        f"(look-ahead {ms(graph.lookahead)}, algorithmic {ms(graph.latency)}, framing {ms(graph.framing)})"
    )


def drawn_svg(save: Callable[[Path], None]) -> str | None:
    """The picture that ``save`` draws into a file, as SVG text; ``None`` without the packages to draw with."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.svg"
        try:
            save(path)
        except AstrapeError:
            return None
        text = path.read_text(encoding="utf-8")
    return text[text.index("<svg") :]


def _streams(streams: Mapping[str, Stream]) -> str:
    return ", ".join(
        f"{name} ({rate(stream.rate)} Hz, {many(stream.channels, 'channel')})" for name, stream in streams.items()
    )
