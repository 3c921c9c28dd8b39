"""``astrape run``: a recipe over an audio file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from astrape.commands.console import (
    RecipeName,
    channel_option,
    command,
    json_option,
    parse_settings,
    print_json,
    progress,
    settings_option,
    warn,
)
from astrape.commands.pipes import PIPE, Pipes, pipe_options
from astrape.commands.place_option import PlaceType, weights_option

if TYPE_CHECKING:
    from pathlib import Path

    from astrape.audio.places import Place
    from astrape.runtime.files import Conversion

__all__ = ["run", "warnings_of"]


@command(
    "run",
    "astrape run voice-changer in.wav out.wav --set pitch=-5 --set formant=-2\n"
    "ffmpeg -i in.mp4 -f wav - | astrape run voice-changer - - | ffplay -\n"
    "arecord -f S16_LE -r 44100 | astrape run voice-changer - - --from s16le:44100 | aplay -f S16_LE -r 44100",
    interrupted="OUT is as it was before",
    short="Run a recipe over an audio file.",
)
@click.argument("recipe", type=RecipeName())
@click.argument("source", metavar="IN", type=PlaceType())
@click.argument("target", metavar="OUT", type=PlaceType())
@settings_option
@click.option(
    "--chunk", "chunk_ms", default=10.0, show_default=True, metavar="MS", help="What the graph gets at a time."
)
@click.option("--live-latency", is_flag=True, help="Keep the latency that a live host hears, instead of aligning.")
@click.option("--keep-rate", is_flag=True, help="Write at the recipe's output rate instead of the input file's.")
@click.option("--output", "port", metavar="NAME", help="The output to write, where the recipe has several.")
@weights_option
@channel_option
@pipe_options
@json_option
def run(
    recipe: str,
    source: Path | Place,
    target: Path | Place,
    settings: tuple[str, ...],
    chunk_ms: float,
    live_latency: bool,
    keep_rate: bool,
    port: str | None,
    weights: Path | Place | None,
    channel: str,
    pipes: Pipes,
    as_json: bool,
) -> None:
    """Run RECIPE over the audio file IN and write OUT.

    IN may have any format, rate and channels that soundfile reads (with PyAV or ffmpeg, m4a, webm and mp4 too), and any
    length. It is mixed to the recipe's channels and resampled to its rate, as a stream. OUT has IN's rate and, aligned
    to the sample, its length; its ending picks its format. It appears when it is complete. IN, OUT and --weights may be
    URLs of stores.

    `-` for IN or OUT is standard input or output: WAV, or raw samples where --from or --to say so. What comes is taken
    as it comes, and what goes is flushed with every chunk. What the command has to say then goes to standard error.
    """
    from astrape.audio.levels import decibels
    from astrape.graph import load
    from astrape.runtime.files import process_file

    graph = load(recipe, weights=weights)
    with progress(f"{graph.name}") as tell:
        done = process_file(
            graph,
            pipes.source(source),
            pipes.target(target),
            controls=parse_settings(settings),
            chunk_ms=chunk_ms,
            output=port,
            live_latency=live_latency,
            keep_rate=keep_rate,
            channel=channel,
            progress=tell,
        )
    for line in warnings_of(done):
        warn(line)
    piped = str(target) == PIPE
    if as_json:
        print_json(done.to_dict(), err=piped)
        return
    channels = f"{done.channels_out} channel{'' if done.channels_out == 1 else 's'}"
    click.echo(
        f"{done.target}: {done.frames_out} frames, {channels} at {done.rate_out} Hz ({done.subtype}), "
        f"peak {decibels(done.peak_out):.1f} dB, latency {done.latency_frames} frames, "
        f"{done.elapsed:.1f} s (graph {done.real_time_factor:.3f} of real time)",
        err=piped,
    )


def warnings_of(done: Conversion) -> list[str]:
    """Warnings about a conversion that went through."""
    from astrape.audio.levels import decibels

    lines = []
    if done.unsized and done.frames_in:
        lines.append(
            f"{done.source}: its header does not say how long it is, as when a recording was not ended: converted to "
            f"its end, {done.seconds:.3f} s"
        )
    elif not done.frames_in and not done.surplus:
        lines.append(f"{done.source}: holds no samples")
    if done.missing:
        seconds = done.missing / done.rate_in
        lines.append(f"{done.source}: ends {seconds:.3f} s before its header says: converted what is there")
    elif done.cut:
        lines.append(f"{done.source}: ends before its stream does: it is cut short, converted what is there")
    if done.surplus:
        seconds = done.surplus / done.rate_in
        lines.append(
            f"{done.source}: goes on for {seconds:.3f} s behind what its header speaks of, which was not converted: "
            f"decode or copy it again"
        )
    if done.cancelled:
        lines.append(
            f"{done.source}: its {done.channels_in} channels cancel each other in their mean, over "
            f"{done.cancelled:.2f} s: take one of them with --channel left"
        )
    if done.not_finite:
        at = f"the first at {done.first_not_finite:.3f} s"
        lines.append(f"{done.source}: {done.not_finite} samples are not finite ({at}): taken as silence")
    if done.clipped:
        kept = done.subtype in ("FLOAT", "DOUBLE")
        what = "beyond full scale, kept since the file holds floats" if kept else "clipped at full scale"
        lines.append(f"{done.target}: {done.clipped} samples {what}, peak {decibels(done.peak_out):+.1f} dB")
    return lines
