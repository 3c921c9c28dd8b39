"""Files of a cache: arrays that are whole or not there."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from astrape.audio import atomic
from astrape.audio.places import Place
from astrape.errors import PlaceError, WriteError
from astrape.training.errors import CacheError
from astrape.wording import reason_of

__all__ = [
    "ArrayFault",
    "StorageError",
    "array_file",
    "check_content",
    "check_sum",
    "read_array",
    "write_array",
    "write_whole",
]


SUM = "crc32"


class StorageError(CacheError):
    """A cache that cannot be written: going on with the next file would fail alike."""


class ArrayFault(CacheError):
    """A fault of one array, in words that follow its name.

    Attributes:
        kind: ``missing``, ``empty``, ``truncated``, ``shape``, ``non-finite``, ``checksum`` or ``unreadable``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def write_whole(path: Path | Place, content: bytes | Callable[[BinaryIO], None]) -> None:
    """Write a file of a cache: see :func:`astrape.audio.atomic.write_whole`.

    Raises:
        StorageError: for a disk that is full and a folder that cannot be written, where the temporary is gone then, and
            a store that does not take it.
    """
    try:
        atomic.write_whole(path, content)
    except PlaceError as error:
        raise StorageError(str(error)) from error
    except WriteError as error:
        # A cache goes on where it was.
        more = ", which goes on from here" if error.full else ""
        raise StorageError(f"{error}{more}") from error


def write_array(path: Path | Place, array: npt.NDArray[Any]) -> None:
    """Write an array as ``.npy``, in C order, whole or not at all.

    Its header, a literal of Python, ends with a comment: the CRC-32 of the values. Readers of ``.npy`` pass over it,
    and :func:`check_sum` compares.

    Raises:
        StorageError: as :func:`write_whole`.
    """
    held = np.ascontiguousarray(array)

    values = held.reshape(-1).view(np.uint8).data

    def write(file: BinaryIO) -> None:
        file.write(_header(held, zlib.crc32(values)))
        # NumPy's own writing of the values tells of a full disk without saying that it is one.
        file.write(values)

    write_whole(path, write)


def array_file(path: Path | Place) -> Path:
    """The file of an array on this machine: itself, there or not, or of an object a copy in the read cache.

    Raises:
        ArrayFault: for an object that is missing or cannot be had.
    """
    place = Place(path)
    if place.path is not None:
        return place.path
    try:
        return place.local()
    except PlaceError as error:
        if error.missing:
            raise ArrayFault("missing", "is missing") from error
        raise ArrayFault("unreadable", str(error).removeprefix(f"{place}: ")) from error


def check_sum(path: Path) -> None:
    """Read an array's file and hold its values against the checksum in its header, where it has one.

    Raises:
        ArrayFault: for values that are not what was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArrayFault("unreadable", f"cannot be read: {reason_of(error)}") from error
    check_content(content)


def check_content(content: bytes) -> None:
    """:func:`check_sum` for a file's content in memory.

    Raises:
        ArrayFault: as :func:`check_sum`.
    """
    begin = 10 + int.from_bytes(content[8:10], "little")
    comment = content[10:begin].partition(b"#")[2].strip()
    if content[6:7] != b"\1" or not comment:
        return
    values = f"{SUM} {zlib.crc32(memoryview(content)[begin:]):08x}".encode()
    if comment != values:
        raise ArrayFault("checksum", f"is damaged: its values are not what was written (CRC-32, {len(content)} bytes)")


def _header(array: npt.NDArray[Any], total: int) -> bytes:
    """Magic and header of an array, padded so that the values begin at a multiple of 64 bytes."""
    described = np.lib.format.header_data_from_array_1_0(array)
    text = f"{described!r} # {SUM} {total:08x}".encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return np.lib.format.magic(1, 0) + struct.pack("<H", len(text)) + text


def read_array(path: Path, dtype: npt.DTypeLike, channels: int | None) -> npt.NDArray[Any]:
    """Map an array into memory, after a look at its header and its size; nothing else of it is read.

    Args:
        path: a ``.npy`` file.
        dtype: what it has to hold.
        channels: rows of a ``(channels, frames)`` array; ``None`` for one dimension.

    Raises:
        ArrayFault: for what is missing, not such an array, or shorter than its header says.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise ArrayFault("empty", "is empty (0 bytes)")
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, held = header(file)
            begin = file.tell()
    except FileNotFoundError as error:
        raise ArrayFault("missing", "is missing") from error
    except OSError as error:
        raise ArrayFault("unreadable", f"cannot be read: {reason_of(error)}") from error
    # A damaged header leads NumPy's parser anywhere.
    except (ValueError, EOFError, SyntaxError, TypeError, KeyError, RecursionError, TokenError) as error:
        raise ArrayFault(
            "truncated" if size < 128 else "unreadable", f"has no header of an array ({size} bytes)"
        ) from error
    dimensions = 1 if channels is None else 2
    wanted = "(frames,)" if channels is None else f"({channels}, frames)"
    if held != np.dtype(dtype) or fortran or len(shape) != dimensions or channels not in (None, shape[0]):
        raise ArrayFault("shape", f"holds {shape} of {held} and not {wanted} of {np.dtype(dtype)} in C order")
    needed = begin + held.itemsize * int(np.prod(shape, dtype=object))
    if size != needed:
        raise ArrayFault("truncated", f"has {size} bytes where its header says {needed}")
    if not shape[-1]:
        raise ArrayFault("empty", "holds no frame")
    return np.memmap(path, dtype=held, mode="r", offset=begin, shape=shape)
