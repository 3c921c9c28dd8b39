"""Pictures of compiled graphs: Graphviz text, drawn by Graphviz, or plainly by networkx where it is absent."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import networkx as nx
from graphviz import Digraph, escape

from astrape.graph.network import Network
from astrape.graph.report.figure import AMBER, BLUE, GREEN, GREY, INK, RED, check_ending, figure_file
from astrape.graph.text import many, short, short_rate

__all__ = ["graph_dot", "save_graph_picture"]

MOST_DETAILED = 80
"""Boxes up to which each holds type, rate and latency beside the name, and edges have labels."""

MOST_BY_DOT = 1000
"""Boxes up to which Graphviz lays a graph out: 1000 take it some seconds, and the time grows with the square."""

MOST_ACROSS = 10
"""Layers up to which a graph is drawn from left to right; a longer one goes down the page."""

MOST_CONTROLS = 12


@dataclass(frozen=True)
class Box:
    """The text of a node in a picture, and its look: ``block``, ``inserted``, ``input``, ``output``, ``training``."""

    lines: tuple[str, ...]
    look: str
    control: str = ""


Edges = list[tuple[str, str, str]]
"""From, to, label."""

FILL = {"block": "#eef4fa", "inserted": "#fdf3dc", "input": "#e6f2ec", "output": "#e6f2ec", "training": "white"}
LINE = {"block": BLUE, "inserted": AMBER, "input": GREEN, "output": GREEN, "training": GREY}
DASHED = ("inserted", "training")


def save_graph_picture(graph: Network[Any], path: str | Path) -> None:
    """Draw a compiled graph: rates on the edges, inserted delays and feedback marked.

    Args:
        graph: what to draw. With more than 80 nodes the boxes hold names alone.
        path: its ending picks the format: svg, png or pdf; ``.dot`` writes Graphviz text, which needs no program.

    Raises:
        AstrapeError: for another ending, and where there is neither Graphviz's program ``dot`` nor matplotlib.
    """
    if Path(path).suffix == ".dot":
        Path(path).write_text(graph_dot(graph), encoding="utf-8")
        return
    kind = check_ending(path)
    if shutil.which("dot") and len(graph.nodes) <= MOST_BY_DOT:
        Path(path).write_bytes(_digraph(graph, kind).pipe(format=kind))
    else:
        _draw_plainly(graph, path)


def graph_dot(graph: Network[Any]) -> str:
    """A graph as Graphviz text."""
    return str(_digraph(graph).source)


def _digraph(graph: Network[Any], kind: str = "dot") -> Digraph:
    boxes, edges, feedback = _parts(graph)
    detailed = len(boxes) <= MOST_DETAILED
    down = len(_layers(boxes, edges)) > MOST_ACROSS
    title = "\n".join([graph.name, _latency_line(graph), *_notes(graph, boxes, feedback)])
    made = Digraph(
        graph.name,
        graph_attr={
            "rankdir": "TB" if down else "LR",
            "dpi": "150" if kind == "png" else "72",
            "label": escape(title),
            "labelloc": "t",
            "fontname": "Helvetica",
            "fontsize": "11",
            "fontcolor": INK,
        },
        node_attr={"fontname": "Helvetica", "fontsize": "10", "fontcolor": INK, "margin": "0.12,0.06"},
        edge_attr={"fontname": "Helvetica", "fontsize": "8", "fontcolor": GREY, "color": GREY, "arrowsize": "0.6"},
    )
    names = {name: f"n{index}" for index, name in enumerate(boxes)}
    for name, box in boxes.items():
        style = "filled,rounded" + (",dashed" if box.look in DASHED else "")
        text = escape("\n".join(_lines(box, detailed)))
        made.node(names[name], text, shape="box", style=style, fillcolor=FILL[box.look], color=LINE[box.look])
    for a, b, label in edges:
        made.edge(names[a], names[b], escape(label) if detailed else None)
    for a, b, label in feedback:
        back = {"style": "dashed", "color": RED, "constraint": "false"}
        made.edge(names[a], names[b], escape(label) if detailed else None, **back)
    return made


def _draw_plainly(graph: Network[Any], path: str | Path) -> None:
    """Layers by longest path, as networkx spreads them, in a figure of matplotlib's."""
    boxes, edges, feedback = _parts(graph)
    detailed = len(boxes) <= MOST_DETAILED
    layers = _layers(boxes, edges)
    down = len(layers) > MOST_ACROSS
    drawn: nx.DiGraph[str] = nx.DiGraph((a, b) for a, b, _ in edges)
    drawn.add_nodes_from((name, {"layer": number}) for number, names in enumerate(layers) for name in names)
    place = nx.multipartite_layout(drawn, subset_key="layer", align="horizontal" if down else "vertical")
    if down:
        place = {name: at * (1, -1) for name, at in place.items()}
    notes = _notes(graph, boxes, feedback)
    wide, high = (2.1, 0.95) if detailed else (1.3, 0.35)
    across, along = max(map(len, layers)), len(layers)
    columns, rows = (across, along) if down else (1.4 * along, across)
    size = max(6.5, wide * columns), 1.2 + high * rows + 0.19 * len(notes)
    with figure_file(*size, path) as figure:
        axes = figure.add_subplot()
        axes.axis("off")
        axes.margins(0.5 / max(1.0, columns - 1) + 0.05, 0.5 / max(1, rows - 1) + 0.05)
        labels = {(a, b): label for a, b, label in edges}
        nx.draw_networkx_edges(drawn, place, ax=axes, edge_color=GREY, node_size=900 if detailed else 200, arrowsize=8)
        back = nx.DiGraph((a, b) for a, b, _ in feedback)
        nx.draw_networkx_edges(
            back, place, ax=axes, edge_color=RED, style="dashed", connectionstyle="arc3,rad=0.4", node_size=900
        )
        if detailed:
            nx.draw_networkx_edge_labels(
                drawn, place, labels, ax=axes, font_size=6, font_color=GREY, rotate=False, label_pos=0.4
            )
        for name, box in boxes.items():
            axes.text(
                *place[name],
                "\n".join(short(line, 25) for line in _lines(box, detailed)),
                size=7 if detailed else 5.5,
                color=INK,
                ha="center",
                va="center",
                bbox={
                    "boxstyle": "round,pad=0.4",
                    "facecolor": FILL[box.look],
                    "edgecolor": LINE[box.look],
                    "linestyle": "dashed" if box.look in DASHED else "solid",
                },
            )
        axes.set_title(f"{graph.name}\n{_latency_line(graph)}", loc="left", size=10, color=INK)
        figure.text(0.02, 0.01, "\n".join(notes), size=7.5, color=GREY, va="bottom")


