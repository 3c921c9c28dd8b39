"""``astrape cache pack``: caches into shards, for trainings that read from a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrape.commands.cache_options import CorpusOptions, corpus_options, folder_options
from astrape.commands.console import command, json_option, print_json, progress
from astrape.commands.engine_options import engine_options
from astrape.commands.findings import print_findings, print_repair
from astrape.training.names import KINDS

if TYPE_CHECKING:
    from astrape.audio.places import Place
    from astrape.corpus.utterances import Utterance
    from astrape.jobs import Engine
    from astrape.training.caches import Cache

__all__ = ["check_packed", "pack"]

FAULTY = 1


@command(
    "pack",
    "astrape cache pack packs/vctk --cache cache --data VCTK-Corpus-0.92\n"
    "astrape cache pack s3://bucket/vctk --what wavlm,content,speakers --jobs 4\n"
    "astrape train-encoder --pack s3://bucket/vctk",
    interrupted="shards that were written are kept, and the same command goes on from there",
    short="Pack caches into shards, in a folder or a store.",
)
@click.argument("place", metavar="PLACE")
@corpus_options
@folder_options
@click.option("--what", multiple=True, metavar="NAME,...", help=f"Of {', '.join(KINDS)}.  [default: all there are]")
@click.option(
    "--unseen",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the speakers that training never hears, as the trainers have it.",
)
@click.option(
    "--shard-size", default=256.0, show_default=True, type=click.FloatRange(0.001), metavar="MB", help="Of a shard."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the order.")
@engine_options("one core and a shard's size")
@json_option
def pack(
    place: str,
    corpus: CorpusOptions,
    folders: dict[str, str | None],
    what: tuple[str, ...],
    unseen: float,
    shard_size: float,
    seed: int,
    engine: Engine,
    as_json: bool,
) -> None:
    """Pack caches into tar files as WebDataset has them, for `--pack` of the trainers.

    PLACE is a folder or a URL that fsspec knows: s3://bucket/name, gs://, memory://. Utterances are mixed over the
    shards, and the speakers that training never hears have shards of their own. The same caches give the same bytes.

    Of a corpus with parallel sets, the renderings of a set stay in one shard, with the tables beside them.

    Shards that are there whole stay, so a run that ended early goes on where it was. A place that holds another pack is
    refused.
    """
    from astrape.audio.atomic import shown_bytes
    from astrape.audio.places import Place
    from astrape.corpus.splits import split_corpus
    from astrape.training.caches import make_pack

    caches = _chosen(corpus.root, [one.strip() for group in what for one in group.split(",") if one.strip()], folders)
    # The trainers' split, whose seed is 0 whatever theirs is.
    split = split_corpus(_utterances(caches, corpus), unseen, 0)
    with progress("packing") as bar:
        done = make_pack(
            caches,
            split,
            Place(place),
            shard_bytes=round(shard_size * 1e6),
            seed=seed,
            engine=engine,
            progress=bar,
        )
    if as_json:
        print_json(done.to_dict())
        return
    left = f", {done.left_out} left out of which a cache could not be made" if done.left_out else ""
    click.echo(
        f"{done.place}: {done.utterances} utterances in {done.shards} shards, {done.there} of them were there, "
        f"{shown_bytes(done.bytes)}; {done.unseen} of unseen speakers{left}; {done.elapsed:.1f} s"
    )


def check_packed(
    where: str,
    corpus: CorpusOptions,
    folders: dict[str, str | None],
    repair: bool,
    reads: int,
    engine: Engine,
    as_json: bool,
) -> int:
    """Read a pack, and pack damaged shards again where asked; the exit code."""
    from astrape.audio.atomic import shown
    from astrape.audio.places import Place
    from astrape.training.caches import check_pack, pack_kinds, repair_pack

    place = Place(where)
    with progress(f"reading {place.name}") as bar:
        found = check_pack(place, reads=reads, engine=engine, progress=bar)
    result, left = found.to_dict(), len(found.findings)
    if not as_json:
        listed = print_findings(found.findings)
        beside = f"; {found.strangers} files not of the pack" if found.strangers else ""
        click.echo(f"{shown(where)}: {found.items} utterances in {found.elapsed:.1f} s: {listed}{beside}")
    if repair and found.findings:
        caches = _chosen(corpus.root, pack_kinds(place), folders)
        utterances = _utterances(caches, corpus)
        with progress(f"repairing {place.name}") as bar:
            made, failed = repair_pack(place, found.findings, caches, utterances, engine=engine, progress=bar)
        result |= print_repair(place, made, failed, as_json)
        left = len(failed)
    if as_json:
        print_json([result])
    return FAULTY if left else 0


def _utterances(caches: list[Cache], corpus: CorpusOptions) -> list[Utterance]:
    """The corpus that caches are of: the one that is named, or where they say that it was."""
    from astrape.corpus.layouts import read_corpus

    options = next((cache.record.options for cache in caches if "data" in cache.record.options), {})
    return read_corpus(*corpus.source(options))


def _chosen(root: Path | Place, wanted: list[str], named: dict[str, str | None]) -> list[Cache]:
    from astrape.audio.places import joined
    from astrape.training.caches import Cache, find_caches
    from astrape.training.errors import CacheError

    for kind in wanted:
        if kind not in KINDS:
            raise CacheError(f"--what {kind}: a pack is of {', '.join(KINDS)}")
    found = [Cache(folder) for folder in find_caches(root.absolute())]
    chosen = []
    for kind in KINDS:
        folder = named[kind]
        own = [cache for cache in found if cache.what == kind]
        if folder is not None:
            own = [Cache(joined(root.absolute(), folder))]
        if wanted and kind not in wanted:
            continue
        if len(own) > 1:
            names = ", ".join(cache.folder.name for cache in own)
            raise CacheError(f"{root}: holds {len(own)} caches of {kind} ({names}): name one with --{kind}-dir")
        if wanted and not own:
            raise CacheError(f"{root}: holds no cache of {kind}: make it with `astrape cache --what {kind}`")
        chosen += own
    if not chosen:
        raise CacheError(f"{root}: holds no cache to pack: make one with `astrape cache --what wavlm`")
    return chosen
