"""Workers that are processes of this machine, started afresh; none is left behind."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from astrape.jobs.job import Answer, Event, Lost, Ready, answer_of, portable

__all__ = ["LocalWorkers"]

AFRESH: Any = multiprocessing.get_context("spawn")
"""Start method of workers: they share nothing with this process, no lock that it holds, only what they are given."""

GRACE = 10.0
"""Seconds in which a worker that is told to stop takes its unfinished file away, before it is ended."""


class LocalWorkers:
    """Processes, with a pipe to each.

    Args:
        begin, given: what a worker loads; see :class:`~astrape.jobs.job.Job`.
    """

    def __init__(self, begin: Callable[..., Callable[[Any], Any]], given: tuple[Any, ...]) -> None:
        self._begin, self._given = begin, given
        self._workers: dict[int, tuple[multiprocessing.process.BaseProcess, Connection]] = {}

    def start(self, worker: int) -> None:
        ours, theirs = AFRESH.Pipe()
        arguments = (theirs, self._begin, self._given)
        process = AFRESH.Process(target=_worker, args=arguments, name=f"worker {worker}", daemon=True)
        with _uninterrupted():
            process.start()
            theirs.close()
            self._workers[worker] = process, ours

    def give(self, worker: int, ticket: int, item: Any) -> None:
        try:
            self._workers[worker][1].send((ticket, item))
        except (BrokenPipeError, ConnectionResetError):
            # It has ended: that is told with the next events.
            return

    def events(self) -> Sequence[Event]:
        pipes = {pipe: worker for worker, (_, pipe) in self._workers.items()}
        found: list[Event] = []
        for pipe in wait(list(pipes)):
            assert isinstance(pipe, Connection)
            worker = pipes[pipe]
            try:
                while pipe.poll():
                    ticket, outcome, error = pipe.recv()
                    found.append(Ready(worker, error) if ticket is None else Answer(worker, ticket, outcome, error))
            except (EOFError, OSError):
                found.append(Lost(worker, self._ended(worker)))
        return found

    def close(self) -> None:
        processes = [process for process, _ in self._workers.values()]
        for process in processes:
            process.terminate()
        end = time.monotonic() + GRACE
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        for _, pipe in self._workers.values():
            pipe.close()
        self._workers.clear()

    def _ended(self, worker: int) -> str:
        """Take a worker off the list; how it ended."""
        process, pipe = self._workers.pop(worker)
        pipe.close()
        process.join(GRACE)
        if process.is_alive():
            process.kill()
            process.join()
        code = process.exitcode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"ended with code {code}"


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Context that ignores Ctrl-C, also in processes started within: each worker's traceback would bury the message."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Stopped(BaseException):
    """Told to stop: what is half written is taken away on the way out."""


def _stop(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Stopped


def _worker(pipe: Connection, begin: Callable[..., Callable[[Any], Any]], given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        signal.signal(signal.SIGTERM, _stop)
        arrived: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        threading.Thread(target=_receive, args=(pipe, arrived), daemon=True).start()
        try:
            work = begin(*given)
        except Exception as error:
            pipe.send((None, None, portable(error)))
            return
        pipe.send((None, None, None))
        while True:
            ticket, item = arrived.get()
            pipe.send((ticket, *answer_of(work, item)))
    except (_Stopped, BrokenPipeError):
        # Whatever threads the job has begun do not hold it up.
        os._exit(0)


def _receive(pipe: Connection, arrived: queue.SimpleQueue[tuple[int, Any]]) -> None:
    """Take what comes at once, so that neither side waits for the other to read; end where the other side has."""
    try:
        while True:
            arrived.put(pipe.recv())
    except (EOFError, OSError):
        main = threading.main_thread().ident
        if hasattr(signal, "pthread_kill") and main is not None:
            signal.pthread_kill(main, signal.SIGTERM)
            time.sleep(GRACE)
        os._exit(1)
