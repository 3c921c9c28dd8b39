"""``astrape demo``: hear and see what astrape does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrape.commands.console import (
    command,
    json_option,
    parse_settings,
    print_json,
    print_table,
    progress,
    settings_option,
)
from astrape.commands.run import warnings_of

if TYPE_CHECKING:
    from rich.table import Table

    from astrape.runtime.demo import Demo

__all__ = ["demo"]


@command(
    "demo",
    "astrape demo\nastrape demo --set pitch=-5 --set formant=-2 -o deeper",
    short="Convert a speech sample, live-style: hear and see it.",
)
@click.option(
    "-o",
    "--output",
    default=Path("demo-output"),
    show_default=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where to write.",
)
@settings_option
@click.option(
    "--chunk", "chunk_ms", default=10.0, show_default=True, metavar="MS", help="What the graph gets at a time."
)
@json_option
def demo(output: Path, settings: tuple[str, ...], chunk_ms: float, as_json: bool) -> None:
    """Convert the speech sample that comes with astrape with its voice changer, live-style in small chunks.

    Writes the sound before and after, the latency report and pictures, and says what was measured.
    """
    from astrape.runtime.demo import demonstrate

    with progress("demo") as tell:
        done = demonstrate(output, settings=parse_settings(settings) or None, chunk_ms=chunk_ms, progress=tell)
    for line in warnings_of(done.conversion):
        click.echo(f"astrape: warning: {line}", err=True)
    if as_json:
        print_json(done.facts())
        return
    print_table(_facts(done))
    click.echo()
    for path, what in done.files.items():
        click.echo(f"{path}  {what}")
    if not any(path.suffix == ".png" for path in done.files):
        click.echo('no pictures: they need matplotlib, pip install "astrape[plot]"')


def _facts(done: Demo) -> Table:
    from rich.table import Table

    facts = done.facts()
    settings = ", ".join(f"{name} {value:+g}" for name, value in done.settings.items())
    table = Table(box=None, pad_edge=False, show_header=False)
    rows = {
        f"{facts['recipe']}, {settings}": f"{done.conversion.seconds:.2f} s of speech",
        "real-time factor": f"{facts['real_time_factor']:.3f}",
        "host latency": f"{facts['host_ms']:.1f} ms, {facts['host_samples']} samples",
        "level before, after": f"{facts['rms_db_before']:.1f} dB, {facts['rms_db_after']:.1f} dB",
        "pitch before, after": f"{_hertz(done.pitch_in)}, {_hertz(done.pitch_out)}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _hertz(pitch: float | None) -> str:
    return "none" if pitch is None else f"{pitch:.0f} Hz"
