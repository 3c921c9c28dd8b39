"""The read cache: a folder of this machine, of bounded size, with copies of what was read from stores."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from astrape.audio.atomic import TEMPORARY, atomic_path, make_folder, shown_bytes, sweep
from astrape.audio.stores import opened, read_cache, told
from astrape.errors import PlaceError

__all__ = ["CACHE_GB", "kept_copy", "read_cache_bytes"]

CACHE_GB = "ASTRAPE_READ_CACHE_GB"
"""Environment: how much the folder of what was read may hold, in units of 10^9 bytes."""

DEFAULT_GB = 20.0

LOCKS = "locks"
"""Folder in the read cache: what is being fetched is locked, so that it is fetched once."""

ROOM = "room"
"""The lock of the room that is left, and the file that says how much that is."""

MANY, SLACK = 1000, 1 / 64
"""Files from which on that share of the cache is cleared at once, so that not every fetch looks at all of them."""


def kept_copy(where: str) -> Path:
    """A file of this machine with the bytes of an object as it is now.

    Raises:
        PlaceError: for an object that is missing, cannot be read, comes short, or is larger than the whole cache.
        WriteError: where the cache cannot be written.
    """
    with told(where, "cannot be read"):
        store, at = opened(where)
        about = store.info(at)
        if about["type"] != "file":
            raise PlaceError(f"{where}: is a folder, not a file")
        size = int(about["size"])
        kept = read_cache() / f"{_fingerprint(where, about)}{PurePosixPath(at).suffix}"
        if _is_kept(kept):
            return kept
        with _alone(kept.name[:2]):
            # Another may have fetched it meanwhile.
            if _is_kept(kept):
                return kept
            _make_room(size, where)
            with atomic_path(kept, folders=True, ending=False) as temporary:
                store.get_file(at, os.fspath(temporary))
                came = temporary.stat().st_size
                if came != size:
                    raise PlaceError(f"{where}: came with {came} bytes of {size}: hint: run the same command again")
        return kept


def read_cache_bytes() -> float:
    """The most bytes that the read cache may hold.

    Raises:
        PlaceError: for an environment that says so in other words than a number.
    """
    text = os.environ.get(CACHE_GB) or str(DEFAULT_GB)
    try:
        return float(text) * 1e9
    except ValueError as error:
        raise PlaceError(f"{CACHE_GB}={text}: is not a number") from error


def _fingerprint(where: str, about: dict[str, Any]) -> str:
    """A name for one version of an object: a hash of its address, size, tag and time of change."""
    marks = [where, str(about["size"]), *(str(about.get(key, "")) for key in ("ETag", "etag", "mtime", "created"))]
    return hashlib.sha256(chr(0).join(marks).encode()).hexdigest()[:32]


def _is_kept(kept: Path) -> bool:
    """Whether the read cache has a file, which is asked for just now then."""
    try:
        os.utime(kept)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _alone(name: str) -> Iterator[TextIO]:
    """One process and one thread of this machine at a time, where the system has locks of files; the lock's file."""
    make_folder(read_cache() / LOCKS)
    with (read_cache() / LOCKS / name).open("a+", encoding="ascii") as file:
        try:
            import fcntl
        except ImportError:
            yield file
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _make_room(size: int, name: str) -> None:
    """Take that many bytes of the room that is left; where there are too few, remove what was not asked for longest."""
    bound = read_cache_bytes()
    if size > bound:
        raise PlaceError(
            f"{name}: has {shown_bytes(size)}, and the read cache holds {shown_bytes(int(bound))}; hint: {CACHE_GB}"
        )
    with _alone(ROOM) as file:
        left = _noted(file, bound)
        if left is None or left < size:
            left = _cleared(size, bound)
        file.seek(0)
        file.truncate()
        file.write(f"{bound:.0f} {left - size:.0f}")


def _noted(file: TextIO, bound: float) -> float | None:
    """The room that was left the last time; ``None`` if unknown, or if the cache was of another size then."""
    file.seek(0)
    try:
        of, left = (float(number) for number in file.read().split())
    except ValueError:
        return None
    return left if of == round(bound) else None


def _cleared(size: int, bound: float) -> float:
    """Remove what was not asked for the longest until that many bytes more fit; the room that is left."""
    sweep(read_cache())
    kept: list[tuple[float, int, Path]] = []
    for path in read_cache().iterdir() if read_cache().is_dir() else ():
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file() and not TEMPORARY.fullmatch(path.name):
            kept.append((about.st_mtime, about.st_size, path))
    held = float(sum(one[1] for one in kept))
    if held + size > bound:
        wanted = bound - size - (SLACK * bound if len(kept) > MANY else 0.0)
        for _, bytes_, path in sorted(kept):
            if held <= max(0.0, wanted):
                break
            path.unlink(missing_ok=True)
            held -= bytes_
    return bound - held
