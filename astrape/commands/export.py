"""``astrape export``: a recipe's streaming step as files, for use without Python."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import RecipeName, command, json_option, print_json, progress
from astrape.commands.extras import require
from astrape.commands.place_option import LocalPath, weights_option

if TYPE_CHECKING:
    from astrape.audio.places import Place

__all__ = ["export"]


@command(
    "export",
    "astrape export astrape-mini -o exported/astrape-mini",
    interrupted="DIR has no manifest, or is as it was before",
    short="Export a recipe's streaming step to ONNX.",
)
@click.argument("recipe", type=RecipeName())
@click.option("-o", "--output", "folder", type=LocalPath(), required=True, metavar="DIR", help="Where to.")
@weights_option
@click.option(
    "--chunk", "chunk_ms", type=float, metavar="MS", help="What a step takes in; the graph's own quantum by default."
)
@click.option(
    "--rate", "host_rate", metavar="HZ", help="Of a host that is not the recipe's: audio is resampled within the step."
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Streams that run in step.")
@click.option(
    "--format",
    "formats",
    default="onnx",
    show_default=True,
    metavar="NAME[,NAME]",
    help="onnx, which runs everywhere; aoti, machine code for machines like this one, which takes a C++ compiler.",
)
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    metavar="NAME",
    help="Weights in ONNX files: float32, or float16, which takes half of the room.",
)
@json_option
def export(
    recipe: str,
    folder: Path,
    weights: Path | Place | None,
    chunk_ms: float | None,
    host_rate: str | None,
    batch: int,
    formats: str,
    precision: str,
    as_json: bool,
) -> None:
    """Export RECIPE: one step with explicit state, to be run by ONNX Runtime without PyTorch and without Python.

    With --format aoti or onnx,aoti it is compiled ahead of time too: model.pt2 and controls.pt2, which libtorch runs on
    machines of the family that the manifest names. Such a package is code: load none but your own.

    DIR gets manifest.json (rates, frames of a step, exact latencies, state with its first values, controls with their
    ranges, checksums, licence), model.onnx, and controls.onnx, which turns the values of the controls into what a step
    takes: a speaker changes without a new export. Each export is held against the graph before it is written.
    `astrape.runtime.portable` runs it with numpy and onnxruntime alone.

    With --precision float16 weights are rounded to it, which changes nothing for astrape-mini, and are made float32
    again where they are loaded.

    With --rate the step takes and gives audio at the rate of a host, and its latency is told in the host's frames.
    """
    from astrape.errors import ExportError
    from astrape.graph import load
    from astrape.graph.weights import given_or_shipped, weights_metadata
    from astrape.runtime.export import FORMATS
    from astrape.runtime.export import export as write

    names = [name.strip() for name in formats.split(",")]
    if "onnx" in names:
        require("export", "export")
    graph = load(recipe, weights=weights)
    if host_rate is not None:
        graph = graph.hosted(host_rate)
    source = given_or_shipped(weights, recipe)
    quanta = 1
    if chunk_ms is not None:
        period_ms = float(graph.period * 1000)
        quanta = round(chunk_ms / period_ms) if math.isfinite(chunk_ms) else 0
        if quanta < 1 or abs(quanta * period_ms - chunk_ms) > 1e-9 * chunk_ms:
            raise ExportError(f"--chunk must be a whole multiple of the quantum, {period_ms:g} ms, not {chunk_ms:g}")
    about = {} if source is None else weights_metadata(source)
    with progress(f"exporting {graph.name}") as tell:
        how: dict[str, Any] = {"quanta": quanta, "batch_size": batch, "formats": names, "precision": precision}
        made = write(graph, folder, **how, about=about, progress=tell)
    manifest = made.manifest
    if as_json:
        keys = ("recipe", "licence", "step_seconds", "outputs", *FORMATS, "files")
        print_json({key: manifest[key] for key in keys if key in manifest})
        return
    size = sum(entry["bytes"] for entry in made.files.values())
    click.echo(f"{folder}: {size / 1e6:.1f} MB, a step takes in {float(graph.period) * quanta * 1000:g} ms")
    for port in manifest["outputs"]:
        late = port["latency"]["host_ms"]
        differs = ", ".join(
            f"{manifest[form]['difference_db'][port['name']]:g} dB" + (f" ({form})" if len(names) > 1 else "")
            for form in names
        )
        click.echo(f"{port['name']}: {late:g} ms late at the host, {differs} from the graph")
