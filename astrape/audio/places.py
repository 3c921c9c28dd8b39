"""Files and folders that may lie anywhere: on this machine, and in stores that fsspec knows, by URL.

``s3://bucket/packs``, ``gs://...``, ``file:///data``, ``memory://...`` and plain paths are read and written alike. A
file appears whole or not at all (:mod:`astrape.audio.atomic`). What is read again and again is kept in a folder of this
machine, of bounded size. ::

    place = Place("s3://bucket/packs")
    (place / "a.json").write(b"{}")
    list(place.names())                  # ["a.json"]
    (place / "a.json").local()           # a file of this machine with the same bytes
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from astrape.audio.atomic import TEMPORARY, atomic_path, make_folder, shown_bytes, sweep, write_whole
from astrape.audio.stores import (
    CACHE,
    Where,
    is_remote,
    lacks_bucket,
    opened,
    plain,
    put,
    read_cache,
    same_objects,
    told,
)
from astrape.errors import PlaceError

__all__ = [
    "CACHE",
    "CACHE_GB",
    "Place",
    "PlaceError",
    "Where",
    "anywhere",
    "below",
    "local_file",
    "read_cache",
    "read_cache_bytes",
]

CACHE_GB = "ASTRAPE_READ_CACHE_GB"
"""Environment: how much the folder of what was read may hold, in units of 10^9 bytes."""

DEFAULT_GB = 20.0

LOCKS = "locks"
"""Folder in the read cache: what is being fetched is locked, so that it is fetched once."""


@dataclass(frozen=True, init=False)
class Place:
    """A file or a folder, here or in a store. Parts are joined with ``/``, as of :class:`pathlib.Path`.

    Attributes:
        where: a path, or a URL that fsspec knows.
    """

    where: str

    def __init__(self, where: Where) -> None:
        object.__setattr__(self, "where", plain(where))

    def __str__(self) -> str:
        return self.where

    def __fspath__(self) -> str:
        return self.where

    def __truediv__(self, name: str) -> Place:
        return Place(f"{self.where}/{name}" if self.where != "/" else f"/{name}")

    @property
    def path(self) -> Path | None:
        """Where it is on this machine; ``None`` in a store."""
        return None if is_remote(self.where) else Path(self.where)

    @property
    def name(self) -> str:
        return self.where.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Place:
        """The folder that it lies in."""
        if self.path is not None:
            return Place(self.path.parent)
        before, _, _ = self.where.rpartition("/")
        return self if before.endswith(":/") else Place(before)

    def with_name(self, name: str) -> Place:
        return self.parent / name

    def with_suffix(self, suffix: str) -> Place:
        return self.with_name(PurePosixPath(self.name).with_suffix(suffix).name)

    def exists(self) -> bool:
        """Whether there is a file or an object.

        Raises:
            PlaceError: for a store that cannot be asked, or has no such bucket.
        """
        if self.path is not None:
            return self.path.is_file()
        with told(self.where, "cannot be looked for"):
            store, at = opened(self.where)
            # What asks whether there is a file takes whatever goes wrong for a no.
            try:
                return str(store.info(at)["type"]) == "file"
            except FileNotFoundError:
                if lacks_bucket(self.where):
                    raise
                return False

    def read(self) -> bytes:
        """All of a file.

        Raises:
            PlaceError: for one that is missing or cannot be read.
        """
        with told(self.where, "cannot be read"):
            if self.path is not None:
                return self.path.read_bytes()
            store, at = opened(self.where)
            return bytes(store.cat_file(at))

    def write(self, content: bytes | Path) -> None:
        """Write a file whole or not at all.

        Args:
            content: bytes, or a file of this machine.

        Raises:
            WriteError: for a disk that is full, or a folder that cannot be written.
            PlaceError: for a store that does not take it.
        """
        if isinstance(content, bytes):
            write_whole(self, content)
        elif self.path is None:
            put(self.where, content)
        else:
            with content.open("rb") as file:
                write_whole(self, lambda target: shutil.copyfileobj(file, target, 1 << 20))

    def copy_to(self, target: Place) -> None:
        """Give a file a second name: a hard link, or a copy where there are none; in a store, the store copies.

        Raises:
            WriteError, PlaceError: where it cannot be written.
        """
        if same_objects(self.where, target.where):
            with told(target.where, "cannot be written"):
                store, at = opened(self.where)
                store.cp_file(at, opened(target.where)[1])
            return
        local = self.local()
        with atomic_path(target, folders=True, durable=True, ending=False) as temporary:
            temporary.unlink()
            try:
                os.link(local, temporary)
            except OSError:
                shutil.copyfile(local, temporary)

    def remove(self) -> None:
        """Remove a file, where there is one."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            return
        with told(self.where, "cannot be removed"):
            store, at = opened(self.where)
            if self.exists():
                store.rm_file(at)

    def files(self) -> list[str]:
        """Names of the files in a folder, but not below it, sorted; none where there is no such folder.

        Raises:
            PlaceError: for a store that cannot be listed.
        """
        if self.path is not None:
            found = self.path.iterdir() if self.path.is_dir() else ()
            return sorted(one.name for one in found if one.is_file() and not TEMPORARY.fullmatch(one.name))
        with told(self.where, "cannot be listed"):
            store, at = opened(self.where)
            try:
                listed = store.ls(at, detail=True)
            except FileNotFoundError:
                if lacks_bucket(self.where):
                    raise
                return []
            return sorted(one["name"].rpartition("/")[2] for one in listed if one["type"] == "file")

    def names(self) -> Iterator[str]:
        """Every file below a folder, by its path from there; the names of one folder at a time are held.

        Raises:
            PlaceError: for a folder that cannot be listed.
        """
        if self.path is not None:
            for folder, inside, files in os.walk(self.path):
                inside.sort()
                below = Path(folder).relative_to(self.path)
                yield from ((below / name).as_posix() for name in sorted(files) if not TEMPORARY.fullmatch(name))
            return
        with told(self.where, "cannot be listed"):
            store, at = opened(self.where)
            for folder, _, objects in store.walk(at, on_error="raise"):
                below = folder.removeprefix(at).strip("/")
                yield from (f"{below}/{name}".lstrip("/") for name in sorted(objects))

    def local(self) -> Path:
        """A file of this machine with the same bytes: itself, or a copy in the read cache.

        The copy is of the object as it is now: one that was replaced since is fetched again. What was not asked for
        the longest is removed where the cache grows beyond its size; a file that somebody has open stays readable.

        Raises:
            PlaceError: for an object that is missing, cannot be read, comes short, or is larger than the whole cache.
            WriteError: where the cache cannot be written.
        """
        if self.path is not None:
            if not self.path.is_file():
                raise PlaceError(f"{self}: there is no such file")
            return self.path
        with told(self.where, "cannot be read"):
            store, at = opened(self.where)
            about = store.info(at)
            if about["type"] != "file":
                raise PlaceError(f"{self}: is a folder, not a file")
            size = int(about["size"])
            kept = read_cache() / f"{_fingerprint(self.where, about)}{PurePosixPath(at).suffix}"
            if _is_kept(kept):
                return kept
            with _alone(kept.name[:2]):
                # Another may have fetched it meanwhile.
                if _is_kept(kept):
                    return kept
                _make_room(size, self.where)
                with atomic_path(kept, folders=True, ending=False) as temporary:
                    store.get_file(at, os.fspath(temporary))
                    came = temporary.stat().st_size
                    if came != size:
                        raise PlaceError(f"{self}: came with {came} bytes of {size}: hint: run the same command again")
            return kept


