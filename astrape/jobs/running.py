"""The one loop that hands work to workers, whatever they are, and does again what a lost one had."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from astrape.jobs.job import RAY, Answer, Done, Engine, Job, JobError, Lost, Ready, Workers

__all__ = ["TRIES", "run_job"]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

AHEAD = 2
"""Items that a worker has: one that it works on, and one that spares it the wait for the next."""

TRIES = 3
"""Workers that may die of one item before it is left out, and one after the other before one has loaded."""


def run_job(job: Job[Item, Outcome], items: Iterable[Item], engine: Engine) -> Iterator[Done[Item, Outcome]]:
    """Do a job.

    Items are taken from ``items`` as workers come free, so that of a million a few a worker are held. A worker that
    ends on its own is replaced, and what it had is done again; an item that ended three of them is left out.

    Args:
        job: what is done.
        items: what it is done with; pickled, but for one local worker.
        engine: what does it.

    Yields:
        Every item once, with its outcome, in the order in which they are done.

    Raises:
        JobError: for an engine that cannot be had, and workers that end before they have loaded anything.
        Exception: what the job's functions raise, in whichever worker.
    """
    if engine.in_process:
        work = None
        for item in items:
            work = work or (job.here() if job.here is not None else job.begin(*job.given))
            yield Done(item, work(item))
        return
    count = min(engine.workers, len(items)) if isinstance(items, Sized) else engine.workers
    if count == 0:
        return
    workers = _opened(job, engine, count)
    try:
        yield from _Run(workers, iter(items)).outcomes(count)
    finally:
        workers.close()


def _opened(job: Job[Any, Any], engine: Engine, count: int) -> Workers:
    if engine.name == RAY:
        from astrape.jobs.on_ray import RayWorkers

        return RayWorkers(job.begin, job.given, count, engine.address)
    from astrape.jobs.local import LocalWorkers

    return LocalWorkers(job.begin, job.given)


class _Run:
    """A job under way: the items that each worker has, and those to do again."""

    def __init__(self, workers: Workers, left: Iterator[Any]) -> None:
        self.workers, self.left = workers, left
        self.again: deque[tuple[Any, int]] = deque()
        self.given: dict[int, dict[int, tuple[Any, int]]] = {}
        """Items by worker and ticket, in the order in which they were given, with the workers that each has ended."""
        self.loading: dict[int, int] = {}
        """By worker: how many in whose place it is ended before they had loaded. Those of a lost node end at once."""
        self.tickets = self.started = 0
        self.all_given = False

    def outcomes(self, count: int) -> Iterator[Done[Any, Any]]:
        for _ in range(count):
            self._start()
        while True:
            self._hand_out()
            if not any(self.given.values()) and not self.again and self.all_given:
                return
            for event in self.workers.events():
                if isinstance(event, Ready):
                    self._ready(event)
                elif isinstance(event, Answer):
                    item, _ = self.given[event.worker].pop(event.ticket)
                    self._goes_on()
                    if event.error is not None:
                        raise event.error
                    yield Done(item, event.outcome)
                else:
                    yield from self._lost(event)

    def _start(self, unready: int = 0) -> None:
        self.loading[self.started] = unready
        self.workers.start(self.started)
        self.started += 1

    def _ready(self, event: Ready) -> None:
        if event.error is not None:
            raise event.error
        del self.loading[event.worker]
        self.given[event.worker] = {}
        self._goes_on()

    def _goes_on(self) -> None:
        """Note that the work can be loaded and makes progress, whatever ended other workers while they loaded."""
        self.loading = dict.fromkeys(self.loading, 0)

    def _hand_out(self) -> None:
        """One each first, so that the last items are not two with one worker and none with another.

        What a lost worker had is done again first, and what may have ended it alone: its answer may have been lost with
        the worker, and the next item be to blame.
        """
        for depth in range(1, AHEAD + 1):
            for worker, has in self.given.items():
                if depth > 1 and (self.again or any(ended for _, ended in has.values())):
                    continue
                if len(has) < depth and (entry := self._next()) is not None:
                    has[self.tickets] = entry
                    self.workers.give(worker, self.tickets, entry[0])
                    self.tickets += 1

    def _next(self) -> tuple[Any, int] | None:
        if self.again:
            return self.again.popleft()
        if self.all_given:
            return None
        try:
            return next(self.left), 0
        except StopIteration:
            self.all_given = True
            return None

    def _lost(self, event: Lost) -> Iterator[Done[Any, Any]]:
        had = list(self.given.pop(event.worker, {}).values())
        unready = 0
        if event.worker in self.loading:
            unready = self.loading.pop(event.worker) + 1
            if unready >= TRIES:
                raise JobError(
                    f"{unready} workers in a row ended before they had loaded anything ({event.reason}); hint: "
                    f"give fewer with --jobs, for want of memory perhaps"
                )
        for place, (item, before) in enumerate(had):
            # Items are worked on in the order in which they were given: the first ended it, and the next had not begun.
            ended = before + (place == 0)
            if ended < TRIES:
                self.again.append((item, ended))
            else:
                yield Done(item, None, _left_out(event.reason))
        if self.again or not self.all_given:
            self._start(unready)


def _left_out(reason: str) -> str:
    return (
        f"ended its worker {TRIES} times, at last: {reason}; left out; hint: for want of memory perhaps: run the same "
        f"command again with fewer --jobs"
    )
