"""Jobs whose items take no time: they travel in batches, of which a worker does several items at once, in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from astrape.jobs.job import Done, Engine, Job
from astrape.jobs.running import run_job

__all__ = ["run_batches"]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def run_batches(
    job: Job[Item, Outcome], items: Sequence[Item], engine: Engine, *, size: int, threads: int = 1
) -> Iterator[Done[Item, Outcome]]:
    """Do a job as :func:`~astrape.jobs.run_job` does, many items at a time.

    Args:
        job, items, engine: as for ``run_job``.
        size: items of a batch. One that ended its worker again and again is done again item by item, so that the one to
            blame is named.
        threads: items that a worker does at a time.

    Yields:
        Every item once, with its outcome, a batch in the order of its items.

    Raises:
        JobError, Exception: as ``run_job``.
    """
    here = None if job.here is None else partial(_several_here, job.here, threads)
    batched: Job[tuple[Item, ...], list[Outcome]] = Job(_begin, (job.begin, job.given, threads), here=here)
    alone: list[Item] = []
    for done in run_job(batched, [tuple(items[at : at + size]) for at in range(0, len(items), size)], engine):
        if done.outcome is None:
            alone += done.item
        else:
            yield from (Done(item, outcome) for item, outcome in zip(done.item, done.outcome, strict=True))
    yield from run_job(job, alone, engine)


def _begin(
    begin: Callable[..., Callable[[Any], Any]], given: tuple[Any, ...], threads: int
) -> Callable[[tuple[Any, ...]], list[Any]]:
    return _several(begin(*given), threads)


def _several_here(here: Callable[[], Callable[[Any], Any]], threads: int) -> Callable[[tuple[Any, ...]], list[Any]]:
    return _several(here(), threads)


def _several(work: Callable[[Any], Any], threads: int) -> Callable[[tuple[Any, ...]], list[Any]]:
    if threads == 1:
        return lambda batch: [work(item) for item in batch]
    pool = ThreadPoolExecutor(threads)
    return lambda batch: list(pool.map(work, batch))
