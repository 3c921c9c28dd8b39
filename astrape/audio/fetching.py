"""Fetching of what is read next from a store, while something else is read."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from astrape.audio.places import Place
from astrape.errors import AstrapeError

__all__ = ["Fetcher"]


class Fetcher:
    """Brings files of stores to the read cache before they are read: one at a time, in a thread that ends when done.

    What cannot be fetched is left to whoever reads it, and is told then.

    Attributes:
        process: that it was made in; threads do not outlive a fork.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self._wanted: deque[Place] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, places: Sequence[Place]) -> None:
        """Fetch these, in this order. What was asked for before and has not begun is given up."""
        with self._lock:
            self._wanted = deque(places)
            if self._wanted and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="astrape-fetch", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Wait until all requested files are there, or have failed."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                place = self._wanted.popleft()
            with suppress(AstrapeError):
                place.local()
