"""``astrape cache``: what training reads in place of running a front end and a teacher over and over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from astrape.commands.cache_options import CorpusOptions, MakerOptions, corpus_options, folder_options, maker_options
from astrape.commands.cache_pack import pack
from astrape.commands.console import RecipeName, command, json_option, note, print_json, progress, with_subcommands
from astrape.commands.engine_options import engine_options
from astrape.commands.findings import tell_failed
from astrape.training.names import KINDS

if TYPE_CHECKING:
    from astrape.jobs import Engine
    from astrape.training.caches import Made

__all__ = ["cache"]

INCOMPLETE = 1


@command(
    "cache",
    "astrape cache --what wavlm --data VCTK-Corpus-0.92 --wavlm wavlm-base-plus.safetensors\n"
    "astrape cache --what content --data VCTK-Corpus-0.92 --teacher-dir teachers\n"
    "astrape cache --what speakers --data VCTK-Corpus-0.92 --utts-per-speaker 8",
    interrupted="what was made is kept, and the same command goes on from there",
    short="Make a cache that training reads.",
)
@click.option("--what", type=click.Choice(KINDS), help="Which cache.  [required]")
@corpus_options
@folder_options
@click.option(
    "--recipe",
    default="astrape-vc",
    show_default=True,
    type=RecipeName(),
    metavar="RECIPE",
    help="Whose front end and teacher.",
)
@click.option("--features", metavar="OUTPUT", help="The output that wavlm stores.  [default: training.features]")
@maker_options
@click.option("--limit", default=0, show_default=True, type=click.IntRange(0), help="The first N items; 0: all.")
@click.option(
    "--utts-per-speaker",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Utterances that a speaker's embedding is of.",
)
@click.option("--per-utterance", is_flag=True, help="Of speakers, one embedding for each utterance.")
@click.option(
    "--rate", type=click.IntRange(8000, 768_000), metavar="HZ", help="Of audio.  [default: the recipe's microphone's]"
)
@engine_options("one core")
@json_option
@click.pass_context
def cache(
    context: click.Context,
    what: str | None,
    corpus: CorpusOptions,
    folders: dict[str, str | None],
    recipe: str,
    features: str | None,
    maker: MakerOptions,
    limit: int,
    utts_per_speaker: int,
    per_utterance: bool,
    rate: int | None,
    engine: Engine,
    as_json: bool,
) -> None:
    """Make one of the caches that training reads, or what is missing of it.

    wavlm: features of the recipe's front end, from the blocks that stream. content: what the teacher makes of each
    utterance, with its codes. speakers: one embedding for each speaker, the mean over windows of several utterances.
    audio: the recordings at the recipe's rate, decoded once. pitch: that of recordings without a table of it.

    A run that is killed loses nothing that is written, and the same command goes on from there. A cache that another
    recipe, other weights or another teacher made is refused. What cannot be read is left out and told at the end, and
    the exit code is 1 then.
    """
    if context.invoked_subcommand is not None:
        return
    if what is None:
        raise click.UsageError(f"Missing option '--what'. Choose from: {', '.join(KINDS)}")
    from astrape.audio.atomic import shown
    from astrape.audio.endings import named
    from astrape.corpus.layouts import passed_over, read_corpus
    from astrape.training.caches import make_cache

    job = maker.job(
        engine,
        what=what,
        root=corpus.root.absolute(),
        folder=folders[what],
        recipe=recipe,
        features=features,
        utts_per_speaker=utts_per_speaker,
        per_utterance=per_utterance,
        rate=rate,
    )
    source, microphone, channel = corpus.source()
    utterances = read_corpus(source, microphone, channel)
    others = passed_over(source)
    if others:
        note(f"{source}: {len(others)} files are not audio by their endings: {named(others)}")
    with progress(what) as bar:
        done = make_cache(
            job,
            utterances,
            limit=limit,
            engine=engine,
            corpus=source,
            microphone=microphone,
            channel=channel,
            progress=bar,
            tell=note,
        )
    tell_failed(done.failed)
    if as_json:
        print_json(done.to_dict() | {"passed_over": [shown(path) for path in others]})
    else:
        click.echo(_summary(done))
    if done.failed:
        context.exit(INCOMPLETE)


cache = with_subcommands(cache, pack)


def _summary(done: Made) -> str:
    from astrape.audio.atomic import shown

    what = "speakers" if done.what == "speakers" else "utterances"
    speed = f", {done.seconds / done.elapsed:.1f} times real time" if done.seconds and done.elapsed else ""
    return (
        f"{shown(done.folder)}: {done.made} of {done.items} {what} made, {done.there} were there, "
        f"{len(done.failed)} faults, {done.elapsed:.1f} s{speed}"
    )
