"""Hours of work that was stopped and resumed: every part of it, on whatever machine."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from astrape.training.checkpoint import write_file

__all__ = ["Hours", "machine"]

EVERY = 20.0
"""Seconds between notes: what a killed run may lose of its count."""


class Hours:
    """Notes of the time that each part took, a small file for each run of each part.

    Args:
        folder: for the notes; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count a part of the work. The note is brought up to date as it goes, so that a killed run is counted too."""
        begin, busy = time.time(), _core_seconds()
        path = self.folder / f"{name}-{int(begin * 1000)}-{os.getpid()}.json"
        done = threading.Event()

        def note() -> None:
            found = {
                "part": name,
                "begin": begin,
                "seconds": time.time() - begin,
                "core_seconds": _core_seconds() - busy,
                "machine": machine(),
            }
            write_file(path, json.dumps(found) + "\n")

        def watch() -> None:
            while not done.wait(EVERY):
                note()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            note()

    def total(self) -> dict[str, Any]:
        """Hours in all and by part, of a clock and of a core, runs, and the machines."""
        notes = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.folder.glob("*.json"))]
        parts: dict[str, float] = {}
        for one in notes:
            parts[one["part"]] = parts.get(one["part"], 0.0) + one["seconds"] / 3600
        return {
            "hours": sum(parts.values()),
            "core_hours": sum(one["core_seconds"] for one in notes) / 3600,
            "parts": parts,
            "runs": len(notes),
            "machines": sorted({one["machine"] for one in notes}),
        }


def machine() -> str:
    """The machine in a line: processor, cores, memory, system."""
    name = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    memory = next((int(line.split()[1]) / 2**20 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    room = f", {memory:.0f} GiB" if memory else ""
    return f"{name}, {os.cpu_count()} cores{room}, {platform.system()}"


def _core_seconds() -> float:
    """CPU seconds of this process and of its finished child processes."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
