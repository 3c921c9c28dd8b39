"""``astrape held-out``: real speakers that no training here hears, and the conversions to evaluate on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrape.commands.console import command, json_option, narrator, print_json
from astrape.commands.place_option import LocalPath, PlaceType

if TYPE_CHECKING:
    from astrape.audio.places import Place

__all__ = ["held_out"]


@command(
    "held-out",
    "astrape held-out --work held-out\nastrape evaluate --pairs held-out/set/real.csv -o held-out/run",
    short="List conversions of speakers that no training hears.",
)
@click.option(
    "--work",
    type=LocalPath(file_okay=False),
    default=Path("held-out"),
    show_default=True,
    help="Folder for packages, and for the recordings and tables in its folder `set`.",
)
@click.option(
    "--corpus",
    type=PlaceType(),
    metavar="FOLDER",
    help="A corpus of parallel sets, also by URL: its held-out voices are the synthetic targets.",
)
@json_option
def held_out(work: Path, corpus: Path | Place | None, as_json: bool) -> None:
    """List conversions between speakers that no training here hears.

    Recordings come from Debian packages, fetched and unpacked below WORK without being installed: English of four
    speakers to convert, and targets of seven, in several languages. They are of licences that nothing shipped may be
    trained on. Writes WORK/set/real.csv, and with a corpus WORK/set/synthetic.csv.
    """
    from astrape.training.held_out import write_held_out

    found = write_held_out(work.absolute(), work.absolute() / "set", narrator(as_json), corpus)
    if as_json:
        print_json(found)
