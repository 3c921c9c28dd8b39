"""The latency report: what every block costs in time, exactly, and where the graph's latency comes from."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Console

from astrape.graph.compile.plan import Wire
from astrape.graph.network import Network
from astrape.graph.report.measured import GraphMeasured, NodeMeasured, measure_graph
from astrape.graph.report.notebook import HTML, drawn_svg, latency_line
from astrape.graph.report.plot import save_latency_plot
from astrape.graph.report.rows import BlockRow, block_row, exact_text, milliseconds, plain_number
from astrape.graph.report.table import ReportTable
from astrape.graph.text import many, ms, rate, size

__all__ = ["BlockRow", "Report"]

EXACT = "all measured numbers agree with the declared ones: exactly, unless a tolerance is shown"
TOLERANCE = (
    "tolerance of a latency that is the centre of a window: one frame of the block's faster rate, since the window's "
    "first or last weight may be zero, which moves the measured centre; where the rate changes, half the difference of "
    "the two frames besides, since a frame may stand for an interval or for an instant"
)


TABLE = HTML.from_string("""
{% macro style(column) %}
text-align: {{ "left" if column.left else "right" }}; white-space: nowrap; padding: 0.1em 0.6em
{%- endmacro %}
<div style="overflow-x: auto"><table>
<caption style="text-align: left; font-style: italic">{{ name }}: latency</caption>
<thead><tr>
{% for column in columns %}<th scope="col" style="{{ style(column) }}">{{ column.head }}</th>
{% endfor %}</tr></thead>
<tbody>
{% for cells in rows %}<tr>
{% for cell in cells %}<td style="{{ style(columns[loop.index0]) }}">{{ cell }}</td>
{% endfor %}</tr>
{% endfor %}</tbody></table>
{% for line in lines %}<p style="margin: 0">{{ line }}</p>
{% endfor %}</div>""")
"""The report in a notebook: all columns, and the summary below."""


class Report:
    """The latency report of a graph. ``str()`` is the table.

    Args:
        graph: what to report on.
        measure: measure every declared number too, on copies of the blocks. It takes seconds.

    Attributes:
        blocks: one row a block, in order of execution.
        measured: the graph's own measured numbers, or ``None``.
        disagreements: what was measured otherwise than declared, a line each; empty when all agree or nothing was
            measured.
    """

    def __init__(self, graph: Network[Any], measure: bool = False) -> None:
        self.graph = graph
        self.measured: GraphMeasured | None = None
        nodes: dict[str, NodeMeasured] = {}
        if measure:
            self.measured = measure_graph(graph)
            nodes = self.measured.nodes
        self.blocks = [block_row(graph, node, nodes.get(node.name)) for node in graph.nodes.values()]

    @property
    def disagreements(self) -> list[str]:
        return [] if self.measured is None else self.measured.disagreements

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values: milliseconds as floats, and the exact seconds as strings under ``exact``."""
        graph = self.graph
        found = self.measured
        content: dict[str, Any] = {
            "recipe": graph.name,
            "lookahead_ms": milliseconds(graph.lookahead),
            "algorithmic_ms": milliseconds(graph.latency),
            "framing_ms": milliseconds(graph.framing),
            "host_ms": milliseconds(graph.host_latency),
            "host_samples": graph.host_samples,
            "receptive_field_ms": milliseconds(graph.receptive_field),
            "quantum": graph.consumes,
            "parameters": sum(p.numel() for p in graph.parameters()),
            "state_bytes": sum(row.state_bytes for row in self.blocks),
            "inputs": {
                name: {"rate": plain_number(s.rate), "channels": s.channels} for name, s in graph.inputs.items()
            },
            "outputs": {
                name: {
                    "rate": plain_number(stream.rate),
                    "channels": stream.channels,
                    "algorithmic_ms": milliseconds(graph.latencies[name]),
                    "framing_ms": milliseconds(graph.framings[name].seconds),
                    "host_samples": graph.host_latencies[name],
                }
                for name, stream in graph.outputs.items()
            },
            "exact": {
                "lookahead": exact_text(graph.lookahead),
                "algorithmic": exact_text(graph.latency),
                "framing": exact_text(graph.framing),
                "host": exact_text(graph.host_latency),
                "receptive_field": exact_text(graph.receptive_field),
            },
            "blocks": [row.to_dict() for row in self.blocks],
        }
        if found is not None:
            content |= {
                "measured_lookahead_ms": milliseconds(found.lookahead),
                "measured_algorithmic_ms": milliseconds(found.latency),
                "measured_algorithmic_tolerance_ms": milliseconds(found.tolerance),
                "measured_framing_ms": milliseconds(found.framing),
                "measured_receptive_field_ms": milliseconds(found.receptive_field),
                "disagreements": found.disagreements,
            }
            content["exact"] |= {
                "measured_algorithmic": exact_text(found.latency),
                "measured_framing": exact_text(found.framing),
            }
        return content

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def save_plot(self, path: str | Path) -> None:
        """Draw where the latency comes from; the file's ending picks the format (png, svg, pdf).

        Raises:
            AstrapeError: when matplotlib, the extra ``plot``, is not installed.
        """
        save_latency_plot(self.graph, self.critical_path, Path(path))

    def critical_path(self, output: str | None = None) -> list[BlockRow]:
        """The rows that an output's algorithmic latency is made of, from its input on; of the first output by default.

        Where paths of equal age meet, the way goes through the blocks and not through the delay that the compiler put
        on the other path for their sake.
        """
        rows = {row.name: row for row in self.blocks}
        wire = self.graph.wiring[output or self.graph.main]
        path: list[BlockRow] = []
        while wire.node in rows and rows[wire.node] not in path:
            path.append(rows[wire.node])
            node = self.graph.nodes[wire.node]
            if node.cut:
                break
            wire = max(node.sources.values(), key=lambda read: (self._age(read), not self._inserted(read)))
        return path[::-1]

    def _inserted(self, wire: Wire) -> bool:
        node = self.graph.nodes.get(wire.node)
        return node is not None and node.inserted

    def _age(self, wire: Wire) -> Fraction:
        return self.graph.signal_latency.get(wire, Fraction(0))

    def table(self) -> ReportTable:
        """The report for rich to print, as wide as there is room: name, latency and age of a block are always whole."""
        return ReportTable(self.graph.name, self.blocks, self.summary())

    __rich__ = table

    def summary(self) -> str:
        """The totals in words, and what disagrees."""
        graph = self.graph
        lines = [
            f"look-ahead {ms(graph.lookahead)}, algorithmic {ms(graph.latency)}, "
            f"framing {ms(graph.framing)}, host {ms(graph.host_latency)} "
            f"= {graph.host_samples} samples at {rate(graph.outputs[graph.main].rate)} Hz",
            f"receptive field {ms(graph.receptive_field)}, "
            f"{sum(p.numel() for p in graph.parameters()):,} parameters, "
            f"state {size(sum(row.state_bytes for row in self.blocks))}",
        ]
        if self.measured is not None:
            found = self.measured
            lines.append(
                f"measured: look-ahead {ms(found.lookahead)}, algorithmic {ms(found.latency, '-')}"
                f"{f' (tolerance {ms(found.tolerance)})' if found.tolerance else ''}, "
                f"framing {ms(found.framing, '-')}"
            )
            lines += [f"! {line}" for line in found.disagreements]
            if not found.disagreements:
                lines.append(EXACT)
            if any(node.tolerance for node in found.nodes.values()):
                lines.append(TOLERANCE)
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        parts = [latency_line(self.graph), many(len(self.blocks), "block")]
        if self.measured is not None:
            wrong = len(self.disagreements)
            parts.append(
                f"{wrong} of the declared numbers measured differently" if wrong else "measured, and all agree"
            )
        return f"<Report of '{self.graph.name}': {'; '.join(parts)}>"

    def _repr_html_(self) -> str:
        table = self.table()
        rows = zip(*(table.cells[column.head] for column in table.columns), strict=True)
        return TABLE.render(name=table.name, columns=table.columns, rows=list(rows), lines=table.summary.splitlines())

    def _repr_svg_(self) -> str | None:
        return drawn_svg(self.save_plot)

    def text(self, width: int | None = None) -> str:
        """The table as plain text, with all columns, or with those that fit into that many characters."""
        table = self.table()
        buffer = io.StringIO()
        Console(file=buffer, width=width or table.width, color_system=None, force_terminal=False).print(table)
        return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())
