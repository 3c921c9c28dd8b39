"""The drawing of a compiled graph: boxes in layers, joined by the streams that run between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from astrape.graph.report.layout import Layout, Vertex, arrange
from astrape.graph.report.plot import AMBER, BLUE, GREEN, GREY, INK, _short, rate_text

if TYPE_CHECKING:
    from astrape.graph.graph import Graph

__all__ = ["Drawing", "draw_graph", "graph_dot"]

MOST_DETAILED = 80
RED = "#b0463c"
MARGIN = 0.35
HEAD = 0.75


@dataclass(frozen=True)
class Box:
    """What is written into a node, and how it looks: ``block``, ``inserted``, ``input`` or ``output``."""

    lines: tuple[str, ...]
    look: str
    control: str = ""


@dataclass(frozen=True)
class Sizes:
    """Inches."""

    box_width: float
    box_height: float
    gap: float
    stub: float
    """Straight piece that an edge begins with, for its label."""
    slot: float
    columns: int
    text: float


DETAILED = Sizes(box_width=1.75, box_height=0.74, gap=1.1, stub=0.72, slot=1.0, columns=6, text=8.0)
COMPACT = Sizes(box_width=1.15, box_height=0.2, gap=0.3, stub=0.0, slot=0.27, columns=16, text=5.5)


def draw_graph(graph: Graph) -> Drawing:
    """Lay the picture of a graph out; ``paint`` draws it."""
    boxes, edges, feedback = _parts(graph)
    sizes = DETAILED if len(boxes) <= MOST_DETAILED else COMPACT
    late = [node.name for node in graph.nodes.values() if node.inserted]
    open_edges = [(source, target) for source, target, label in edges]
    layout = arrange(list(boxes), open_edges, late, sizes.columns)
    labels: dict[str, dict[str, None]] = {}
    for source, _, label in [*edges, *feedback]:
        labels.setdefault(source, {})[label] = None
    return Drawing(graph, boxes, layout, labels, [(a, b) for a, b, _ in feedback], sizes)


class Drawing:
    """A picture that is laid out. ``width`` and ``height`` are inches."""

    def __init__(
        self,
        graph: Graph,
        boxes: dict[str, Box],
        layout: Layout,
        labels: Mapping[str, Iterable[str]],
        feedback: Sequence[tuple[str, str]],
        sizes: Sizes,
    ) -> None:
        self.graph, self.boxes, self.layout, self.labels = graph, boxes, layout, labels
        self.feedback, self.sizes = list(feedback), sizes
        used = max((column for _, column, _ in layout.place.values()), default=0) + 1
        self.crossing = sorted({a for a, b in layout.segments if self._band(a) != self._band(b)})
        self.lane = 0.11 if sizes is DETAILED else 0.05
        gutters = [self._gutter(band) for band in range(len(layout.heights))]
        self.tops = [HEAD]
        for height, gutter in zip(layout.heights, gutters, strict=True):
            self.tops.append(self.tops[-1] + height * sizes.slot + gutter)
        lanes = self.lane * max(self._lanes_after(band) for band in range(len(gutters)))
        self.side = MARGIN + (0.2 + lanes if self.crossing else 0)
        self.notes = self._notes()
        wide = used * sizes.box_width + (used - 1) * sizes.gap + 2 * self.side + (sizes.stub if self.crossing else 0)
        self.width = max(wide, 6.5)
        self.height = self.tops[-1] + 0.2 + 0.19 * len(self.notes) + MARGIN

    def paint(self, figure: Any) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, self.width)
        axes.set_ylim(self.height, 0)
        axes.axis("off")
        self._paint_edges(axes)
        for a, b in self.feedback:
            self._paint_feedback(axes, a, b)
        for name, box in self.boxes.items():
            self._paint_box(axes, name, box)
        graph = self.graph
        axes.text(MARGIN, 0.3, graph.name, size=14, weight="bold", color=INK, va="center")
        host = float(graph.host_latency * 1000)
        late = f"host latency {host:.3f} ms  =  algorithmic {float(graph.latency * 1000):.3f} ms"
        late += f"  and framing {float(graph.framing * 1000):.3f} ms"
        late += f"  (output {graph.main})" if len(graph.outputs) > 1 else ""
        axes.text(MARGIN, 0.54, late, size=8.5, color=GREY, va="center")
        for index, (text, colour) in enumerate(self.notes):
            axes.text(MARGIN, self.tops[-1] + 0.2 + 0.19 * index, text, size=7.5, color=colour, va="center")

    def _paint_box(self, axes: Any, name: str, box: Box) -> None:
        from matplotlib.patches import FancyBboxPatch

        x, y = self._spot((name, self.layout.layer[name]))
        sizes = self.sizes
        fill, edge = {
            "block": ("#eef4fa", BLUE),
            "inserted": ("#fdf3dc", AMBER),
            "input": ("#e6f2ec", GREEN),
            "output": ("#e6f2ec", GREEN),
            "training": ("white", GREY),
        }[box.look]
        style = "dashed" if box.look in ("inserted", "training") else "solid"
        round_by = sizes.box_height / 2 if box.look in ("input", "output") else min(0.07, sizes.box_height / 3)
        axes.add_patch(
            FancyBboxPatch(
                (x, y - sizes.box_height / 2),
                sizes.box_width,
                sizes.box_height,
                boxstyle=f"round,pad=0,rounding_size={round_by}",
                facecolor=fill,
                edgecolor=edge,
                linewidth=1.0 if sizes is DETAILED else 0.6,
                linestyle=style,
                zorder=3,
            )
        )
        middle = x + sizes.box_width / 2
        if sizes is COMPACT:
            text = _short(box.lines[0], 24)
            axes.text(middle, y, text, size=sizes.text, color=INK, ha="center", va="center", zorder=4)
            return
        lines = [(box.lines[0], sizes.text, INK, "bold")]
        lines += [(line, sizes.text - 1.2, GREY, "normal") for line in box.lines[1:]]
        if box.control:
            lines.append((box.control, sizes.text - 1.2, GREEN, "normal"))
        for index, (text, size, colour, weight) in enumerate(lines):
            at = y + (index - (len(lines) - 1) / 2) * 0.155
            font = {"size": size, "color": colour, "weight": weight}
            axes.text(middle, at, _short(text, 25), fontdict=font, ha="center", va="center", zorder=4)

    def _paint_edges(self, axes: Any) -> None:
        from matplotlib.collections import PathCollection
        from matplotlib.path import Path

        paths, arrows = [], []
        for a, b in self.layout.segments:
            start, end = self._exit(a), self._spot(b)
            if self._is_node(b):
                arrows.append(end)
            if self._band(a) != self._band(b):
                paths.append(self._over_gutter(a, start, end))
            else:
                paths.append(_curve(start, end, self.sizes.stub if self._is_node(a) else 0.0))
            if not self._is_node(b):
                paths.append(Path([end, (end[0] + self.sizes.box_width, end[1])]))
        for a, b in self.layout.long:
            start, end = self._exit(a), self._spot(b)
            arrows.append(end)
            paths.append(_curve(start, end, self.sizes.stub))
        width = 1.1 if self.sizes is DETAILED else 0.6
        axes.add_collection(PathCollection(paths, facecolors="none", edgecolors=GREY, linewidths=width, zorder=1))
        for spot in arrows:
            self._arrow(axes, spot, GREY)
        if self.sizes is DETAILED:
            labelled = {a for a, _ in self.layout.segments if self._is_node(a)}
            for name, _ in sorted(labelled):
                x, y = self._exit((name, self.layout.layer[name]))
                self._label(axes, (x, y), name)

    def _over_gutter(self, a: Vertex, start: tuple[float, float], end: tuple[float, float]) -> Any:
        """From the last column of a band to the first of the next: down at the right, back between the bands."""
        band = self._band(a)
        lane = [v for v in self.crossing if self._band(v) == band].index(a)
        right = start[0] + self.sizes.stub + 0.1 + self.lane * lane
        left = end[0] - 0.2 - self.lane * lane
        level = self.tops[band] + self.layout.heights[band] * self.sizes.slot + 0.12 + self.lane * lane
        level += 0.2 * sum(self._feedback_band(pair) == band for pair in self.feedback)
        return _rounded([start, (right, start[1]), (right, level), (left, level), (left, end[1]), end])

    def _paint_feedback(self, axes: Any, a: str, b: str) -> None:
        from matplotlib.patches import PathPatch

        start, end = self._exit((a, self.layout.layer[a])), self._spot((b, self.layout.layer[b]))
        band = self._feedback_band((a, b))
        inside = [pair for pair in self.feedback if self._feedback_band(pair) == band]
        lane = inside.index((a, b))
        low = self.tops[band] + self.layout.heights[band] * self.sizes.slot + 0.04 + 0.2 * lane
        out, back = 0.3 + 0.06 * lane, 0.22 + 0.06 * lane
        right, left = start[0] + out, end[0] - back
        points = [start, (right, start[1]), (right, low), (left, low), (left, end[1]), end]
        style: dict[str, Any] = {"facecolor": "none", "edgecolor": RED, "linewidth": 1.2, "linestyle": (0, (4, 2.5))}
        axes.add_patch(PathPatch(_rounded(points, 0.18), zorder=2, **style))
        self._arrow(axes, end, RED)
        if self.sizes is DETAILED and not any(v == (a, self.layout.layer[a]) for v, _ in self.layout.segments):
            self._label(axes, start, a)

    def _label(self, axes: Any, start: tuple[float, float], name: str) -> None:
        """What leaves a node: its outputs differ in channels, so the first stands above the line and others below."""
        for index, text in enumerate(self.labels[name]):
            y = start[1] - 0.075 if not index else start[1] - 0.02 + 0.11 * index
            axes.text(start[0] + 0.06, y, text, size=6.3, color=GREY, zorder=5, va="center")

    def _arrow(self, axes: Any, spot: tuple[float, float], colour: str) -> None:
        from matplotlib.patches import Polygon

        size = 0.085 if self.sizes is DETAILED else 0.04
        x, y = spot
        corners = [(x, y), (x - size, y - size * 0.5), (x - size, y + size * 0.5)]
        axes.add_patch(Polygon(corners, closed=True, facecolor=colour, edgecolor="none", zorder=4))

    def _notes(self) -> list[tuple[str, str]]:
        notes: list[tuple[str, str]] = []
        for control in self.graph.control_specs.values():
            if len(notes) == 12:
                notes.append((f"… and {len(self.graph.control_specs) - 12} more controls", GREEN))
                break
            shown = f"control  {control.name}:  {control.channels} channel{'s' if control.channels > 1 else ''}"
            if control.default is not None:
                shown += f",  default {', '.join(f'{value:g}' for value in control.default[:4])}"
            if control.minimum is not None or control.maximum is not None:
                low = "-∞" if control.minimum is None else f"{control.minimum:g}"
                high = "∞" if control.maximum is None else f"{control.maximum:g}"
                shown += f",  {low} to {high}"
            notes.append((shown, GREEN))
        if any(box.look == "inserted" for box in self.boxes.values()):
            notes.append(("dashed box: a delay that the compiler inserted so that paths meet in time", AMBER))
        if self.feedback:
            notes.append(("dashed line: feedback, heard one turn of the loop later", RED))
        return notes

    def _gutter(self, band: int) -> float:
        loops = sum(self._feedback_band(pair) == band for pair in self.feedback)
        return (0.3 if self.sizes is DETAILED else 0.12) + self.lane * self._lanes_after(band) + 0.2 * loops

    def _lanes_after(self, band: int) -> int:
        return sum(self._band(vertex) == band for vertex in self.crossing)

    def _feedback_band(self, pair: tuple[str, str]) -> int:
        return max(self.layout.of(pair[0])[0], self.layout.of(pair[1])[0])

    def _band(self, vertex: Vertex) -> int:
        return vertex[1] // self.layout.columns

    def _is_node(self, vertex: Vertex) -> bool:
        return self.layout.layer[vertex[0]] == vertex[1]

    def _spot(self, vertex: Vertex) -> tuple[float, float]:
        """The middle of a vertex's left side."""
        band, column, height = self.layout.place[vertex]
        sizes = self.sizes
        return self.side + column * (sizes.box_width + sizes.gap), self.tops[band] + height * sizes.slot

    def _exit(self, vertex: Vertex) -> tuple[float, float]:
        x, y = self._spot(vertex)
        return x + self.sizes.box_width, y


