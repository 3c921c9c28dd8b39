"""``astrape graph``: a picture of a compiled recipe."""

from __future__ import annotations

from pathlib import Path

import click

from astrape.commands.console import RecipeName, command
from astrape.commands.place_option import LocalPath

__all__ = ["graph"]


@command("graph", "astrape graph voice-changer -o voice-changer.svg", short="Draw a compiled recipe.")
@click.argument("recipe", type=RecipeName())
@click.option(
    "-o",
    "--output",
    required=True,
    type=LocalPath(),
    metavar="FILE",
    help="Where to; .svg, .png or .pdf, or .dot for Graphviz text.",
)
def graph(recipe: str, output: Path) -> None:
    """Draw RECIPE as it was compiled: rates on the edges, inserted delays and feedback marked."""
    from astrape.audio.atomic import atomic_path
    from astrape.graph import load
    from astrape.graph.report.drawing import save_graph_picture
    from astrape.graph.report.figure import check_ending

    if output.suffix != ".dot":
        check_ending(output)
    compiled = load(recipe)
    with atomic_path(output) as temporary:
        save_graph_picture(compiled, temporary)
    click.echo(f"{output}: {len(compiled.nodes)} blocks")
