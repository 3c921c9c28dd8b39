"""``astrape import-checkpoint``: networks that the original system trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import command, json_option, print_json, progress, warn
from astrape.commands.place_option import LocalPath

if TYPE_CHECKING:
    from astrape.voice.checkpoint.importing import Imported

__all__ = ["import_checkpoint"]

FILE = LocalPath()


@command(
    "import-checkpoint",
    "astrape import-checkpoint --encoder encoder.pt --decoder decoder.pt -o imported",
    short="Turn the original's checkpoints into a recipe.",
)
@click.option("--encoder", type=FILE, metavar="FILE", help="The encoder's checkpoint.")
@click.option("--decoder", type=FILE, metavar="FILE", help="The decoder's checkpoint.")
@click.option("-o", "--output", "--out", required=True, type=FILE, metavar="DIR", help="Folder to write to.")
@click.option("--wavlm", type=FILE, metavar="FILE", help="WavLM's weights, published or of `wavlm calibrate`.")
@click.option("--from-features", is_flag=True, help="Take WavLM's features (512 at 200 Hz) and not a microphone.")
@json_option
def import_checkpoint(
    encoder: Path | None, decoder: Path | None, output: Path, wavlm: Path | None, from_features: bool, as_json: bool
) -> None:
    """Turn checkpoints of the original system into DIR/recipe.yaml and DIR/weights.safetensors.

    Either file, or both. With an encoder the recipe has the outputs content and codes, with a decoder wav; with both,
    DIR/from-codes.yaml makes sound of stored codes, with the same weights. What comes out is what the original computes
    offline, to 1e-4. Files are read without running anything in them; tensors that
    are missing, unknown or of another shape are named.
    """
    if encoder is None and decoder is None:
        raise click.UsageError("give --encoder FILE, --decoder FILE, or both")
    if encoder is None and (wavlm is not None or from_features):
        raise click.UsageError("--wavlm and --from-features go with --encoder")
    if wavlm is not None and from_features:
        raise click.UsageError("--wavlm is for a microphone, and --from-features takes none")
    from astrape.voice.checkpoint.importing import import_checkpoints, save_imported

    with progress("importing") as tell:
        tell(0, None)
        imported = import_checkpoints(encoder, decoder, wavlm=wavlm, from_features=from_features)
        recipe, weights = save_imported(imported, output)
    for note in imported.notes:
        warn(note)
    described = _described(imported, recipe, weights)
    if as_json:
        print_json(described)
        return
    for file, settings in imported.assumed.items():
        listed = ", ".join(f"{name} {value}" for name, value in settings.items())
        click.echo(f"{file}: assumed, since the file does not say: {listed}")
    for file, names in imported.skipped.items():
        parts = sorted({name.split(".")[0] for name in names})
        click.echo(
            f"{file}: {len(names)} tensors left out, which only training needs or which follow from others: "
            f"{', '.join(parts)}"
        )
    for what in ("inputs", "outputs"):
        streams = ", ".join(f"{name} {s['channels']} @ {s['rate']}" for name, s in described[what].items())
        click.echo(f"{what}: {streams}")
    click.echo(f"{described['parameters']:,} parameters, host latency {described['host_ms']:.1f} ms")
    written = [described["recipe"], described["from_codes"], described["weights"]]
    click.echo(", ".join(path for path in written if path is not None))


def _described(imported: Imported, recipe: Path, weights: Path) -> dict[str, Any]:
    from astrape.voice.checkpoint.importing import FROM_CODES

    graph = imported.graph
    streams = {
        what: {name: {"rate": str(stream.rate), "channels": stream.channels} for name, stream in ports.items()}
        for what, ports in (("inputs", graph.inputs), ("outputs", graph.outputs))
    }
    return {
        "recipe": str(recipe),
        "weights": str(weights),
        "from_codes": None if imported.from_codes is None else str(recipe.with_name(FROM_CODES)),
        **streams,
        "parameters": sum(parameter.numel() for parameter in graph.parameters()),
        "host_ms": float(graph.host_latency * 1000),
        "assumed": imported.assumed,
        "skipped": imported.skipped,
        "notes": imported.notes,
    }