def graph_dot(graph: Graph) -> str:
    """The same picture as Graphviz text."""
    boxes, edges, feedback = _parts(graph)
    names = {name: f"n{index}" for index, name in enumerate(boxes)}
    looks = {
        "block": "shape=box",
        "inserted": f'shape=box, style=dashed, color="{AMBER}"',
        "input": f'shape=oval, color="{GREEN}"',
        "output": f'shape=oval, color="{GREEN}"',
        "training": f'shape=box, style=dashed, color="{GREY}"',
    }
    lines = [f'digraph "{graph.name}" {{', "  rankdir=LR;"]
    for name, box in boxes.items():
        label = "\\n".join([*box.lines, *([box.control] if box.control else [])])
        lines.append(f'  {names[name]} [label="{label}", {looks[box.look]}];')
    lines += [f'  {names[a]} -> {names[b]} [label="{label}"];' for a, b, label in edges]
    lines += [
        f'  {names[a]} -> {names[b]} [label="{label}", style=dashed, color="{RED}", constraint=false];'
        for a, b, label in feedback
    ]
    return "\n".join([*lines, "}", ""])


Edges = list[tuple[str, str, str]]


def _parts(graph: Graph) -> tuple[dict[str, Box], Edges, Edges]:
    """Boxes, edges and feedback edges. Inputs and outputs go by names that no node can have."""
    boxes: dict[str, Box] = {}
    edges: Edges = []
    feedback: Edges = []
    for name, stream in graph.inputs.items():
        boxes[name] = Box((name, f"input, {rate_text(stream.rate)}"), "input")
    streams = {(name, "out"): stream for name, stream in graph.inputs.items()}
    for node in graph.nodes.values():
        block = node.block
        kind = f"{node.use}, inserted" if node.inserted else node.use
        look = "inserted" if node.inserted else "training" if node.training else "block"
        numbers = f"{rate_text(block.rate_out)}, {_latency(block.latency)}"
        heard = list(dict.fromkeys(node.controls.values()))
        boxes[node.name] = Box((node.name, kind, numbers), look, "⟵ " + ", ".join(heard) if heard else "")
        streams.update({(signal.node, signal.port): stream for signal, stream in node.output_streams()})
    for node in graph.nodes.values():
        for source in dict.fromkeys(node.sources.values()):
            stream = streams[source.node, source.port]
            edge = (source.node, node.name, f"{rate_text(stream.rate)} × {stream.channels}")
            (feedback if node.cut else edges).append(edge)
    for name, signal in graph.wiring.items():
        stream = graph.outputs[name]
        late = graph.host_latencies[name] / stream.rate
        boxes[f"{name} →"] = Box((name, "output", f"{rate_text(stream.rate)}, {_latency(late)} at host"), "output")
        edges.append((signal.node, f"{name} →", f"{rate_text(stream.rate)} × {stream.channels}"))
    return boxes, edges, feedback


def _latency(seconds: Fraction) -> str:
    return f"{float(seconds * 1000):.3g} ms" if seconds else "0 ms"


def _curve(start: tuple[float, float], end: tuple[float, float], stub: float) -> Any:
    """Straight for ``stub``, then a curve that leaves and arrives level."""
    from matplotlib.path import Path

    if abs(start[1] - end[1]) < 1e-6:
        return Path([start, end])
    turn = (start[0] + stub, start[1])
    middle = (turn[0] + end[0]) / 2
    codes = [Path.MOVETO, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    return Path([start, turn, (middle, start[1]), (middle, end[1]), end], codes)


def _rounded(points: Sequence[tuple[float, float]], radius: float = 0.1) -> Any:
    """Straight lines through the points, their corners rounded."""
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        vertices += [_towards(corner, before, radius), corner, _towards(corner, after, radius)]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*vertices, points[-1]], [*codes, Path.LINETO])


def _towards(start: tuple[float, float], end: tuple[float, float], by: float) -> tuple[float, float]:
    far = abs(end[0] - start[0]) + abs(end[1] - start[1])
    share = min(by, far / 2) / far if far else 0.0
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share
