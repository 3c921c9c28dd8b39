"""The rows of the latency report: what is declared of every block, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from astrape.blocks.base import StreamBlock
from astrape.blocks.state import state_bytes
from astrape.graph.compile.plan import PlannedNode
from astrape.graph.network import Network
from astrape.graph.report.measured import NodeMeasured

__all__ = ["BlockRow", "block_row", "exact_text", "milliseconds", "plain_number"]


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

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values: milliseconds as floats, exact seconds as strings under ``exact``."""
        content: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "rate_in": plain_number(self.rate_in),
            "rate_out": plain_number(self.rate_out),
            "quantum": self.quantum,
            "lookahead_ms": milliseconds(self.lookahead),
            "latency_ms": milliseconds(self.latency),
            "receptive_field_ms": milliseconds(self.receptive_field),
            "age_ms": milliseconds(self.age),
            "parameters": self.parameters,
            "state_bytes": self.state_bytes,
            "inserted": self.inserted,
            "exact": {
                "rate_in": str(self.rate_in),
                "rate_out": str(self.rate_out),
                "lookahead": exact_text(self.lookahead),
                "latency": exact_text(self.latency),
                "receptive_field": exact_text(self.receptive_field),
                "age": exact_text(self.age),
            },
        }
        if self.measured is not None:
            content |= {
                "measured_lookahead_ms": milliseconds(self.measured.lookahead),
                "measured_latency_ms": milliseconds(self.measured.latency),
                "latency_tolerance_ms": milliseconds(self.measured.tolerance),
                "measured_receptive_field_ms": milliseconds(self.measured.receptive_field),
                "measured_state_bytes": self.measured.state_bytes,
                "agrees": self.measured.agrees,
                "step_ms": self.measured.step_ms,
            }
        return content


def block_row(graph: Network[Any], node: PlannedNode, measured: NodeMeasured | None) -> BlockRow:
    block: StreamBlock = node.block
    wires = [wire for wire, _ in node.output_streams()]
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
        age=max((graph.signal_latency.get(wire, Fraction(0)) for wire in wires), default=Fraction(0)),
        parameters=sum(p.numel() for p in block.parameters()),
        state_bytes=state_bytes(state),
        inserted=node.inserted,
        measured=measured,
    )


def milliseconds(seconds: Fraction | None) -> float | None:
    return None if seconds is None else float(seconds * 1000)


def exact_text(seconds: Fraction | None) -> str | None:
    return None if seconds is None else str(seconds)


def plain_number(rate: Fraction) -> float | int:
    return int(rate) if rate.denominator == 1 else float(rate)
