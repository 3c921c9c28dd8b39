"""The job that makes what a cache is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from astrape.audio.atomic import check_space, left_behind, shown
from astrape.audio.downmix import MEAN
from astrape.audio.endings import named
from astrape.audio.places import Place
from astrape.corpus.utterances import Utterance
from astrape.errors import AstrapeError, told_as
from astrape.jobs import IN_PROCESS, Engine, Failed, Job, run_job
from astrape.progress import Progress
from astrape.training.caches.cache import Cache
from astrape.training.caches.files import StorageError, write_whole
from astrape.training.caches.makers import CacheItem, CacheJob, Maker
from astrape.training.caches.recording import read_header
from astrape.training.errors import CacheError

__all__ = ["Made", "make_cache", "make_items"]


HEADROOM = 1.02
"""Ratio of disk space to the bytes of a run: a file system keeps something for each file beside them."""


@dataclass(frozen=True)
class Made:
    """The result of a run.

    Attributes:
        what, folder: which cache.
        items: utterances, or speakers.
        made: of them, now.
        there: of them, before.
        failed: what could not be made or used, each with its reason.
        seconds: of audio that was worked on; 0 for speakers, of whom a few utterances are taken, and for recordings in
            a store, whose headers only workers look at.
        elapsed: wall-clock seconds.
        random: the front end's weights are drawn, not trained.
    """

    what: str
    folder: str
    items: int
    made: int
    there: int
    failed: tuple[Failed, ...]
    seconds: float
    elapsed: float
    random: bool

    def to_dict(self) -> dict[str, Any]:
        failed = [{"key": shown(one.key), "error": shown(one.error)} for one in self.failed]
        return asdict(self) | {"folder": shown(self.folder), "failed": failed}


def make_cache(
    job: CacheJob,
    utterances: Sequence[Utterance],
    *,
    limit: int = 0,
    engine: Engine = IN_PROCESS,
    corpus: Path | Place | None = None,
    microphone: str = "mic1",
    channel: str = MEAN,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Made:
    """Make what a cache is missing.

    What is there already stays, so a run that ended early goes on where it was. Every file appears whole or not at all.
    An utterance that cannot be read is left out and told at the end, and the others go on.

    Args:
        job: which cache, and of what.
        utterances: the corpus, the same on every machine.
        limit: take the first that many items of the corpus alone; 0: all.
        engine: what does the work; a worker takes one core, and what the front end or the teacher takes.
        corpus, microphone, channel: where the utterances are from, for the record.
        progress: called with seconds of audio done and in all; with items of speakers, and of recordings in a store.
        tell: called with what a user should know before the work begins.

    Raises:
        CacheError: for a cache that another recipe, weights or teacher made, and a disk that is too small or full.
        AstrapeError: for a front end or a teacher that cannot be loaded.
    """
    begin = time.monotonic()
    maker = job.open()
    cache = maker.prepare(corpus, microphone, channel)
    items = maker.items(utterances)
    items = items if limit == 0 else items[:limit]
    there = cache.holdings().complete
    missing = [item for item in items if item.key not in there]
    if tell is not None:
        tell(f"{shown(maker.folder)}: {maker.record.maker}: {len(missing)} of {len(items)} to make")
        if maker.record.random:
            tell("the front end's weights are random: give --wavlm CHECKPOINT (or --weights FILE) for trained ones")
    made, failed, seconds = make_items(job, maker, cache, missing, engine=engine, progress=progress, tell=tell)
    return Made(
        what=job.what,
        folder=str(maker.folder),
        items=len(items),
        made=made,
        there=len(items) - len(missing),
        failed=tuple(failed),
        seconds=seconds,
        elapsed=time.monotonic() - begin,
        random=maker.record.random,
    )


def make_items(
    job: CacheJob,
    maker: Maker,
    cache: Cache,
    items: Sequence[CacheItem],
    *,
    engine: Engine = IN_PROCESS,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[int, list[Failed], float]:
    """Make these items, whether they are there or not.

    Returns:
        How many were made, what failed, and the seconds of audio that were worked on.

    Raises:
        CacheError: for a disk that is too small or full.
    """
    for path in left_behind(cache.folder):
        path.unlink(missing_ok=True)
    unsized: list[Path | Place] = []
    failed: list[Failed] = []
    # To look at a header in a store is to fetch the recording, which the workers do.
    counted = cache.by_speaker or any(Place(item.utterances[0].path).path is None for item in items)
    if counted:
        lengths = dict.fromkeys((one.key for one in items), 1.0)
    else:
        lengths, failed = _lengths(items, unsized)
    if unsized and tell is not None:
        files = named(unsized)
        tell(f"{len(unsized)} headers do not say how long their files are, which are read to their ends: {files}")
    noted = cache.holdings().failed
    for one in failed:
        _mark(cache, one.key, one.error, noted)
    wanted = [item for item in items if item.key in lengths]
    with told_as(StorageError):
        hint = "free space, take part of the corpus with --limit, or name another disk with --cache"
        needed = 0.0 if counted else HEADROOM * sum(maker.size(lengths[item.key]) for item in wanted)
        check_space(cache.folder, needed, hint=hint)
    total, done, made = sum(lengths.values()), 0.0, 0
    work = Job(_begin, (job,), here=lambda: partial(_make, maker, cache))
    for done_one in run_job(work, wanted, engine):
        item, outcome = done_one.item, done_one.outcome or _Outcome(False, (done_one.fault or "",))
        if outcome.storage is not None:
            raise StorageError(outcome.storage)
        made += outcome.made
        failed.extend(Failed(item.key, text) for text in outcome.faults)
        _mark(cache, item.key, None if outcome.made else outcome.faults[0], noted)
        done += lengths[item.key]
        if progress is not None:
            progress(done, total)
    return made, failed, 0.0 if counted else done


def _mark(cache: Cache, key: str, reason: str | None, noted: set[str]) -> None:
    """Note why nothing could be made, so that nobody takes the cache for unfinished; or remove such a note."""
    if reason is not None:
        write_whole(cache.marker(key), (reason + "\n").encode("utf-8", "replace"))
    elif key in noted:
        Place(cache.marker(key)).remove()


@dataclass(frozen=True)
class _Outcome:
    made: bool
    faults: tuple[str, ...] = ()
    storage: str | None = None


def _make(maker: Maker, cache: Cache, item: CacheItem) -> _Outcome:
    try:
        return _Outcome(True, tuple(maker.make(cache, item)))
    except StorageError as error:
        return _Outcome(False, storage=str(error))
    except AstrapeError as error:
        return _Outcome(False, (str(error),))
    except MemoryError:
        return _Outcome(False, ("out of memory",))
    except Exception as error:
        # Teachers of others fail in whatever way, and one odd utterance must not lose the night.
        return _Outcome(False, (f"{type(error).__name__}: {error}",))


def _lengths(items: Sequence[CacheItem], unsized: list[Path | Place]) -> tuple[dict[str, float], list[Failed]]:
    """Seconds of audio of each item that can be read, by a look at the headers, and those that cannot.

    Whose header leaves its length open is added to ``unsized``.
    """
    lengths: dict[str, float] = {}
    failed: list[Failed] = []
    for item in items:
        try:
            header = read_header(path := item.utterances[0].path)
            lengths[item.key] = float(header.seconds)
            if header.unsized:
                unsized.append(path)
        except CacheError as error:
            failed.append(Failed(item.key, str(error)))
    return lengths, failed


def _begin(job: CacheJob) -> Callable[[CacheItem], _Outcome]:
    torch.set_num_threads(1)
    maker = job.open()
    cache = Cache(maker.folder, maker.record)
    return lambda item: _make(maker, cache, item)
