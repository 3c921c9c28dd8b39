"""Workers that die at random, from outside, while a job runs."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from contextlib import suppress
from pathlib import Path

__all__ = ["Killer"]


class Killer:
    """A job's progress callback that kills workers of this process at random: local ones, and Ray's actors.

    Args:
        times: how many; two at most, so that no item can end three.
        after: answers between one and the next.

    Attributes:
        killed: so far.
    """

    def __init__(self, times: int = 2, after: int = 2, seed: int = 3) -> None:
        self.times, self.after, self.killed, self.answers = times, after, 0, 0
        self._draw = random.Random(seed)

    def __call__(self, done: float, total: float | None) -> None:
        self.answers += 1
        if self.killed == self.times or self.answers % self.after:
            return
        workers = [one.pid or 0 for one in multiprocessing.active_children()] + _actors()
        if workers:
            # One that ended meanwhile is not there to be killed: the next answer kills another.
            with suppress(ProcessLookupError):
                os.kill(self._draw.choice(sorted(workers)), signal.SIGKILL)
                self.killed += 1


def _actors() -> list[int]:
    """Actors of a cluster that this process started; clusters of others are left alone."""
    parents: dict[int, int] = {}
    names: dict[int, bytes] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            stat = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()
            names[int(path.name)] = (path / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(path.name)] = int(stat[1])

    def is_own(process: int) -> bool:
        while process > 1:
            if process == os.getpid():
                return True
            process = parents.get(process, 0)
        return False

    return [process for process, name in names.items() if name.startswith(b"ray::Actor") and is_own(process)]
