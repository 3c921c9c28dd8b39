"""Files of a cache: arrays that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from astrape.audio import atomic
from astrape.errors import WriteError
from astrape.training.errors import CacheError

__all__ = ["Fault", "StorageError", "read_array", "write_array", "write_whole"]


class StorageError(CacheError):
    """A cache that cannot be written: going on with the next file would fail alike."""


class Fault(CacheError):
    """What is wrong with one array, in words that follow its name.

    Attributes:
        kind: ``missing``, ``empty``, ``truncated``, ``shape``, ``non-finite`` or ``unreadable``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], None]) -> None:
    """Write a file of a cache: see :func:`astrape.audio.atomic.write_whole`.

    Raises:
        StorageError: for a disk that is full and a folder that cannot be written; the temporary is gone then.
    """
    try:
        atomic.write_whole(path, content)
    except WriteError as error:
        # A cache goes on where it was.
        more = ", which goes on from here" if error.full else ""
        raise StorageError(f"{error}{more}") from error


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array as ``.npy``, in C order, whole or not at all.

    Raises:
        StorageError: as :func:`write_whole`.
    """
    held = np.ascontiguousarray(array)

    def write(file: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(held))
        # NumPy's own writing of the values tells of a full disk without saying that it is one.
        file.write(held.reshape(-1).view(np.uint8).data)

    write_whole(path, write)


def read_array(path: Path, dtype: npt.DTypeLike, channels: int | None) -> npt.NDArray[Any]:
    """Map an array into memory, after a look at its header and its size; nothing else of it is read.

    Args:
        path: a ``.npy`` file.
        dtype: what it has to hold.
        channels: rows of a ``(channels, frames)`` array; ``None`` for one dimension.

    Raises:
        Fault: for what is missing, not such an array, or shorter than its header says.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise Fault("empty", "is empty (0 bytes)")
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, held = header(file)
            begin = file.tell()
    except FileNotFoundError as error:
        raise Fault("missing", "is missing") from error
    except OSError as error:
        raise Fault("unreadable", f"cannot be read: {error.strerror or error}") from error
    # A damaged header leads NumPy's parser anywhere.
    except (ValueError, EOFError, SyntaxError, TypeError, KeyError, RecursionError) as error:
        raise Fault("truncated" if size < 128 else "unreadable", f"has no header of an array ({size} bytes)") from error
    dimensions = 1 if channels is None else 2
    wanted = "(frames,)" if channels is None else f"({channels}, frames)"
    if held != np.dtype(dtype) or fortran or len(shape) != dimensions or channels not in (None, shape[0]):
        raise Fault("shape", f"holds {shape} of {held} and not {wanted} of {np.dtype(dtype)} in C order")
    needed = begin + held.itemsize * int(np.prod(shape, dtype=object))
    if size != needed:
        raise Fault("truncated", f"has {size} bytes where its header says {needed}")
    if not shape[-1]:
        raise Fault("empty", "holds no frame")
    return np.memmap(path, dtype=held, mode="r", offset=begin, shape=shape)