def _layers(boxes: dict[str, Box], edges: Edges) -> list[list[str]]:
    """The boxes by longest path from an input; feedback does not count."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(boxes)
    graph.add_edges_from((a, b) for a, b, _ in edges)
    return [list(names) for names in nx.topological_generations(graph)]


def _lines(box: Box, detailed: bool) -> list[str]:
    return [*box.lines, *([box.control] if box.control else [])] if detailed else [short(box.lines[0], 24)]


def _latency_line(graph: Network[Any]) -> str:
    host, aged, waits = (float(seconds * 1000) for seconds in (graph.host_latency, graph.latency, graph.framing))
    line = f"host latency {host:.3f} ms = algorithmic {aged:.3f} ms and framing {waits:.3f} ms"
    return line + (f" (output {graph.main})" if len(graph.outputs) > 1 else "")


def _notes(graph: Network[Any], boxes: dict[str, Box], feedback: Edges) -> list[str]:
    """Controls with their ranges, and what dashes mean."""
    notes = []
    for control in list(graph.control_specs.values())[:MOST_CONTROLS]:
        shown = f"control {control.name}: {many(control.channels, 'channel')}"
        if control.default is not None:
            shown += f", default {', '.join(f'{value:g}' for value in control.default[:4])}"
        if control.minimum is not None or control.maximum is not None:
            low = "-∞" if control.minimum is None else f"{control.minimum:g}"
            high = "∞" if control.maximum is None else f"{control.maximum:g}"
            shown += f", {low} to {high}"
        if control.unit:
            shown += f" {control.unit}"
        notes.append(shown)
    if (left_out := len(graph.control_specs) - MOST_CONTROLS) > 0:
        notes.append(f"… and {many(left_out, 'more control')}")
    if any(box.look == "inserted" for box in boxes.values()):
        notes.append("dashed box: a delay that the compiler inserted so that paths meet in time")
    if feedback:
        notes.append("dashed line: feedback, heard one iteration of the loop later")
    return notes


def _parts(graph: Network[Any]) -> tuple[dict[str, Box], Edges, Edges]:
    """Boxes, edges and feedback edges. Inputs and outputs go by names that no node can have."""
    boxes: dict[str, Box] = {}
    edges: Edges = []
    feedback: Edges = []
    for name, stream in graph.inputs.items():
        boxes[name] = Box((name, f"input, {short_rate(stream.rate)}"), "input")
    streams = {(name, "out"): stream for name, stream in graph.inputs.items()}
    for node in graph.nodes.values():
        block = node.block
        kind = f"{node.use}, inserted" if node.inserted else node.use
        look = "inserted" if node.inserted else "training" if node.training else "block"
        numbers = f"{short_rate(block.rate_out)}, {_latency(block.latency)}"
        heard = list(dict.fromkeys(node.controls.values()))
        boxes[node.name] = Box((node.name, kind, numbers), look, "⟵ " + ", ".join(heard) if heard else "")
        streams.update({(wire.node, wire.port): stream for wire, stream in node.output_streams()})
    for node in graph.nodes.values():
        for source in dict.fromkeys(node.sources.values()):
            stream = streams[source.node, source.port]
            edge = (source.node, node.name, f"{short_rate(stream.rate)} × {stream.channels}")
            (feedback if node.cut else edges).append(edge)
    for name, wire in graph.wiring.items():
        stream = graph.outputs[name]
        late = graph.host_latencies[name] / stream.rate
        boxes[f"{name} →"] = Box((name, "output", f"{short_rate(stream.rate)}, {_latency(late)} at host"), "output")
        edges.append((wire.node, f"{name} →", f"{short_rate(stream.rate)} × {stream.channels}"))
    return boxes, edges, feedback


def _latency(seconds: Fraction) -> str:
    return f"{float(seconds * 1000):.3g} ms" if seconds else "0 ms"
