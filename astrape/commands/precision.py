"""``astrape precision``: what float32 costs, flipped codes above all."""

from __future__ import annotations

from collections.abc import Iterator
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
from astrape.commands.place_option import PlaceType, weights_option
from astrape.errors import AstrapeError
from astrape.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from astrape.audio.places import Place
    from astrape.blocks.base import Stream

__all__ = ["precision"]


@command(
    "precision",
    "astrape precision astrape-vc speech.wav --weights weights.safetensors",
    short="Compare float32 with float64 on recordings.",
)
@click.argument("recipe", type=RecipeName())
@click.argument("recordings", metavar="AUDIO...", nargs=-1, required=True, type=PlaceType())
@weights_option
@click.option(
    "--chunk", "chunk_ms", default=10.0, show_default=True, metavar="MS", help="What the graph gets at a time."
)
@click.option(
    "--precision",
    "kind",
    metavar="NAME",
    help="Compare a compiled session with weights of this precision: float32, or float16, to which they are rounded.",
)
@settings_option
@json_option
def precision(
    recipe: str,
    recordings: tuple[Path | Place, ...],
    weights: Path | Place | None,
    chunk_ms: float,
    kind: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Stream recordings, one after another, through RECIPE in float32 and in float64, and compare.

    A float64 stream is the whole pass. Codes that come out other than there are counted: float32 rounds, and what lies
    on the border of two codes falls on either side. Controls without a default that --set does not give are drawn.
    """
    import torch
    from rich.table import Table

    from astrape.graph import load
    from astrape.graph.hosted import is_audio_stream
    from astrape.runtime.files import check_chunk, in_chunks
    from astrape.voice.precision import precision as compare
    from astrape.voice.speaking import SEED

    check_chunk(chunk_ms)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        graph = load(recipe, weights=weights)
        controls = parse_settings(settings)
        for name, spec in graph.control_specs.items():
            if spec.default is None and name not in controls:
                controls[name] = torch.randn(spec.channels)
    stream = next(iter(graph.inputs.values()))
    if len(graph.inputs) != 1 or not is_audio_stream(stream):
        raise AstrapeError(f"'{graph.name}' does not begin with one stream of audio, as recordings are")
    check_chunk(chunk_ms, stream.rate)
    chunk = max(1, round(chunk_ms * float(stream.rate) / 1000))
    with progress(graph.name) as tell:
        found = compare(graph, in_chunks(_heard(recordings, stream, tell), chunk), controls, kind, chunk)
    if as_json:
        print_json([difference.to_dict() for difference in found])
        return
    table = Table("output", "frames", "largest difference", "power of it", "flipped codes", "codes used")
    for each in found:
        table.add_row(
            each.output,
            str(each.frames),
            "-" if each.largest is None else f"{each.largest:.2g}",
            "-" if each.relative_db is None else f"{each.relative_db:.1f} dB",
            "-" if each.flip_rate is None else f"{each.flipped} ({100 * each.flip_rate:.3g} %)",
            "-" if each.used is None else str(each.used),
        )
    print_table(table)


def _heard(recordings: tuple[Path | Place, ...], stream: Stream, tell: Progress) -> Iterator[Tensor]:
    from astrape.audio.resampling import pieces_of

    for index, path in enumerate(recordings):
        tell(index, len(recordings))
        for piece in pieces_of(path, stream):
            yield piece.expand(-1, stream.channels, -1)
