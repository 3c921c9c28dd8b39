"""Work over processes: items out, outcomes back as they come, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

__all__ = ["ProcessLost", "in_processes"]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

AHEAD = 4
"""Items that are given to each process before it asks."""


class ProcessLost(Exception):
    """A process ended on its own, for want of memory perhaps."""


def in_processes(
    begin: Callable[..., Callable[[Item], Outcome]], given: tuple[Any, ...], items: Sequence[Item], jobs: int
) -> Iterator[tuple[Item, Outcome]]:
    """Work on items in so many processes, which are started afresh.

    Args:
        begin: called once in each process, with ``given``; returns what works on an item. A function of a module.
        given: what it takes; pickled.
        items: what is worked on; pickled.
        jobs: processes.

    Yields:
        Items with their outcomes, in the order in which they are done.

    Raises:
        ProcessLost: when a process was killed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(begin, given)) as pool:
        waiting: dict[Future[Outcome], Item] = {}
        left = iter(items)
        try:
            while True:
                while len(waiting) < AHEAD * jobs and (item := next(left, None)) is not None:
                    waiting[pool.submit(_work_here, item)] = item
                if not waiting:
                    return
                finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool as error:
            raise ProcessLost from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_work: Callable[[Any], Any] | None = None
"""What this process works with, where it is one of several."""


def _begin(begin: Callable[..., Callable[[Any], Any]], given: tuple[Any, ...]) -> None:
    global _work
    # The parent is asked to stop, and stops these: a traceback from each would bury what it says.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work = begin(*given)


def _end_with_parent() -> None:
    """A parent that is killed leaves its processes waiting for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work_here(item: Any) -> Any:
    assert _work is not None
    return _work(item)
