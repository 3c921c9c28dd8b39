"""The one place that writes files, here and in stores: whole or not at all; and what a killed writer leaves behind."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from astrape.audio.stores import OUTGOING, Where, is_remote, plain, put, read_cache
from astrape.errors import WriteError
from astrape.wording import reason_of

__all__ = [
    "atomic_path",
    "check_space",
    "free_space",
    "is_stale",
    "left_behind",
    "make_folder",
    "shown",
    "shown_bytes",
    "sweep",
    "sync",
    "temporaries",
    "write_error",
    "write_fault",
    "write_whole",
]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

STALE_SECONDS = 3600
"""Age from which a temporary of another machine counts as left behind."""

TEMPORARY = re.compile(r"\..*\.(?P<machine>[\w-]+)\.(?P<process>\d+)\.[0-9a-f]+\.writing(\.[^.]*)?", re.DOTALL)

LONGEST_STEM, LONGEST_SUFFIX = 64, 16
"""Bytes of the target's name that a temporary's name has; file systems end at 255."""

PROBE_BYTES = 1 << 16


class atomic_path:
    """A temporary path beside ``target``, renamed to it when the block ends well and removed when it does not::

        with atomic_path(target) as temporary:
            temporary.write_text(report)

    A link stays a link: what it points to is replaced. Of a target in a store, the temporary is on this machine, and is
    brought to the store where the block ends well.

    Args:
        target: the file to write; a path, or a URL of a store.
        folders: make the folders that are missing.
        durable: bring the file to the disk before it is renamed (``fsync``).
        ending: the temporary has the target's ending, which some libraries choose a format by. Without it, it ends with
            ``.writing``, and nobody who looks for files by their endings finds it.
        needed: bytes it will take, where that is known. Too little space is refused before anything is written.

    Raises:
        WriteError: when the target's folder is missing or cannot be written, the target is not a regular file, or the
            disk is full; an ``OSError`` of the block becomes one.
        PlaceError: when the store does not take it.
    """

    def __init__(
        self,
        target: Where,
        *,
        folders: bool = False,
        durable: bool = False,
        ending: bool = True,
        needed: int | None = None,
    ) -> None:
        where = plain(target)
        self.remote = where if is_remote(where) else None
        self.target = Path(os.path.realpath(where)) if self.remote is None else _outgoing() / where.rpartition("/")[2]
        self.shown = shown(where)
        self.folders, self.durable, self.ending, self.needed = folders, durable, ending, needed

    def __enter__(self) -> Path:
        folder = self.target.parent
        try:
            if self.folders or self.remote is not None:
                folder.mkdir(parents=True, exist_ok=True)
            elif not folder.is_dir():
                raise WriteError(f"{self.shown}: there is no folder {shown(folder)}: make it first")
            if self.target.exists() and not self.target.is_file():
                raise WriteError(f"{self.shown}: is not a regular file: name another")
            if self.needed is not None and self.needed > free_space(folder):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.temporary = folder / _temporary_name(self.target, self.ending)
            try:
                os.close(os.open(self.temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            except BaseException:
                self.temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise write_error(self.shown, error, folder, self.needed) from error
        return self.temporary

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        folder = self.target.parent
        failed = error if isinstance(error, OSError) else None
        try:
            if kind is None and self.remote is not None:
                put(self.remote, self.temporary)
            elif kind is None:
                if self.durable:
                    sync(self.temporary)
                os.replace(self.temporary, self.target)
        except OSError as fault:
            failed = fault
        except BaseException:
            self.temporary.unlink(missing_ok=True)
            raise
        told = None if failed is None else write_error(self.shown, failed, folder, self.needed, _size(self.temporary))
        self.temporary.unlink(missing_ok=True)
        if told is not None:
            raise told from failed


def write_whole(path: Where, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that at any moment it is either what it was or whole, on the disk too.

    Args:
        path: where to, here or in a store; folders that are missing are made.
        content: text in UTF-8, bytes, or what writes them to an open file.

    Raises:
        WriteError: for a disk that is full and a folder that cannot be written; the temporary is gone then.
        PlaceError: for a store that does not take it.
    """
    data = content.encode() if isinstance(content, str) else content
    needed = len(data) if isinstance(data, bytes) else None
    whole = atomic_path(path, folders=True, durable=True, ending=False, needed=needed)
    with whole as temporary:
        try:
            with temporary.open("wb") as file:
                if isinstance(data, bytes):
                    file.write(data)
                else:
                    data(file)
        except RuntimeError as error:
            # Torch's own writer says no more than "PytorchStreamWriter failed" when the disk is full.
            raise write_fault(temporary) or WriteError(f"{shown(path)}: cannot be written: {error}") from error


