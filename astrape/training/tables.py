"""Tables beside a recording: what sounds when, and how high. A parallel corpus has them exactly, of its own making.

=========  ==========================  ======  =================================================
table      holds                       rate    frame ``j`` is for
=========  ==========================  ======  =================================================
phones     int16 ``(frames,)``, 0 up   40 Hz   ``j / 40`` to ``(j + 1) / 40`` seconds
pitch      float32 ``(frames,)``, Hz   80 Hz   ``j / 80`` to ``(j + 1) / 80`` seconds; 0: no pitch
vector     float32 ``(channels,)``             all of it: who speaks
=========  ==========================  ======  =================================================
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from astrape.audio.atomic import shown
from astrape.audio.places import Where, local_file
from astrape.errors import told_as
from astrape.training.errors import CacheError

__all__ = ["NO_PHONE", "PHONE_RATE", "PITCH_RATE", "read_phones", "read_pitch", "read_vector"]

PHONE_RATE, PITCH_RATE = Fraction(40), Fraction(80)

NO_PHONE = -1
"""Stands for an unknown phone, which weighs nothing in any loss."""

HIGHEST_HZ = 4000.0
"""No voice is higher: a table with more holds something else."""


def read_phones(path: Where, file: BinaryIO | None = None) -> npt.NDArray[np.int64]:
    """The number of the phone in each frame, ``(frames,)``.

    Raises:
        CacheError: for a file that is not such a table.
    """
    table = _read(path, "iu", file)
    if table.size and int(table.min()) < 0:
        raise CacheError(f"{shown(path)}: holds the phone {int(table.min())}, and they are numbered from 0 up")
    return table.astype(np.int64)


def read_pitch(path: Where, file: BinaryIO | None = None) -> npt.NDArray[np.float32]:
    """The fundamental of each frame in Hz, ``(frames,)``, 0 where there is none.

    Raises:
        CacheError: for a file that is not such a table, or holds values that are not a pitch.
    """
    table = _read(path, "f", file).astype(np.float32)
    if not np.isfinite(table).all() or (table.size and not 0 <= float(table.min()) <= float(table.max()) <= HIGHEST_HZ):
        raise CacheError(f"{shown(path)}: holds values that are not a pitch: 0, or up to {HIGHEST_HZ:g} Hz")
    return table


def read_vector(path: Where, file: BinaryIO | None = None) -> npt.NDArray[np.float32]:
    """The vector of the speaker, ``(channels,)``.

    Raises:
        CacheError: for a file that is not such a table.
    """
    vector = _read(path, "f", file).astype(np.float32)
    if not vector.size or not np.isfinite(vector).all():
        raise CacheError(f"{shown(path)}: holds a vector of {vector.size} numbers, not all of them finite")
    return vector


def _read(path: Where, kinds: str, file: BinaryIO | None) -> npt.NDArray[Any]:
    """A table of a file, or of one that is open and called so."""
    try:
        with told_as(CacheError):
            given = file or local_file(path)
        table: npt.NDArray[Any] = np.load(given, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CacheError(f"{shown(path)}: is not a readable table: {error}") from error
    if not isinstance(table, np.ndarray) or table.ndim != 1 or table.dtype.kind not in kinds:
        held = f"{table.shape} of {table.dtype}" if isinstance(table, np.ndarray) else "several arrays"
        wanted = "whole numbers" if "i" in kinds else "real numbers"
        raise CacheError(f"{shown(path)}: holds {held} and not one row of {wanted}")
    return table
