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
    warn,
)
from astrape.commands.place_option import LocalPath
from astrape.commands.run import warnings_of
from astrape.wording import lacking

if TYPE_CHECKING:
    from rich.table import Table

    from astrape.voice.demo import Demo

__all__ = ["demo"]

LIVE = 0.5
"""Share of real time above which a live stream would stumble over whatever else runs."""


@command(
    "demo",
    "astrape demo\nastrape demo --voice michael --voice my-reference.wav -o mine",
    short="Convert a sample to other voices, live-style.",
)
@click.option(
    "-o",
    "--output",
    default=Path("demo-output"),
    show_default=True,
    type=LocalPath(),
    metavar="FOLDER",
    help="Where to write.",
)
@click.option(
    "--voice",
    "voices",
    multiple=True,
    metavar="VOICE",
    help="A voice that ships (`astrape voicebank list`), a voicebank or a recording; may be given again.  [default: "
    "emma and george]",
)
@settings_option
@click.option(
    "--chunk", "chunk_ms", default=10.0, show_default=True, metavar="MS", help="What the graph gets at a time."
)
@json_option
def demo(output: Path, voices: tuple[str, ...], settings: tuple[str, ...], chunk_ms: float, as_json: bool) -> None:
    """Convert the speech sample that comes with astrape to other voices, live-style in small chunks.

    Writes the sound before and after, the latency report, pictures and a page with all of it (index.html), and says
    what was measured. The voice changer, which needs no weights, is there for comparison.
    """
    from astrape.voice.demo import VOICES, demonstrate

    with progress("demo") as tell:
        done = demonstrate(
            output, voices=voices or VOICES, settings=parse_settings(settings), chunk_ms=chunk_ms, progress=tell
        )
    for take in done.takes:
        for line in warnings_of(take.conversion) if take.conversion else ():
            warn(line)
    if as_json:
        print_json(done.facts())
        return
    print_table(_facts(done))
    slow = told_slow(done.recipe, done.pushes.load, chunk_ms)
    click.echo("" if slow is None else f"{slow}\n")
    for path, what in done.files.items():
        click.echo(f"{path}  {what}")
    if not any(path.suffix == ".png" for path in done.files):
        click.echo("no pictures: " + lacking("a picture", "matplotlib", "plot"))


def told_slow(recipe: str, load: float, chunk_ms: float) -> str | None:
    """Advice for a load that is too much for a live stream; ``None`` for a load that is not."""
    if load <= LIVE:
        return None
    return (
        f"live takes less than 1, and {LIVE:g} with room to spare: this machine was busy, or is slow; "
        f"`astrape bench {recipe} --chunk {chunk_ms:g}` measures it when nothing else runs"
    )


def _facts(done: Demo) -> Table:
    from rich.table import Table

    pushes = done.pushes
    table = Table(box=None, pad_edge=False, show_header=False)
    rows = {
        f"{done.recipe}, {pushes.chunk_ms:.1f} ms at a time": f"{done.seconds:.2f} s of speech",
        "host latency": f"{done.host_ms:.1f} ms, {done.host_samples} samples",
        "a push takes": f"{pushes.median_ms:.2f} ms (median), {pushes.worst_ms:.2f} ms (worst of {pushes.count})",
        "real-time factor": f"{pushes.load:.3f}",
    }
    for take in done.takes:
        parts = [_hertz(take.pitch)]
        if take.to_target is not None:
            parts.append(f"{take.to_target:.2f} like the voice, {take.to_source:.2f} like the source")
        rows[take.voice] = ", ".join(parts)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _hertz(pitch: float | None) -> str:
    return "no pitch" if pitch is None else f"{pitch:.0f} Hz"