def write_error(
    name: str, error: OSError, folder: Path | None = None, needed: int | None = None, written: int = 0
) -> WriteError:
    """The error for a file that cannot be written; for want of space, with how much there is and how much it takes.

    Args:
        name: of the file, as it is to be shown.
        error: what went wrong.
        folder: where it was to be.
        needed: bytes it takes, where that is known.
        written: bytes that were written before the disk was full, and are still there.
    """
    if error.errno not in FULL:
        return WriteError(f"{name}: cannot be written: {reason_of(error)}")
    facts = []
    if folder is not None and error.errno == errno.ENOSPC:
        facts.append(f"{shown_bytes(free_space(folder) + written)} are free there")
    if needed is not None:
        facts.append(f"it takes {shown_bytes(needed)}")
    elif written:
        facts.append(f"it takes more than the {shown_bytes(written)} that were written")
    numbers = f" ({', '.join(facts)})" if facts else ""
    what = {
        errno.ENOSPC: "no space left on the device",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "file too large for this place",
    }[error.errno]
    hint = "hint: free space and run the same command again"
    return WriteError(f"{name}: cannot be written: {what}{numbers}: {hint}", full=True)


def write_fault(path: Path) -> OSError | None:
    """The reason why nothing more can be written to a file, asked by writing to it; ``None`` where it can.

    For what was written by a library that fails without a reason.
    """
    try:
        with path.open("ab") as file:
            begin = file.tell()
            try:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
            finally:
                file.truncate(begin)
    except OSError as error:
        return error
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def free_space(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_space(where: Where, needed: float, *, hint: str) -> None:
    """Refuse a disk that is too small. Stores have room.

    Args:
        where: the folder in which something is to be written; it may be missing.
        needed: bytes.
        hint: what to do in place of it.

    Raises:
        WriteError: with what is needed and what is free.
    """
    if is_remote(plain(where)):
        return
    free = free_space(Path(where))
    if needed > free:
        numbers = f"takes {shown_bytes(int(needed))} more, and {shown_bytes(free)} are free there"
        raise WriteError(f"{shown(where)}: {numbers}; hint: {hint}", full=True)


def make_folder(where: Where) -> None:
    """Make a folder, and those above it. In a store there are none to make.

    Raises:
        WriteError: when that cannot be.
    """
    if is_remote(plain(where)):
        return
    folder = Path(where)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{shown(folder)}: cannot be made: {reason_of(error)}") from error


def temporaries(folder: Path) -> Iterator[Path]:
    """The temporaries in a folder and below it, of this process and of others."""
    for inside, _, names in os.walk(folder):
        yield from (Path(inside) / name for name in sorted(names) if TEMPORARY.fullmatch(name))


def left_behind(where: Where) -> Iterator[Path]:
    """The temporaries in a folder and below it that killed writers left. In a store they leave nothing."""
    if is_remote(plain(where)):
        return iter(())
    return (path for path in temporaries(Path(where)) if is_stale(path))


def sweep(where: Where) -> None:
    """Remove what killed writers left in a folder, but not below it. In a store they leave nothing."""
    folder = Path(where)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if TEMPORARY.fullmatch(path.name) and is_stale(path):
            path.unlink(missing_ok=True)


def is_stale(temporary: Path) -> bool:
    """Whether a temporary is abandoned: its process has ended or, of another machine, it is an hour old."""
    match = TEMPORARY.fullmatch(temporary.name)
    try:
        age = time.time() - temporary.stat().st_mtime
    except OSError:
        return False
    if age > STALE_SECONDS:
        return True
    if match is None or match["machine"] != _machine():
        return False
    try:
        os.kill(int(match["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def shown(path: str | os.PathLike[str]) -> str:
    """A path as text that UTF-8 has a form for, whatever bytes the file system has."""
    return os.fsencode(path).decode("utf-8", "replace")


def shown_bytes(count: int) -> str:
    """A size in words: bytes, or MB of a million bytes."""
    return f"{count} bytes" if count < 10_000 else f"{count / 1e6:.2f} MB" if count < 10**8 else f"{count / 1e6:.0f} MB"


def _outgoing() -> Path:
    """The folder of this machine for what is being written to stores, without what killed writers left there."""
    folder = read_cache() / OUTGOING
    sweep(folder)
    return folder


def _temporary_name(target: Path, ending: bool) -> str:
    suffix = target.suffix if ending and len(os.fsencode(target.suffix)) <= LONGEST_SUFFIX else ""
    stem = os.fsencode(target.name)[:LONGEST_STEM].decode("utf-8", "ignore")
    return f".{stem}.{_machine()}.{os.getpid()}.{secrets.token_hex(4)}.writing{suffix}"


def _machine() -> str:
    name = socket.gethostname()
    return "".join(char if char.isascii() and char.isalnum() else "-" for char in name)[:32] or "machine"


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of names, to the disk (``fsync``)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
