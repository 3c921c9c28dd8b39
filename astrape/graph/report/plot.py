"""The latency plot: a waterfall of the blocks on the critical path of every output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from astrape.graph.network import Network
from astrape.graph.report.figure import AMBER, BLUE, FAINT, GREEN, GREY, INK, figure_file
from astrape.graph.report.rows import BlockRow
from astrape.graph.text import short, short_rate

__all__ = ["save_latency_plot", "waterfall"]

MOST_BARS = 24
MOST_PANELS = 4


CriticalPath = Callable[[str], Sequence[BlockRow]]
"""The rows that an output's latency is made of, by its name."""


def save_latency_plot(graph: Network[Any], critical_path: CriticalPath, path: str | Path) -> None:
    """Draw a waterfall for each output (the first four): the blocks on its critical path, framing, and their sum.

    Args:
        graph: what to draw.
        critical_path: of the graph's report.
        path: its ending picks the format: png, svg or pdf.

    Raises:
        AstrapeError: when matplotlib is not installed, or for another ending.
    """
    outputs = list(graph.outputs)[:MOST_PANELS]
    panels = [waterfall(graph, output, critical_path(output)) for output in outputs]
    rows = [len(bars) + 1 for bars in panels]
    with figure_file(9.0, 1.0 + sum(0.34 * count + 0.95 for count in rows), path) as figure:
        grid = figure.add_gridspec(len(panels), 1, height_ratios=[count + 1.2 for count in rows])
        for index, (output, bars) in enumerate(zip(outputs, panels, strict=True)):
            _draw_waterfall(figure.add_subplot(grid[index]), graph, output, bars)
        left_out = len(graph.outputs) - len(outputs)
        more = f" (first {len(outputs)} of {len(graph.outputs)} outputs)" if left_out else ""
        figure.suptitle(f"{graph.name}: where the latency comes from{more}", x=0.02, ha="left", size=13, color=INK)
        figure.get_layout_engine().set(rect=(0.01, 0.0, 0.98, 1.0))


Bar = tuple[str, str, Fraction, str]
"""Name, type, seconds, colour."""


def waterfall(graph: Network[Any], output: str, path: Sequence[BlockRow]) -> list[Bar]:
    """Everything that adds to an output's host latency, in order: blocks of its critical path, framing, rounding."""
    rows = [row for row in path if row.latency]
    bars = [(row.name, row.type, row.latency, AMBER if row.inserted else BLUE) for row in _largest(rows)]
    rest = graph.latencies[output] - sum((bar[2] for bar in bars), Fraction(0))
    if rest:
        left_out = len(rows) - len(bars)
        bars.append((f"{left_out} smaller blocks" if left_out else "other", "", rest, BLUE))
    framing = graph.framings[output].seconds
    bars.append(("framing", "", framing, AMBER))
    host = graph.host_latencies[output] / graph.outputs[output].rate
    rounding = host - graph.latencies[output] - framing
    if rounding:
        bars.append(("rounding up", "", rounding, GREY))
    return bars


def _largest(rows: list[BlockRow]) -> list[BlockRow]:
    """The blocks that a bar is drawn for, in order of the path."""
    if len(rows) <= MOST_BARS:
        return rows
    kept = {row.name for row in sorted(rows, key=lambda row: row.latency, reverse=True)[: MOST_BARS - 1]}
    return [row for row in rows if row.name in kept]


def _draw_waterfall(axes: Any, graph: Network[Any], output: str, bars: list[tuple[str, str, Fraction, str]]) -> None:
    rate = graph.outputs[output].rate
    host = graph.host_latencies[output] / rate
    unit = "sample" if rate >= 4000 else "frame"
    begin = Fraction(0)
    labels = []
    for row, (name, kind, seconds, colour) in enumerate(bars):
        axes.barh(row, float(seconds * 1000), left=float(begin * 1000), height=0.62, color=colour, zorder=2)
        end = begin + seconds
        axes.plot([float(end * 1000)] * 2, [row + 0.31, row + 0.69], color=GREY, linewidth=0.8, zorder=1)
        _value(axes, row, end, host, f"{_ms(seconds)}   {_count(seconds * rate, unit)}", INK, begin)
        labels.append(short(name, 30) + (f"  ({kind})" if kind and kind != name else ""))
        begin = end
    row = len(bars)
    axes.barh(row, float(host * 1000), height=0.62, color=GREEN, zorder=2)
    _value(axes, row, host, host, f"{_ms(host)}   {_count(host * rate, unit)}", INK, Fraction(0), "bold")
    axes.set_yticks(range(row + 1), [*labels, "host latency"])
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_ylim(row + 0.6, -0.6)
    axes.set_xlim(0, float(host * 1000) * 1.02 or 1.0)
    axes.set_xlabel("ms", color=GREY, size=9)
    axes.set_title(f"output {output}, {short_rate(rate)}", loc="left", size=10, color=GREY)
    axes.tick_params(length=0, labelsize=9, colors=INK)
    axes.grid(axis="x", color=FAINT, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)


def _value(
    axes: Any, row: int, end: Fraction, host: Fraction, text: str, colour: str, begin: Fraction, weight: str = "normal"
) -> None:
    """A bar's value: beside it on the right where there is room, else on its left, else inside of it."""
    share_end = float(end / host) if host else 0.0
    share_begin = float(begin / host) if host else 0.0
    style = {"va": "center", "size": 8.5, "zorder": 3, "fontweight": weight, "annotation_clip": False}
    if share_end <= 0.66:
        place, offset, align = end, 5, "left"
    elif share_begin >= 0.34:
        place, offset, align = begin, -5, "right"
    else:
        place, offset, align, colour = end, -6, "right", "white"
    axes.annotate(
        text, (float(place * 1000), row), (offset, 0), textcoords="offset points", ha=align, color=colour, **style
    )


def _ms(seconds: Fraction) -> str:
    return f"{float(seconds * 1000):.3f} ms" if seconds else "0 ms"


def _count(frames: Fraction, unit: str) -> str:
    shown = str(frames) if frames.denominator == 1 else f"{float(frames):.2f}"
    return f"{shown} {unit}{'' if frames == 1 else 's'}"
