"""``astrape bench``: how fast a recipe runs live on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrape.commands.console import (
    RecipeName,
    command,
    json_option,
    parse_settings,
    print_json,
    print_table,
    progress,
    settings_option,
)
from astrape.commands.place_option import LocalPath

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from astrape.graph.graph import Graph
    from astrape.runtime.bench import Bench, ChunkBench
    from astrape.runtime.callbacks import CallbackBench
    from astrape.runtime.machine import Best, Machine
    from astrape.runtime.profile import Profile

__all__ = ["bench"]

QUIET = 0.9
"""Share of a core that a measurement by the clock has to have, to mean anything."""


LEAST_SHARE = 0.005
"""Share of a push from which on a kind of kernel is shown."""


@command("bench", "astrape bench voice-changer --chunk 10", short="Measure how fast a recipe runs live.")
@click.argument("recipe", type=RecipeName())
@click.option("--chunk", "chunks", multiple=True, type=float, default=(10.0, 40.0), show_default=True, metavar="MS")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="NAME",
    help="Backend to compare with eager: recorded, compiled, onnx. All that are ready, when left out.",
)
@click.option(
    "--precision",
    metavar="NAME",
    help="Weights of the compared backends: float32, or float16 where compiled is compared. Eager keeps float32.",
)
@click.option("--profile", is_flag=True, help="Time every kernel of recorded and compiled pushes, and nothing else.")
@click.option(
    "--rows",
    multiple=True,
    type=int,
    metavar="N",
    help="Streams in a batch: compare sessions of that many rows, and nothing else. Repeatable.",
)
@click.option(
    "--callbacks", is_flag=True, help="Load of callbacks of 64, 128, 256, 441 and 1764 frames, and nothing else."
)
@click.option("--picture", type=LocalPath(), metavar="FILE", help="Draw the backends to FILE (.png, .svg or .pdf).")
@click.option("--seconds", default=6.0, show_default=True, help="Measuring time per chunk size.")
@settings_option
@json_option
def bench(
    recipe: str,
    chunks: tuple[float, ...],
    backends: tuple[str, ...],
    precision: str | None,
    profile: bool,
    rows: tuple[int, ...],
    callbacks: bool,
    picture: Path | None,
    seconds: float,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure how fast RECIPE runs live, on one thread.

    The session replays captured steps where it can. What graph and session add is what they take over the very
    same calls of the blocks' steps made by hand, measured in turns; where it replays, it is less than nothing. The
    machine's limit is the larger of the chunk's operations at the measured rate of matrix products and its bytes at
    the measured bandwidth.

    Backends are given the same chunks in turns. What is ready is compared: compiled, where its kernels are there. Named
    with --backend, its kernels are built first, and for onnx the graph is exported.

    A profile has the kernels of a push by name: their time, what they read and write a second, the operations of
    products a second, and the least time for that on this machine.

    With --rows, as in --rows 1 --rows 16, sessions of that many streams are given their chunks in turns: the share of a
    core that all take, and each. With --callbacks, blocks as sound cards and hosts have them go through sessions with
    constant latency, of the first --backend or the quickest that is ready: most callbacks do nothing, and one does the
    work of a quantum.
    """
    from astrape.audio.atomic import atomic_path
    from astrape.errors import AstrapeError
    from astrape.graph import load
    from astrape.graph.report.figure import check_ending
    from astrape.runtime.bench import bench as measure
    from astrape.runtime.bench import profiles
    from astrape.runtime.bench_picture import save_bench_picture
    from astrape.runtime.callbacks import callback_loads
    from astrape.runtime.machine import best_seen
    from astrape.runtime.process import settle

    if picture is not None:
        check_ending(picture)
        if profile or rows or callbacks:
            raise AstrapeError("--picture shows backends side by side; hint: leave out --profile, --rows, --callbacks")
    graph = load(recipe)
    settle()
    if profile:
        machine, found = profiles(
            graph, chunks, controls=parse_settings(settings), backends=backends, precision=precision
        )
        if as_json:
            print_json({"machine": asdict(machine), "chunks": [[one.to_dict() for one in backed] for backed in found]})
            return
        click.echo(_machine(machine, best_seen(machine)))
        for chunk_ms, backed in zip(chunks, found, strict=True):
            for one in backed:
                _print_profile(one, chunk_ms, machine)
        return
    if rows:
        _rows(graph, chunks, rows, parse_settings(settings), backends, precision, seconds, as_json)
        return
    if callbacks:
        asked = backends[0] if backends else None
        found_loads = callback_loads(
            graph, seconds=seconds, controls=parse_settings(settings), backend=asked, precision=precision
        )
        if as_json:
            print_json({"callbacks": [asdict(one) for one in found_loads]})
            return
        _print_callbacks(found_loads)
        return
    with progress(f"measuring {graph.name}") as tell:
        measured = measure(
            graph,
            chunks,
            seconds=seconds,
            controls=parse_settings(settings),
            backends=backends,
            precision=precision,
            progress=tell,
        )
    if picture is not None:
        with atomic_path(picture) as temporary:
            save_bench_picture(measured, temporary)
    if as_json:
        print_json(measured.to_dict())
        return
    click.echo(f"{measured.recipe}: {measured.threads} thread, {measured.parameters:,} parameters")
    process = measured.process_bytes
    whole = "" if process is None else f", this process at most {_size(process)}"
    click.echo(f"weights and tables {_size(measured.weight_bytes)}, state {_size(measured.state_bytes)}{whole}")
    click.echo(_machine(measured.machine, measured.best))
    click.echo()
    print_table(_times(measured))
    for part in measured.chunks:
        if part.untaped:
            click.echo(f"nothing captured at {part.chunk_ms:g} ms: {part.untaped}")
    for part in measured.chunks:
        click.echo()
        print_table(_backends(part))
        _tell_busy(min((row.had for row in part.backends if not math.isnan(row.had)), default=1.0))
        for row in part.backends:
            if row.backend != row.chosen.partition(":")[0]:
                click.echo(f"{row.backend} at {part.chunk_ms:g} ms: {row.chosen}")
    click.echo()
    print_table(_blocks(measured.chunks))


