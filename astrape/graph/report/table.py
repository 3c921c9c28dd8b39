"""The latency report as text, for any width: what does not fit is left out whole, by name, and never cut."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.box import HEAVY_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from astrape.graph.report.rows import BlockRow
from astrape.graph.text import ms, rate, size

__all__ = ["Column", "ReportTable"]

HELD = "\u00a0"
UNIT = re.compile(r"(?<=\d) (?=(?:ms|Hz|B|kB|samples?|frames?)\b)")
RULE, EDGE = 3, 1
"""Characters that a column of a table takes beside its text, and those that the table takes beside its columns."""


@dataclass(frozen=True)
class Column:
    """A column: its head, its text for a row, and its rank: the least ranks are the last to go."""

    head: str
    text: Callable[[BlockRow], str]
    rank: int
    left: bool = False


def _measured(row: BlockRow) -> str:
    if row.measured is None:
        return ""
    return ms(row.measured.latency, "-") + ("" if row.measured.agrees else " !")


def _tolerance(row: BlockRow) -> str:
    if row.measured is None or row.measured.latency is None:
        return "" if row.measured is None else "-"
    return ms(row.measured.tolerance) if row.measured.tolerance else "exact"


COLUMNS = (
    Column("block", lambda row: row.name, 0, left=True),
    Column("type", lambda row: row.type + (" (inserted)" if row.inserted else ""), 3, left=True),
    Column("in Hz", lambda row: rate(row.rate_in), 7),
    Column("out Hz", lambda row: rate(row.rate_out), 5),
    Column("quantum", lambda row: str(row.quantum), 4),
    Column("look-ahead", lambda row: ms(row.lookahead), 8),
    Column("latency", lambda row: ms(row.latency), 0),
    Column("age", lambda row: ms(row.age), 0),
    Column("receptive field", lambda row: ms(row.receptive_field), 6),
    Column("parameters", lambda row: f"{row.parameters:,}", 9),
    Column("state", lambda row: size(row.state_bytes), 10),
)

MEASURED = (
    Column("measured", _measured, 1),
    Column("tolerance", _tolerance, 2),
    Column("step", lambda row: "" if row.measured is None else f"{row.measured.step_ms:.3f} ms", 8),
)


class ReportTable:
    """The table of a report, for rich to print.

    Name, latency and age of a block are always there and always whole. Of the other columns there are as many as fit,
    and the rest is named below. Where those three do not fit beside each other, blocks take two lines instead of one.

    Args:
        name: of the graph.
        rows: its blocks.
        summary: the lines below the table.
    """

    def __init__(self, name: str, rows: Sequence[BlockRow], summary: str) -> None:
        self.name, self.summary = name, summary
        measured = any(row.measured is not None for row in rows)
        self.columns = (*COLUMNS, *MEASURED) if measured else COLUMNS
        self.cells = {column.head: [column.text(row) for row in rows] for column in self.columns}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        yield Text(f"{self.name}: latency", style="italic")
        kept = self._kept(width)
        if kept:
            yield from self._lines(kept, options)
            left_out = [column.head for column in self.columns if column not in kept]
        else:
            yield from self._stacked(width)
            left_out = []
        for line in self.summary.splitlines():
            yield from _wrapped(line, width)
        if left_out:
            line = f"too narrow here for {', '.join(left_out)}: --json and a wider terminal have them"
            yield from _wrapped(line, width, style="dim")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, self.width)

    @property
    def width(self) -> int:
        """Characters that the whole table takes, and its summary without line breaks."""
        return max(self._taken(self.columns), *map(len, self.summary.splitlines()))

    def _width(self, column: Column) -> int:
        return max(len(column.head), *map(len, self.cells[column.head]), 0)

    def _taken(self, columns: Sequence[Column]) -> int:
        return sum(self._width(column) + RULE for column in columns) + EDGE

    def _kept(self, width: int) -> tuple[Column, ...]:
        """The columns that fit, in order; none where not even those that must be there do."""
        chosen = [column for column in self.columns if column.rank == 0]
        if self._taken(chosen) > width:
            return ()
        for column in sorted(self.columns, key=lambda column: column.rank):
            if column not in chosen and self._taken([*chosen, column]) <= width:
                chosen.append(column)
        return tuple(column for column in self.columns if column in chosen)

    def _lines(self, columns: Sequence[Column], options: ConsoleOptions) -> Iterator[Segment]:
        """The table, line by line: rich's own takes 1 ms a row, and a graph may have ten thousand."""
        box = HEAVY_HEAD.substitute(options)
        widths = [self._width(column) for column in columns]
        framed = [width + RULE - 1 for width in widths]
        bold = Style(bold=True)
        yield from (Segment(box.get_top(framed)), Segment.line(), Segment(box.head_left))
        for index, (column, width) in enumerate(zip(columns, widths, strict=True)):
            yield from (Segment(box.head_vertical),) if index else ()
            yield Segment(f" {_padded(column.head, width, column.left)} ", bold)
        yield from (Segment(box.head_right), Segment.line(), Segment(box.get_row(framed, "head")), Segment.line())
        shape = list(zip(widths, (column.left for column in columns), strict=True))
        for cells in zip(*(self.cells[column.head] for column in columns), strict=True):
            line = box.mid_vertical.join(f" {_padded(cell, *at)} " for cell, at in zip(cells, shape, strict=True))
            yield from (Segment(f"{box.mid_left}{line}{box.mid_right}"), Segment.line())
        yield from (Segment(box.get_bottom(framed)), Segment.line())

    def _stacked(self, width: int) -> Iterator[Text]:
        for index, name in enumerate(self.cells["block"]):
            # A name wider than the terminal goes on in its next line: nothing of it is lost.
            yield Text(name, style="bold", overflow="fold", no_wrap=False)
            facts = (f"{column.head} {self.cells[column.head][index]}" for column in self.columns[1:])
            yield from _wrapped(", ".join(fact.replace(" ", HELD) for fact in facts), width, indent=2)


def _padded(text: str, width: int, left: bool) -> str:
    return text.ljust(width) if left else text.rjust(width)


def _wrapped(line: str, width: int, indent: int = 0, style: str = "") -> Iterator[Text]:
    """A line in pieces that fit, in which numbers keep their units."""
    joined = UNIT.sub(HELD, line)
    space = " " * indent
    for piece in textwrap.wrap(
        joined, width, initial_indent=space, subsequent_indent=space, break_long_words=False, break_on_hyphens=False
    ):
        yield Text(piece.replace(HELD, " "), style=style)