def local_file(where: Where) -> Path:
    """A file to open: the path itself, there or not, or of an object a copy in the read cache.

    For readers that have their own words for a file of this machine that is missing.

    Raises:
        PlaceError: for an object that is missing or cannot be read.
    """
    place = Place(where)
    return place.local() if place.path is None else place.path


def anywhere(where: Where) -> Path | Place:
    """A path of this machine, or a place in a store: both are joined and named alike."""
    place = Place(where)
    return place.path or place


def below(where: Where, folder: Where) -> str:
    """The path of a file from a folder, where it lies below that; else the file's own."""
    one, other = Place(where), Place(folder)
    if one.path is not None and other.path is not None:
        inside = one.path.absolute().is_relative_to(other.path.absolute())
        return os.fspath(one.path.absolute().relative_to(other.path.absolute()) if inside else one.path)
    return one.where.removeprefix(f"{other.where}/")


def _fingerprint(where: str, about: dict[str, Any]) -> str:
    """Of an object as it is now."""
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
def _alone(name: str) -> Iterator[None]:
    """One process and one thread of this machine at a time, where the system has locks of files."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    make_folder(read_cache() / LOCKS)
    with (read_cache() / LOCKS / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_cache_bytes() -> float:
    """How many bytes the read cache may hold.

    Raises:
        PlaceError: for an environment that says so in other words than a number.
    """
    text = os.environ.get(CACHE_GB) or str(DEFAULT_GB)
    try:
        return float(text) * 1e9
    except ValueError as error:
        raise PlaceError(f"{CACHE_GB}={text}: is not a number") from error


def _make_room(size: int, name: str) -> None:
    """Remove what was not asked for the longest until so many bytes more fit."""
    bound = read_cache_bytes()
    if size > bound:
        raise PlaceError(
            f"{name}: has {shown_bytes(size)}, and the read cache holds {shown_bytes(int(bound))}; hint: {CACHE_GB}"
        )
    sweep(read_cache())
    kept: list[tuple[float, int, Path]] = []
    for path in read_cache().iterdir() if read_cache().is_dir() else ():
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file() and not TEMPORARY.fullmatch(path.name):
            kept.append((about.st_mtime, about.st_size, path))
    held = sum(one[1] for one in kept)
    for _, bytes_, path in sorted(kept):
        if held + size <= bound:
            return
        path.unlink(missing_ok=True)
        held -= bytes_