def _rows(
    graph: Graph,
    chunks: tuple[float, ...],
    rows: tuple[int, ...],
    controls: dict[str, Tensor | float],
    backends: tuple[str, ...],
    precision: str | None,
    seconds: float,
    as_json: bool,
) -> None:
    from rich.table import Table

    from astrape.runtime.rows import rows_in_turns

    found = {
        ms: rows_in_turns(graph, ms, rows, seconds=seconds, controls=controls, backends=backends, precision=precision)
        for ms in chunks
    }
    if as_json:
        print_json({f"{ms:g} ms": [asdict(one) for one in part] for ms, part in found.items()})
        return
    for ms, part in found.items():
        table = Table(box=None, pad_edge=False, header_style="bold")
        for head in (f"rows at {ms:g} ms", "backend", "computing", "of a core", "a stream"):
            table.add_column(head, justify="left" if head == "backend" else "right")
        for one in part:
            shares = f"{one.share:.3f}", f"{one.per_stream:.4f}"
            table.add_row(str(one.rows), one.backend, f"{one.computing_ms:.3f} ms", *shares)
        print_table(table)
        _tell_busy(min(one.had for one in part))


def _print_callbacks(found: list[CallbackBench]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("callback", "callbacks", "median", "99 %", "99.9 %", "worst", "worst by the clock"):
        table.add_column(head, justify="right")
    for one in found:
        loads = (one.median, one.p99, one.p999, one.worst, one.worst_by_clock)
        table.add_row(f"{one.frames} frames", str(one.callbacks), *(f"{load:.1%}" for load in loads))
    print_table(table)
    click.echo(f"of a callback's length, by computing; {found[0].chosen}")
    _tell_busy(min(one.had for one in found))


def _tell_busy(had: float) -> None:
    if had < QUIET:
        click.echo(f"the machine is busy: {had:.0%} of a core was this measurement's, so believe computing alone")


def _machine(machine: Machine, best: Best) -> str:
    said = (
        f"machine: memory {machine.memory_gb_s:.1f} GB/s (best seen here {best.memory_gb_s:.1f}), "
        f"{_size(machine.working_set_bytes)} again and again {machine.working_set_gb_s:.1f} GB/s, matrix products "
        f"{machine.matmul_gflop_s:.0f} GFLOP/s (best seen {best.matmul_gflop_s:.0f})"
    )
    if not best.busy:
        return said
    return f"{said}\nthe machine gives {best.share:.0%} of its best: too busy for its times to mean much, ratios do"


def _print_profile(found: Profile, chunk_ms: float, machine: Machine) -> None:
    """A table of a push's kernels, and what of its time is whose."""
    from rich.table import Table

    click.echo()
    click.echo(f"{chunk_ms:g} ms, {found.backend}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kernel", no_wrap=True)
    table.add_column("of")
    for head in ("calls", "us", "share", "us each", "GB/s", "GFLOP/s", "limit, us"):
        table.add_column(head, justify="right")
    shown = [share for share in found.kernels if share.milliseconds >= LEAST_SHARE * found.push_ms]
    for share in shown:
        spent = max(share.milliseconds, 1e-9)
        numbers = (
            f"{share.calls:.0f}",
            f"{1000 * spent:.1f}",
            f"{spent / found.push_ms:.1%}",
            f"{1000 * spent / share.calls:.2f}",
            f"{share.bytes / spent / 1e6:.1f}",
            f"{share.operations / spent / 1e6:.1f}" if share.operations else "-",
            f"{1000 * machine.floor_ms(share.operations, share.bytes):.1f}",
        )
        table.add_row(share.name, share.kind, *numbers)
    print_table(table)
    calls = sum(share.calls for share in found.kernels if share.kind == "PyTorch")
    rest = len(found.kernels) - len(shown)
    click.echo(
        f"a push computes {found.push_ms:.3f} ms, {found.push_ms / chunk_ms:.4f} of real time: kernels "
        f"{found.kernels_ms:.3f} ms ({rest} kinds below {LEAST_SHARE:.1%} are left out), Python around them "
        f"{found.python_ms:.3f} ms"
    )
    click.echo(
        f"of the kernels, {calls:.0f} calls of PyTorch's at {found.call_us:.2f} us come to {found.calls_ms:.3f} ms; "
        f"the limit is {found.bytes_ms:.3f} ms by bytes and {found.operations_ms:.3f} ms by operations"
    )


def _times(found: Bench) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for part in found.chunks:
        table.add_column(f"chunk {part.chunk_ms:g} ms", justify="right")
    rows: dict[str, Callable[[ChunkBench], str]] = {
        "real-time factor": lambda p: f"{p.real_time_factor:.4f}",
        "step, median": lambda p: f"{p.median_ms:.3f} ms",
        "step, 99.9 %": lambda p: f"{p.p999_ms:.3f} ms",
        "step, worst": lambda p: f"{p.worst_ms:.3f} ms",
        "steps": lambda p: str(p.steps),
        "load, median": lambda p: f"{p.median_load:.1%}",
        "load, 99.9 %": lambda p: f"{p.p999_load:.1%}",
        "captured steps": lambda p: str(p.tapes),
        "blocks by hand": lambda p: f"{p.blocks_ms:.3f} ms",
        "graph adds": lambda p: f"{p.graph_overhead:+.1%}",
        "graph and session add": lambda p: f"{p.session_overhead:+.1%}",
        "machine's limit": lambda p: f"{p.floor_ms:.3f} ms",
        "limit by bytes": lambda p: f"{found.machine.floor_ms(0, p.traffic_bytes):.3f} ms",
        "limit by operations": lambda p: f"{found.machine.floor_ms(p.gflop * 1e9, 0):.3f} ms",
        "session over the limit": lambda p: f"{p.above_floor:.1f} times",
    }
    for name, shown in rows.items():
        table.add_row(name, *(shown(part) for part in found.chunks))
    return table


def _backends(part: ChunkBench) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"backends at {part.chunk_ms:g} ms", no_wrap=True)
    for head in ("computing", "median", "99 %", "99.9 %", "worst", "load", "worst load", "to eager", "over the limit"):
        table.add_column(head, justify="right")
    for row in part.backends:
        if math.isnan(row.median_ms):
            table.add_row(row.backend, *["-"] * 9)
            continue
        times = (f"{ms:.3f} ms" for ms in (row.computing_ms, row.median_ms, row.p99_ms, row.p999_ms, row.worst_ms))
        shares = (f"{row.load:.1%}", f"{row.worst_load:.1%}", f"{row.to_eager:.2f}", f"{row.above_floor:.1f} times")
        table.add_row(row.backend, *times, *shares)
    return table


def _blocks(parts: list[ChunkBench]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("block", "type"):
        table.add_column(head, no_wrap=True)
    for part in parts:
        table.add_column(f"share at {part.chunk_ms:g} ms", justify="right", min_width=6)
        table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("weights, tables", justify="right", min_width=8)
    table.add_column("state", justify="right", no_wrap=True)
    for rows in zip(*(part.blocks for part in parts), strict=True):
        cells = [text for row in rows for text in (f"{row.share:.1%}", f"{row.milliseconds:.3f}")]
        table.add_row(rows[0].name, rows[0].type, *cells, _size(rows[0].weight_bytes), _size(rows[0].state_bytes))
    return table


def _size(count: int) -> str:
    if count < 10_000:
        return f"{count} B"
    return f"{count / 1000:,.0f} kB" if count < 10_000_000 else f"{count / 1e6:,.1f} MB"
