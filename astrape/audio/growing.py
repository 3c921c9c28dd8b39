"""A folder whose files grow, such as logs: objects of a store do not, so what grows is kept here and brought there."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from astrape.audio.places import Place

__all__ = ["GrowingFolder"]


class GrowingFolder:
    """A folder to append to: the place itself, or for a store, a folder of this machine that :meth:`publish` copies.

    Args:
        place: where its files are to be.

    Attributes:
        path: the folder to write to.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._scratch: TemporaryDirectory[str] | None = None
        if place.path is None:
            self._scratch = TemporaryDirectory(prefix="astrape-growing-")
            self.path = Path(self._scratch.name)
        else:
            self.path = place.path
        self._published: dict[str, tuple[int, int]] = {}

    def fetch(self, name: str) -> Path:
        """A file to append to, with what the place has of it; there or not.

        Raises:
            PlaceError: for a store that cannot be read.
        """
        path = self.path / name
        there = self.place / name
        if self._scratch is not None and there.exists():
            path.write_bytes(there.read())
        return path

    def publish(self) -> None:
        """Bring what has grown to its store, each file whole; nothing to do for a folder of this machine.

        Raises:
            PlaceError: for a store that does not take it.
        """
        if self._scratch is None:
            return
        for path in sorted(self.path.rglob("*")):
            if not path.is_file():
                continue
            name, about = path.relative_to(self.path).as_posix(), path.stat()
            mark = about.st_size, about.st_mtime_ns
            if self._published.get(name) != mark:
                (self.place / name).write(path)
                self._published[name] = mark

    def close(self) -> None:
        """Remove the folder of this machine, where it is not the place itself. What was not published is lost."""
        if self._scratch is not None:
            self._scratch.cleanup()
