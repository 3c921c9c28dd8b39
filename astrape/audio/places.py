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

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from astrape.audio.atomic import TEMPORARY, atomic_path, write_whole
from astrape.audio.kept import CACHE_GB, kept_copy, read_cache_bytes
from astrape.audio.stores import (
    CACHE,
    Where,
    is_remote,
    lacks_bucket,
    objects_below,
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
    "joined",
    "local_file",
    "read_cache",
    "read_cache_bytes",
]


@dataclass(frozen=True, init=False, order=True)
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
        if is_remote(name) or name.startswith("/"):
            return Place(name)
        return Place(f"{self.where}/{name}" if self.where != "/" else f"/{name}")

    @property
    def path(self) -> Path | None:
        """The path on this machine; ``None`` in a store."""
        return None if is_remote(self.where) else Path(self.where)

    @property
    def name(self) -> str:
        return self.where.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

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

    def absolute(self) -> Place:
        return self if self.path is None else Place(self.path.absolute())

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
            # fsspec's own exists() answers no to every error.
            try:
                return str(store.info(at)["type"]) == "file"
            except FileNotFoundError:
                if lacks_bucket(self.where):
                    raise
                return False

    def size(self) -> int:
        """Bytes of a file.

        Raises:
            PlaceError: for one that is missing or cannot be asked for.
        """
        with told(self.where, "cannot be read"):
            if self.path is not None:
                return self.path.stat().st_size
            store, at = opened(self.where)
            return int(store.info(at)["size"])

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
        return self._listed("file")

    def folders(self) -> list[str]:
        """Names of the folders in a folder, sorted; none where there is no such folder.

        Raises:
            PlaceError: for a store that cannot be listed.
        """
        if self.path is not None:
            return sorted(one.name for one in self.path.iterdir() if one.is_dir()) if self.path.is_dir() else []
        return self._listed("directory")

    def _listed(self, kind: str) -> list[str]:
        """Names of what is right below a URL."""
        with told(self.where, "cannot be listed"):
            store, at = opened(self.where)
            try:
                listed = store.ls(at, detail=True)
            except FileNotFoundError:
                if lacks_bucket(self.where):
                    raise
                return []
            return sorted(one["name"].rstrip("/").rpartition("/")[2] for one in listed if one["type"] == kind)

    def names(self) -> Iterator[str]:
        """Every file below a folder, by its path from there, in whatever order; none where there is no such folder.

        A million names take no memory: those of a folder of this machine come one by one, those of S3, Google and
        Azure a thousand at a time. Of other stores the names of one folder are held.

        Raises:
            PlaceError: for a folder that cannot be listed.
        """
        if self.path is None:
            yield from objects_below(self.where)
        elif self.path.is_dir():
            yield from _files_below(self.path, "")

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
                raise PlaceError(f"{self}: there is no such file", missing=True)
            return self.path
        return kept_copy(self.where)


def joined(root: Path | Place, name: str) -> Path | Place:
    """A path or a URL within a folder; one that is whole stays as it is."""
    return anywhere(name) if is_remote(name) else root / name


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


def _files_below(folder: Path, before: str) -> Iterator[str]:
    inside: list[str] = []
    with told(os.fspath(folder), "cannot be listed"), os.scandir(folder) as found:
        for one in found:
            if one.is_dir(follow_symlinks=False):
                inside.append(one.name)
            elif not one.is_dir() and not TEMPORARY.fullmatch(one.name):
                # Links to folders are not followed.
                yield before + one.name
    for name in inside:
        yield from _files_below(folder / name, f"{before}{name}/")
