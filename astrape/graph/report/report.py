"""The latency report: what every block costs in time, exactly, and where the graph's latency comes from."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from astrape.blocks.base import StreamBlock
from astrape.blocks.state import state_bytes
from astrape.graph.compile.plan import PlannedNode, Signal
from astrape.graph.report.table import ReportTable, shown, size
from astrape.graph.report.table import rate as rate_of

if TYPE_CHECKING:
    from astrape.graph.graph import Graph
    from astrape.graph.report.measured import GraphMeasured, NodeMeasured

__all__ = ["BlockRow", "Report"]

EXACT = "all measured numbers agree with the declared ones: exactly, unless a tolerance is shown"
TOLERANCE = (
    "tolerance of a latency that is the centre of a window: one frame of the block's faster rate, since the window's "
    "first or last weight may be zero, which moves the measured centre; where the rate changes, half the difference of "
    "the two frames besides, since a frame may stand for an interval or for an instant"
)


@dataclass(frozen=True)
class BlockRow:
    """One block of the report, times in exact seconds.

    Attributes:
        age: algorithmic latency of what leaves the block, all before it included.
        state_bytes: of one stream.
        inserted: the compiler put it in to align a fan-in.
        measured: the measured numbers, where they were asked for.
    """

    name: str
    type: str
    rate_in: Fraction
    rate_out: Fraction
    quantum: int
    lookahead: Fraction | None
    latency: Fraction
    receptive_field: Fraction | None
    age: Fraction
    parameters: int
    state_bytes: int
    inserted: bool
    measured: NodeMeasured | None = None


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

    def __init__(self, graph: Graph, measure: bool = False) -> None:
        self.graph = graph
        self.measured: GraphMeasured | None = None
        nodes: dict[str, NodeMeasured] = {}
        if measure:
            from astrape.graph.report.measured import measure_graph

            self.measured = measure_graph(graph)
            nodes = self.measured.nodes
        self.blocks = [_row(graph, node, nodes.get(node.name)) for node in graph.nodes.values()]

    @property
    def disagreements(self) -> list[str]:
        return [] if self.measured is None else self.measured.disagreements

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values: milliseconds as floats, and the exact seconds as strings under ``exact``."""
        graph = self.graph
        found = self.measured
        content: dict[str, Any] = {
            "recipe": graph.name,
            "lookahead_ms": _ms(graph.lookahead),
            "algorithmic_ms": _ms(graph.latency),
            "framing_ms": _ms(graph.framing),
            "host_ms": _ms(graph.host_latency),
            "host_samples": graph.host_samples,
            "receptive_field_ms": _ms(graph.receptive_field),
            "quantum": graph.consumes,
            "parameters": sum(p.numel() for p in graph.parameters()),
            "state_bytes": sum(row.state_bytes for row in self.blocks),
            "inputs": {name: {"rate": _number(s.rate), "channels": s.channels} for name, s in graph.inputs.items()},
            "outputs": {
                name: {
                    "rate": _number(stream.rate),
                    "channels": stream.channels,
                    "algorithmic_ms": _ms(graph.latencies[name]),
                    "framing_ms": _ms(graph.framings[name].seconds),
                    "host_samples": graph.host_latencies[name],
                }
                for name, stream in graph.outputs.items()
            },
            "exact": {
                "lookahead": _text(graph.lookahead),
                "algorithmic": _text(graph.latency),
                "framing": _text(graph.framing),
                "host": _text(graph.host_latency),
                "receptive_field": _text(graph.receptive_field),
            },
            "blocks": [_row_dict(row) for row in self.blocks],
        }
        if found is not None:
            content |= {
                "measured_lookahead_ms": _ms(found.lookahead),
                "measured_algorithmic_ms": _ms(found.latency),
                "measured_algorithmic_tolerance_ms": _ms(found.tolerance),
                "measured_framing_ms": _ms(found.framing),
                "measured_receptive_field_ms": _ms(found.receptive_field),
                "disagreements": found.disagreements,
            }
            content["exact"] |= {
                "measured_algorithmic": _text(found.latency),
                "measured_framing": _text(found.framing),
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
        from astrape.graph.report.plot import save_latency_plot

        save_latency_plot(self, Path(path))

    def critical_path(self, output: str | None = None) -> list[BlockRow]:
        """The rows that an output's algorithmic latency is made of, from its input on; of the first output by default.

        Where paths of equal age meet, the way goes through the blocks and not through the delay that the compiler put
        on the other path for their sake.
        """
        rows = {row.name: row for row in self.blocks}
        signal = self.graph.wiring[output or self.graph.main]
        path: list[BlockRow] = []
        while signal.node in rows and rows[signal.node] not in path:
            path.append(rows[signal.node])
            node = self.graph.nodes[signal.node]
            if node.cut:
                break
            signal = max(node.sources.values(), key=lambda read: (self._age(read), not self._inserted(read)))
        return path[::-1]

    def _inserted(self, signal: Signal) -> bool:
        node = self.graph.nodes.get(signal.node)
        return node is not None and node.inserted

    def _age(self, signal: Signal) -> Fraction:
        return self.graph.signal_latency.get(signal, Fraction(0))

    def table(self) -> ReportTable:
        """The report for rich to print, as wide as there is room: name, latency and age of a block are always whole."""
        return ReportTable(self)

    __rich__ = table

    def summary(self) -> str:
        """The totals in words, and what disagrees."""
        graph = self.graph
        rate = graph.outputs[next(iter(graph.outputs))].rate
        lines = [
            f"look-ahead {shown(graph.lookahead)}, algorithmic {shown(graph.latency)}, "
            f"framing {shown(graph.framing)}, host {shown(graph.host_latency)} "
            f"= {graph.host_samples} samples at {rate_of(rate)} Hz",
            f"receptive field {shown(graph.receptive_field)}, "
            f"{sum(p.numel() for p in graph.parameters()):,} parameters, "
            f"state {size(sum(row.state_bytes for row in self.blocks))}",
        ]
        if self.measured is not None:
            found = self.measured
            lines.append(
                f"measured: look-ahead {shown(found.lookahead)}, algorithmic {shown(found.latency, '-')}"
                f"{f' (tolerance {shown(found.tolerance)})' if found.tolerance else ''}, "
                f"framing {shown(found.framing, '-')}"
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
        from astrape.graph.report.notebook import report_line

        return report_line(self)

    def _repr_html_(self) -> str:
        from astrape.graph.report.notebook import report_html

        return report_html(self)

    def _repr_svg_(self) -> str | None:
        from astrape.graph.report.notebook import report_svg

        return report_svg(self)

    def text(self, width: int | None = None) -> str:
        """The table as plain text, with all columns, or with those that fit into so many characters."""
        table = self.table()
        buffer = io.StringIO()
        Console(file=buffer, width=width or table.width, color_system=None, force_terminal=False).print(table)
        return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _row(graph: Graph, node: PlannedNode, measured: NodeMeasured | None) -> BlockRow:
    block: StreamBlock = node.block
    signals = [signal for signal, _ in node.output_streams()]
    state: Any = block.init_state(1) if block.lookahead == 0 else ()
    return BlockRow(
        name=node.name,
        type=node.use,
        rate_in=block.rate_in,
        rate_out=block.rate_out,
        quantum=block.quantum,
        lookahead=block.lookahead,
        latency=block.latency,
        receptive_field=block.receptive_field,
        age=max((graph.signal_latency.get(signal, Fraction(0)) for signal in signals), default=Fraction(0)),
        parameters=sum(p.numel() for p in block.parameters()),
        state_bytes=state_bytes(state),
        inserted=node.inserted,
        measured=measured,
    )


def _row_dict(row: BlockRow) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": row.name,
        "type": row.type,
        "rate_in": _number(row.rate_in),
        "rate_out": _number(row.rate_out),
        "quantum": row.quantum,
        "lookahead_ms": _ms(row.lookahead),
        "latency_ms": _ms(row.latency),
        "receptive_field_ms": _ms(row.receptive_field),
        "age_ms": _ms(row.age),
        "parameters": row.parameters,
        "state_bytes": row.state_bytes,
        "inserted": row.inserted,
        "exact": {
            "rate_in": str(row.rate_in),
            "rate_out": str(row.rate_out),
            "lookahead": _text(row.lookahead),
            "latency": _text(row.latency),
            "receptive_field": _text(row.receptive_field),
            "age": _text(row.age),
        },
    }
    if row.measured is not None:
        content |= {
            "measured_lookahead_ms": _ms(row.measured.lookahead),
            "measured_latency_ms": _ms(row.measured.latency),
            "latency_tolerance_ms": _ms(row.measured.tolerance),
            "measured_receptive_field_ms": _ms(row.measured.receptive_field),
            "measured_state_bytes": row.measured.state_bytes,
            "agrees": row.measured.agrees,
            "step_ms": row.measured.step_ms,
        }
    return content


def _ms(seconds: Fraction | None) -> float | None:
    return None if seconds is None else float(seconds * 1000)


def _text(seconds: Fraction | None) -> str | None:
    return None if seconds is None else str(seconds)


def _number(rate: Fraction) -> float | int:
    return int(rate) if rate.denominator == 1 else float(rate)
