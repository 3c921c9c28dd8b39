"""``astrape check-cache``: every file of the caches, read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.cache_options import CorpusOptions, MakerOptions, corpus_options, folder_options, maker_options
from astrape.commands.cache_pack import check_packed
from astrape.commands.console import RecipeName, command, json_option, note, print_json, progress
from astrape.commands.corpus import check_made
from astrape.commands.engine_options import engine_options
from astrape.commands.findings import print_findings, print_repair
from astrape.training.errors import CacheError
from astrape.training.names import KINDS

if TYPE_CHECKING:
    from astrape.audio.places import Place
    from astrape.corpus.utterances import Utterance
    from astrape.jobs import Engine
    from astrape.training.caches import Cache, Checked

__all__ = ["check_caches"]

FAULTY = 1


@command(
    "check-cache",
    "astrape check-cache --cache cache --data VCTK-Corpus-0.92\n"
    "astrape check-cache --wavlm-only --wavlm-dir wavlm_L4_200hz --repair\n"
    "astrape check-cache --cache corpus --repair\n"
    "astrape check-cache --pack s3://bucket/vctk --repair --cache cache\n"
    "astrape check-cache --cache s3://bucket/cache --data s3://bucket/vctk --repair",
    short="Read all files of the caches; find what is damaged.",
)
@corpus_options
@click.option("--wavlm-only", is_flag=True, help="Look at features alone.")
@click.option("--speakers-only", is_flag=True, help="Look at speakers alone.")
@click.option("--content-only", is_flag=True, help="Look at content alone.")
@click.option("--audio-only", is_flag=True, help="Look at decoded recordings alone.")
@click.option("--pitch-only", is_flag=True, help="Look at pitch alone.")
@folder_options
@click.option(
    "--pack",
    metavar="PLACE",
    help="A pack, a folder or a URL, in place of caches; --repair packs damaged shards again from --cache.",
)
@click.option("--repair", is_flag=True, help="Make what is damaged or missing again.")
@click.option(
    "--recipe",
    type=RecipeName(),
    metavar="RECIPE",
    help="Where it is now, if it has moved since.  [default: the cache's]",
)
@maker_options
@click.option("--limit", default=0, show_default=True, type=click.IntRange(0), help="The first N items; 0: all.")
@click.option(
    "--reads", default=2, show_default=True, type=click.IntRange(1, 256), help="Files that a worker reads at a time."
)
@engine_options("one core")
@json_option
@click.pass_context
def check_caches(
    context: click.Context,
    corpus: CorpusOptions,
    wavlm_only: bool,
    speakers_only: bool,
    content_only: bool,
    audio_only: bool,
    pitch_only: bool,
    folders: dict[str, str | None],
    pack: str | None,
    repair: bool,
    recipe: str | None,
    maker: MakerOptions,
    limit: int,
    reads: int,
    engine: Engine,
    as_json: bool,
) -> None:
    """Read every file of the caches and list what is damaged or missing.

    Found are files that are missing, empty, truncated, of another shape or length than their audio makes, with values
    that are not finite, and what a killed run left behind. With --repair they are made again, by what made the cache.

    The corpus is --data, or else where the cache says that it was made of. The exit code is 1 where anything is wrong,
    and with --repair where anything still is.

    A folder that `astrape corpus make` filled is checked alike: name it with --cache. So is a pack, with --pack: shards
    that are missing or cut short, arrays that are not what was written, utterances that the index has elsewhere.
    """
    from astrape.corpus.record import is_corpus
    from astrape.training.caches import check_cache, repair_cache

    if pack is not None:
        context.exit(check_packed(pack, corpus, folders, repair, reads, engine, as_json))
    if is_corpus(corpus.root):
        context.exit(check_made(corpus.root.absolute(), repair, reads, engine, as_json))
    only = dict(zip(KINDS, (wavlm_only, speakers_only, content_only, audio_only, pitch_only), strict=True))
    chosen = [what for what in KINDS if only[what] or not any(only.values())]
    caches = _chosen(corpus.root, chosen, folders)
    given = maker.job(engine, what="wavlm", root=corpus.root.absolute(), recipe=recipe)
    corpora = _Corpora(corpus, repair)
    results: list[dict[str, Any]] = []
    wrong = False
    for cache in caches:
        utterances = corpora.of(cache)
        with progress(f"reading {cache.folder.name}") as bar:
            found = check_cache(cache, utterances, limit=limit, reads=reads, engine=engine, progress=bar)
        result = found.to_dict()
        left = len(found.findings)
        if not as_json:
            _print(found)
        if repair and found.findings:
            assert utterances is not None
            with progress(f"repairing {cache.folder.name}") as bar:
                made, failed = repair_cache(cache, found.findings, utterances, given, engine=engine, progress=bar)
            result |= print_repair(cache.folder, made, failed, as_json)
            left = len(failed)
        wrong = wrong or left > 0
        results.append(result)
    if as_json:
        print_json(results)
    if wrong:
        context.exit(FAULTY)


class _Corpora:
    """The corpus of each cache, read once."""

    def __init__(self, options: CorpusOptions, needed: bool) -> None:
        self.options, self.needed = options, needed
        self.read: dict[tuple[Path | Place, str, str], list[Utterance]] = {}

    def of(self, cache: Cache) -> list[Utterance] | None:
        from astrape.audio.atomic import shown
        from astrape.corpus.errors import CorpusError
        from astrape.corpus.layouts import read_corpus

        try:
            source = self.options.source(cache.record.options)
        except CorpusError:
            if self.needed:
                raise
            note(f"{shown(cache.folder)}: no corpus is known, so nothing can be missing (--data)")
            return None
        if source not in self.read:
            self.read[source] = read_corpus(*source)
        return self.read[source]


def _chosen(root: Path | Place, kinds: list[str], named: dict[str, str | None]) -> list[Cache]:
    from astrape.audio.atomic import shown
    from astrape.audio.places import joined
    from astrape.training.caches import Cache, find_caches

    found = [Cache(folder) for folder in find_caches(root)]
    chosen: list[Cache] = []
    for what in kinds:
        folder = named[what]
        if folder is None:
            chosen += [cache for cache in found if cache.what == what]
            continue
        cache = Cache(joined(root, folder))
        if cache.what != what:
            raise CacheError(f"{shown(cache.folder)}: is a cache of {cache.what}: name it with --{cache.what}-dir")
        chosen.append(cache)
    if not chosen:
        raise CacheError(
            f"{shown(root)}: holds no cache of {' or '.join(kinds)}: name the folder of caches with --cache, or make "
            f"one with `astrape cache --what {kinds[0]}`"
        )
    return chosen


def _print(found: Checked) -> None:
    from astrape.audio.atomic import shown

    listed = print_findings(found.findings)
    what = "speakers" if found.what == "speakers" else "utterances"
    beside = f"; {found.strangers} not of this corpus" if found.strangers else ""
    click.echo(f"{shown(found.folder)}: {found.items} {what} in {found.elapsed:.1f} s: {listed}{beside}")
