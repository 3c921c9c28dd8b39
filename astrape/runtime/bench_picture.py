"""The picture of a bench: what each backend takes of real time, beside the machine's limit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from astrape.graph.report.figure import AMBER, BLUE, FAINT, GREEN, GREY, INK, RED, figure_file
from astrape.runtime.bench import Bench, ChunkBench

__all__ = ["save_bench_picture"]


def save_bench_picture(found: Bench, path: str | Path) -> None:
    """Draw a panel for each chunk size: a bar a backend for the median of its computing, marks for slow pushes.

    Args:
        found: what was measured.
        path: its ending picks the format: png, svg or pdf.

    Raises:
        AstrapeError: when matplotlib is not installed, or for another ending.
    """
    rows = [len(part.backends) + 1 for part in found.chunks]
    with figure_file(9.0, 1.2 + sum(0.4 * count + 0.95 for count in rows), path) as figure:
        grid = figure.add_gridspec(len(rows), 1, height_ratios=[count + 1.2 for count in rows])
        for index, part in enumerate(found.chunks):
            _draw(figure.add_subplot(grid[index]), part)
        busy = f"; a busy machine, at {found.best.share:.0%} of its best" if found.best.busy else ""
        figure.suptitle(f"{found.recipe}: a push, of real time{busy}", x=0.02, ha="left", size=13, color=INK)


def _draw(axes: Any, part: ChunkBench) -> None:
    length_ms = next((row.median_ms / row.load for row in part.backends if row.load > 0), part.chunk_ms)
    names, furthest = [], part.floor_ms / length_ms
    for row, backend in enumerate(part.backends):
        names.append(backend.backend)
        if math.isnan(backend.median_ms):
            axes.annotate("does not run", (0, row), (4, 0), textcoords="offset points", va="center", size=8.5)
            continue
        computing, slow, worst = (ms / length_ms for ms in (backend.computing_ms, backend.p999_ms, backend.worst_ms))
        axes.barh(row, computing, height=0.55, color=BLUE, zorder=2)
        axes.plot([slow, slow], [row - 0.28, row + 0.28], color=AMBER, linewidth=2, zorder=3)
        axes.plot([worst, worst], [row - 0.28, row + 0.28], color=RED, linewidth=2, zorder=3)
        axes.annotate(f"{computing:.3f}", (computing, row), (4, 0), textcoords="offset points", va="center", size=8.5)
        furthest = max(furthest, computing, worst)
    row = len(part.backends)
    limit = part.floor_ms / length_ms
    axes.barh(row, limit, height=0.55, color=GREEN, zorder=2)
    axes.annotate(f"{limit:.3f}", (limit, row), (4, 0), textcoords="offset points", va="center", size=8.5)
    axes.set_yticks(range(row + 1), [*names, "machine's limit"])
    axes.set_ylim(row + 0.6, -0.6)
    axes.set_xlim(0, furthest * 1.1 or 1.0)
    if furthest > 0.9:
        axes.axvline(1.0, color=INK, linewidth=0.8, linestyle=":", zorder=1)
    axes.set_title(
        f"pushes of {part.chunk_ms:g} ms: bars compute, amber is 99.9 % by the clock, red the worst",
        loc="left",
        size=10,
        color=GREY,
    )
    axes.tick_params(length=0, labelsize=9, colors=INK)
    axes.grid(axis="x", color=FAINT, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
