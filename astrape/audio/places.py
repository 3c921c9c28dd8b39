"""The one place that opens what may lie anywhere: folders of this machine, and stores that fsspec knows, by URL.

``s3://bucket/packs``, ``gs://...``, ``file:///data``, ``memory://...`` and plain paths are read and written alike. An
object appears whole or not at all: by renaming in folders, and by one upload in stores that have no renaming. What is
read again and again is kept in a folder of this machine, of bounded size. ::

    place = Place("s3://bucket/packs")
    place.child("a.json").write(b"{}")
    list(place.names())                     # ["a.json"]
    place.child("a.json").local()           # a file of this machine with the same bytes
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from astrape.audio.atomic import TEMPORARY, atomic_path, shown_bytes, write_whole
from astrape.errors import AstrapeError
from astrape.wording import lacking

__all__ = ["CACHE", "CACHE_GB", "Place", "PlaceError", "read_cache"]

CACHE, CACHE_GB = "ASTRAPE_READ_CACHE", "ASTRAPE_READ_CACHE_GB"
"""Environment: the folder that holds what was read from stores, and how much it may hold, in units of 10^9 bytes."""

DEFAULT_GB = 20.0

URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)

OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "memory"})
"""Stores whose objects appear with the end of their upload. Elsewhere a temporary is renamed."""

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


class PlaceError(AstrapeError):
    """A place that cannot be read or written."""


@dataclass(frozen=True)
class Place:
    """A file or a folder, here or in a store.

    Attributes:
        where: a path, or a URL that fsspec knows.
    """

    where: str

    def __post_init__(self) -> None:
        where = os.fspath(self.where)
        if where.lower().startswith("file://"):
            where = unquote(urlsplit(where).path)
        object.__setattr__(self, "where", where if where in ("", "/") else where.rstrip("/"))

    def __str__(self) -> str:
        return self.where

    @property
    def path(self) -> Path | None:
        """Where it is on this machine; ``None`` in a store."""
        return None if URL.match(self.where) else Path(self.where)

    @property
    def name(self) -> str:
        return self.where.rpartition("/")[2]

    def child(self, name: str) -> Place:
        """What is called so in this folder; parts are divided by ``/``."""
        return Place(f"{self.where}/{name}")

    def exists(self) -> bool:
        """Whether there is a file or an object.

        Raises:
            PlaceError: for a store that cannot be asked.
        """
        if self.path is not None:
            return self.path.is_file()
        with self._told("cannot be looked for"):
            store, at = self._store()
            return bool(store.isfile(at))

    def read(self) -> bytes:
        """All of a file.

        Raises:
            PlaceError: for one that is missing or cannot be read.
        """
        with self._told("cannot be read"):
            if self.path is not None:
                return self.path.read_bytes()
            store, at = self._store()
            return bytes(store.cat_file(at))

    def write(self, content: bytes | Path) -> None:
        """Write a file whole or not at all.

        Args:
            content: bytes, or a file of this machine.

        Raises:
            WriteError: for a disk that is full, or a folder that cannot be written.
            PlaceError: for a store that does not take it.
        """
        if self.path is not None:
            if isinstance(content, bytes):
                write_whole(self.path, content)
            else:
                with content.open("rb") as file:
                    write_whole(self.path, lambda target: _copy(file, target))
            return
        with self._told("cannot be written"):
            store, at = self._store()
            protocol = self.where.partition("://")[0].lower()
            target = at if protocol in OBJECTS else f"{at}.{os.getpid()}.writing"
            if protocol not in OBJECTS:
                store.makedirs(at.rpartition("/")[0], exist_ok=True)
            if isinstance(content, bytes):
                store.pipe_file(target, content)
            else:
                store.put_file(os.fspath(content), target)
            if target != at:
                store.mv(target, at)

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
        with self._told("cannot be listed"):
            store, at = self._store()
            for folder, _, objects in store.walk(at):
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
        with self._told("cannot be read"):
            store, at = self._store()
            about = store.info(at)
            size = int(about["size"])
            marks = [self.where, str(size), *(str(about.get(key, "")) for key in ("ETag", "etag", "mtime", "created"))]
            kept = read_cache() / f"{hashlib.sha256(chr(0).join(marks).encode()).hexdigest()[:32]}{Path(at).suffix}"
            try:
                os.utime(kept)
                return kept
            except FileNotFoundError:
                pass
            _make_room(size, self.where)
            with atomic_path(kept, folders=True, ending=False) as temporary:
                store.get_file(at, os.fspath(temporary))
                came = temporary.stat().st_size
                if came != size:
                    raise PlaceError(f"{self}: came with {came} bytes of {size}: hint: run the same command again")
            return kept

    def _store(self) -> tuple[Any, str]:
        protocol = self.where.partition("://")[0].lower()
        try:
            import fsspec
        except ImportError as error:
            raise PlaceError(lacking(f"{self}:", "fsspec", "remote")) from error
        try:
            # Lists of names are not kept: of a million objects they would grow without end.
            store, at = fsspec.core.url_to_fs(self.where, use_listings_cache=False)
        except ImportError as error:
            package = PACKAGES.get(protocol, protocol)
            hint = 'pip install "astrape[remote]"' if package == "s3fs" else f"pip install {package}"
            raise PlaceError(f"{self}: takes the package {package}; hint: {hint}") from error
        except ValueError as error:
            raise PlaceError(
                f"{self}: fsspec knows no '{protocol}://'; hint: s3://, gs://, file:// or a plain path"
            ) from error
        return store, str(at)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Whatever a store fails with, in one line; stores raise whatever their own libraries do."""
        try:
            yield
        except AstrapeError:
            raise
        except FileNotFoundError as error:
            said = _line(error)
            if "bucket" in said.lower():
                raise PlaceError(f"{self}: there is no such bucket: hint: make it first") from error
            raise PlaceError(f"{self}: there is no such file") from error
        except Exception as error:
            kind = type(error).__name__
            if "Credentials" in kind or "credentials" in str(error).lower():
                raise PlaceError(
                    f"{self}: {what}: no credentials; hint: those of the store's own tools are taken, such as "
                    f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                ) from error
            raise PlaceError(f"{self}: {what}: {kind}: {_line(error)}") from error


def _copy(source: Any, target: Any) -> None:
    while block := source.read(1 << 20):
        target.write(block)


def read_cache() -> Path:
    """The folder that holds what was read from stores."""
    given = os.environ.get(CACHE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astrape" / "read"


def _make_room(size: int, name: str) -> None:
    """Remove what was not asked for the longest until so many bytes more fit."""
    text = os.environ.get(CACHE_GB) or str(DEFAULT_GB)
    try:
        bound = float(text) * 1e9
    except ValueError as error:
        raise PlaceError(f"{CACHE_GB}={text}: is not a number") from error
    if size > bound:
        raise PlaceError(
            f"{name}: has {shown_bytes(size)}, and the read cache holds {shown_bytes(int(bound))}; hint: {CACHE_GB}"
        )
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


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
