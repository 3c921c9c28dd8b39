"""Work of the tests' workers: functions of a module, since workers import them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from astrape.audio.atomic import atomic_path
from astrape.errors import AudioError


def squares(folder: Path) -> Callable[[int], int]:
    """Writes the square of a number; each worker notes that it has loaded."""
    (folder / f"loaded.{os.getpid()}").touch()

    def work(item: int) -> int:
        with atomic_path(folder / f"{item}.txt") as temporary:
            temporary.write_text(f"{item**2}\n")
        return item**2

    return work


def deadly(folder: Path, once: tuple[int, ...], always: tuple[int, ...]) -> Callable[[int], int]:
    """:func:`squares`, but some items kill their worker, once or whenever they are tried."""
    work = squares(folder)

    def deadly_work(item: int) -> int:
        with (folder / f"tried.{item}").open("a") as tried:
            tried.write("x")
        if item in always or (item in once and (folder / f"tried.{item}").stat().st_size == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return work(item)

    return deadly_work


def refuses() -> Callable[[int], int]:
    raise AudioError("missing", "no model at /nowhere: 0 bytes")


def dies() -> Callable[[int], int]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def lost_together(folder: Path, count: int) -> Callable[[int], int]:
    """:func:`squares`, but the first ``count`` workers end while they load, as those of a lost node."""
    if not (folder / "lost").exists():
        (folder / f"began.{os.getpid()}").touch()
        while len(list(folder.glob("began.*"))) < count:
            time.sleep(0.01)
        (folder / "lost").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return squares(folder)


def raises() -> Callable[[int], int]:
    def work(item: int) -> int:
        if item == 3:
            raise AudioError("missing", "3.wav: there is no such file")
        return item

    return work


def large() -> Callable[[bytes], bytes]:
    return lambda item: item[::-1]


def slow(folder: Path) -> Callable[[int], int]:
    """Holds a half-written file for as long as it is let."""

    def work(item: int) -> int:
        with atomic_path(folder / f"{item}.txt"):
            (folder / f"begun.{item}").touch()
            time.sleep(600)
        return item

    return work


def together(folder: Path) -> Callable[[int], int]:
    """:func:`squares`, a tenth of a second each, and none before two workers have loaded."""
    work = squares(folder)

    def unhurried_work(item: int) -> int:
        while len(list(folder.glob("loaded.*"))) < 2:
            time.sleep(0.1)
        time.sleep(0.1)
        return work(item)

    return unhurried_work


def interrupted(folder: str) -> Any:
    """A run that a test interrupts."""
    from astrape.jobs import Engine, Job, run_job

    return list(run_job(Job(slow, (Path(folder),)), range(4), Engine(workers=2)))


def interrupted_on_ray(folder: str) -> Any:
    """:func:`interrupted`, by actors of Ray."""
    from astrape.jobs import Engine, Job, run_job

    return list(run_job(Job(slow, (Path(folder),)), range(4), Engine("ray", workers=2)))


def abandoned(folder: str) -> Any:
    """A run whose driver is killed."""
    return interrupted(folder)
