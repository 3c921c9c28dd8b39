"""Reading every file of a cache, to find the damaged and the missing ones, and making those again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from astrape.audio.atomic import left_behind, shown
from astrape.audio.places import Place
from astrape.corpus.utterances import Utterance, speakers_of
from astrape.errors import AstrapeError
from astrape.jobs import IN_PROCESS, Engine, Failed, Finding, Job, run_batches
from astrape.progress import Progress
from astrape.training.caches.cache import Cache
from astrape.training.caches.front import FRONT_WEIGHTS, front_state
from astrape.training.caches.makers import CacheItem, CacheJob, job_of
from astrape.training.caches.making import make_items
from astrape.training.caches.record import hash_of_state
from astrape.training.caches.recording import read_header
from astrape.training.errors import CacheError

__all__ = ["BATCH", "Checked", "check_cache", "repair_cache"]

BATCH = 64
"""Files that a worker is given to look at."""


@dataclass(frozen=True)
class Checked:
    """The result of a check.

    Attributes:
        what, folder: which cache.
        maker: who made it.
        items: utterances or speakers that were looked at.
        findings: what is wrong.
        strangers: files of no utterance of the corpus, which do no harm.
        elapsed: wall-clock seconds.
    """

    what: str
    folder: str
    maker: str
    items: int
    findings: tuple[Finding, ...]
    strangers: int
    elapsed: float

    def to_dict(self) -> dict[str, Any]:
        findings = [
            {
                "path": shown(one.path),
                "kind": one.kind,
                "message": shown(one.message),
                "key": None if one.key is None else shown(one.key),
            }
            for one in self.findings
        ]
        return asdict(self) | {"folder": shown(self.folder), "findings": findings}


def check_cache(
    cache: Cache,
    utterances: Sequence[Utterance] | None,
    *,
    limit: int = 0,
    reads: int = 1,
    engine: Engine = IN_PROCESS,
    progress: Progress | None = None,
) -> Checked:
    """Read all files of a cache.

    Args:
        cache: which.
        utterances: the corpus, from which it is known what should be there and how long it is; ``None``: what is in the
            folder is read, and nothing can be missing.
        limit: the first that many utterances, or speakers, should be there; 0: all.
        reads: files that each worker reads at a time.
        engine: what does the work.
        progress: called with items done and in all.
    """
    begin = time.monotonic()
    held = cache.holdings().begun
    sources: dict[str, Utterance | None] = dict.fromkeys(sorted(held))
    if utterances is not None:
        due = _due(cache, utterances, limit)
        sources = (
            due if limit == 0 else due | {key: one for key, one in _due(cache, utterances, 0).items() if key in held}
        )
    found: dict[str, Finding] = {}
    job = Job(_begin, (cache.folder,), here=lambda: partial(_look, cache))
    for count, done in enumerate(run_batches(job, list(sources.items()), engine, size=BATCH, threads=reads), 1):
        key, outcome = done.item[0], done.outcome
        if done.fault is not None:
            outcome = Finding(str(cache.folder / key), "unreadable", done.fault, key)
        if outcome is not None:
            found[key] = outcome
        if progress is not None:
            progress(count, len(sources))
    findings = [*_beside(cache), *(found[key] for key in sources if key in found)]
    strangers = len(held - set(_due(cache, utterances, 0))) if utterances is not None else 0
    return Checked(
        what=cache.what,
        folder=str(cache.folder),
        maker=cache.record.maker,
        items=len(sources),
        findings=tuple(findings),
        strangers=strangers,
        elapsed=time.monotonic() - begin,
    )


def repair_cache(
    cache: Cache,
    findings: Iterable[Finding],
    utterances: Sequence[Utterance],
    given: CacheJob,
    *,
    engine: Engine = IN_PROCESS,
    progress: Progress | None = None,
) -> tuple[int, list[Failed]]:
    """Make again what a check found damaged or missing, and remove temporaries that were left behind.

    Args:
        cache: which.
        findings: of :func:`check_cache`.
        utterances: the corpus.
        given: weights, teacher and device, where the cache's own record does not lead to them.
        engine, progress: as for :func:`~astrape.training.caches.making.make_cache`.

    Returns:
        How many items were made, and what could not be, with reasons.

    Raises:
        CacheError: for a maker that is not the one of the cache, and a disk that is full.
        AstrapeError: for a front end or a teacher that cannot be loaded.
    """
    failed: list[Failed] = []
    wanted: list[str] = []
    for finding in findings:
        if finding.kind == "temporary":
            Place(finding.path).remove()
        elif finding.key is None:
            failed.append(
                Failed(finding.path, f"{finding.message}: put it back, or remove the folder and make it anew")
            )
        elif finding.key not in wanted:
            wanted.append(finding.key)
    if not wanted:
        return 0, failed
    job = job_of(cache.folder, given)
    maker = job.open()
    opened = Cache(cache.folder, maker.record)
    items = {item.key: item for item in maker.items(utterances)}
    chosen: list[CacheItem] = []
    for key in wanted:
        if key not in items:
            failed.append(Failed(key, "is not in the corpus: remove its file, or name its corpus with --data"))
            continue
        # Nobody is to take a damaged file for a good one, should its audio be gone.
        for stored in cache.stored(key).values():
            Place(stored.path).remove()
        chosen.append(items[key])
    made, more, _ = make_items(job, maker, opened, chosen, engine=engine, progress=progress)
    return made, failed + more


def _due(cache: Cache, utterances: Sequence[Utterance], limit: int) -> dict[str, Utterance | None]:
    """The keys that should be in a cache, with the utterance whose length each has."""
    if cache.by_speaker:
        names = list(speakers_of(utterances))
        return dict.fromkeys(names[:limit] if limit else names)
    due = [one for one in utterances if cache.wants(one)]
    return {one.key: one for one in (due[:limit] if limit else due)}


def _begin(folder: Path | Place) -> Callable[[tuple[str, Utterance | None]], Finding | None]:
    return partial(_look, Cache(folder))


def _look(cache: Cache, item: tuple[str, Utterance | None]) -> Finding | None:
    key, utterance = item
    frames = None
    if utterance is not None:
        try:
            frames = cache.expected(read_header(utterance.path))
        except CacheError as error:
            if not cache.has(key):
                # Nothing could be made of it: that is what is wrong.
                why = str(error).removeprefix(f"{shown(utterance.path)}: ")
                return Finding(str(utterance.path), "missing", f"has no cache: its audio {why}", key)
    found = cache.fault(key, frames)
    if found is None:
        return None
    path, fault = found
    reason = cache.reason(key) if fault.kind == "missing" else None
    return Finding(str(path), fault.kind, str(fault) + (f", since {reason}" if reason else ""), key)


def _beside(cache: Cache) -> Iterator[Finding]:
    """Faults in the folder, but for those of the arrays."""
    for path in left_behind(cache.folder):
        yield Finding(str(path), "temporary", "was left behind by a run that was killed", None)
    weights = cache.record.identity.get("weights")
    if cache.what != "wavlm" or weights == hash_of_state({}):
        return
    front = cache.folder / FRONT_WEIGHTS
    try:
        if hash_of_state(front_state(cache.folder)) != weights:
            yield Finding(str(front), "weights", "holds other weights than the cache was made with", None)
    except AstrapeError as error:
        yield Finding(str(front), "weights", str(error), None)
