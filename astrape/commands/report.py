"""``astrape report``: where a recipe's latency comes from."""

from __future__ import annotations

from pathlib import Path

import click

from astrape.commands.console import RecipeName, command, json_option, print_json, print_table, progress
from astrape.commands.place_option import LocalPath
from astrape.errors import AstrapeError

__all__ = ["report"]


@command(
    "report",
    "astrape report voice-changer --measure --plot latency.png",
    short="Report a recipe's latency, block by block.",
)
@click.argument("recipe", type=RecipeName())
@click.option("--measure", is_flag=True, help="Measure every declared number too; fails when one disagrees.")
@click.option("--plot", type=LocalPath(), help="Draw it to FILE (.png, .svg or .pdf).", metavar="FILE")
@json_option
def report(recipe: str, measure: bool, plot: Path | None, as_json: bool) -> None:
    """Report the latency of RECIPE, block by block."""
    from astrape.audio.atomic import atomic_path
    from astrape.graph import load
    from astrape.graph.report.figure import check_ending

    if plot is not None:
        check_ending(plot)
    graph = load(recipe)
    with progress("measuring") as tell:
        tell(0, None)
        found = graph.report(measure=measure)
    if plot is not None:
        with atomic_path(plot) as temporary:
            found.save_plot(temporary)
    if as_json:
        print_json(found.to_dict())
    else:
        print_table(found.table(), found.table().width)
    if found.disagreements:
        raise AstrapeError(f"'{graph.name}': {len(found.disagreements)} declared numbers differ from the measured ones")
