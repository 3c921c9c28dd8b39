"""Codes on disk: what is said, without who says it, in 21.5 bits a frame.

Two forms. ``.npy`` holds the codes alone, int32 ``(frames,)``, or ``(frames, channels)`` where there are several.
``.npz`` holds besides what brings decoded sound back to where the recording was: the rate of the codes, how late they
are, and the recording's rate and length::

    format_version  1
    codes           int32 (frames, channels), from the stream's very first on
    rate            frames a second, text: "25", or "44100/1764"
    latency         how old what a code says is, seconds, text: "11/2000"
    source_rate     of the recording, Hz
    source_frames   its length at that rate
    source_subtype  its sample format, text: "PCM_16"
    recipe          what coded it

Members are stored, not compressed. Nothing that a header claims is believed before it is held against the file's size.
"""

from __future__ import annotations

import io
import math
import os
import stat
import zipfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.blocks.parameters import exact_number
from astrape.errors import AstrapeError
from astrape.wording import reason_of

__all__ = ["CodeStream", "CodedRecording", "CodesError", "read_codes", "write_codes"]

VERSION = 1
LARGEST = 256 << 20
"""Bytes of codes: a month of them at 25 Hz."""

LARGEST_FIELD = 4096
HIGHEST_RATE = 192_000 * 4
LONGEST = 1 << 48
"""Frames of a recording: more than a century at 44.1 kHz."""


class CodesError(AstrapeError):
    """A file of codes that cannot be read, or does not fit what is to decode it."""


@dataclass(frozen=True)
class CodedRecording:
    """The recording that was coded.

    Attributes:
        rate, frames, subtype: of the file, see :class:`~astrape.runtime.files.Conversion`.
    """

    rate: int
    frames: int
    subtype: str


@dataclass(frozen=True)
class CodeStream:
    """Codes from a stream's very first frame on.

    Attributes:
        codes: int32 ``(frames, channels)``.
        rate: frames a second; ``None`` where the file does not say.
        latency: how old what a code says is, seconds. 0 where the file does not say: codes count from time zero then.
        recording: what was coded, if the file says.
        recipe: the name of what coded it, or nothing.
    """

    codes: npt.NDArray[np.int32]
    rate: Fraction | None = None
    latency: Fraction = Fraction(0)
    recording: CodedRecording | None = None
    recipe: str = ""


def write_codes(path: Path, stream: CodeStream) -> None:
    """Write either form, by the path's ending. The folder must be there, and what is there already is overwritten.

    Raises:
        OSError: when it cannot be written.
    """
    codes = np.ascontiguousarray(stream.codes, np.int32)
    if path.suffix.lower() == ".npy":
        with path.open("wb") as file:  # by name, NumPy would add an ending to .NPY
            np.save(file, codes[:, 0] if codes.shape[1] == 1 else codes)
        return
    recording = stream.recording or CodedRecording(0, 0, "")
    fields: dict[str, Any] = {
        "format_version": np.int64(VERSION),
        "codes": codes,
        "rate": np.str_("" if stream.rate is None else str(stream.rate)),
        "latency": np.str_(stream.latency),
        "source_rate": np.int64(recording.rate),
        "source_frames": np.int64(recording.frames),
        "source_subtype": np.str_(recording.subtype),
        "recipe": np.str_(stream.recipe),
    }
    with path.open("wb") as file:
        np.savez(file, **fields)


def read_codes(path: str | os.PathLike[str]) -> CodeStream:
    """Read either form; which of them it is, its first bytes say.

    Raises:
        CodesError: for a file that cannot be read, that is neither of the two, or holds values that are not codes.
    """
    file = Path(path)
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise CodesError(f"{file}: is not a regular file")
        size = file.stat().st_size
        if size > LARGEST + (1 << 20):
            raise CodesError(f"{file}: has {size} bytes, more than {LARGEST}: cut it into parts")
        content = file.read_bytes()
    except OSError as error:
        raise CodesError(f"{file}: cannot be read: {reason_of(error)}") from error
    try:
        if content.startswith(b"PK"):
            return _archived(content)
        return CodeStream(_codes(_array(content, "it", LARGEST)))
    except CodesError as error:
        raise CodesError(f"{file}: {error}") from None


def _archived(content: bytes) -> CodeStream:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            known = ("codes", "format_version", "rate", "latency", "source_rate", "source_frames", "source_subtype")
            members = {info.filename: info for info in archive.infolist()}
            arrays = {name: _member(archive, members.get(f"{name}.npy"), name) for name in (*known, "recipe")}
    except CodesError:
        raise
    except Exception as error:  # zipfile fails on damaged bytes with whatever they lead it into
        raise CodesError(f"is not a readable .npz archive: {type(error).__name__}") from None
    version = _whole(arrays["format_version"], "format_version", 1 << 31)
    if version != VERSION:
        raise CodesError(f"is of format {version}, and this reads {VERSION}")
    rate = _fraction(arrays["rate"], "rate", Fraction(HIGHEST_RATE))
    if rate is not None and rate <= 0:
        raise CodesError(f"its rate is {rate} Hz: it must be over 0")
    latency = _fraction(arrays["latency"], "latency", Fraction(60)) or Fraction(0)
    if latency < 0:
        raise CodesError(f"its latency is {latency} s: it must be 0 or more")
    source_rate = _whole(arrays["source_rate"], "source_rate", HIGHEST_RATE)
    frames = _whole(arrays["source_frames"], "source_frames", LONGEST)
    recording = CodedRecording(source_rate, frames, _text(arrays["source_subtype"], "source_subtype"))
    stream = CodeStream(
        _codes(arrays["codes"]), rate, latency, recording if source_rate else None, _text(arrays["recipe"], "recipe")
    )
    held = None if rate is None else Fraction(len(stream.codes)) / rate
    # A recording ends with its last codes; a hostile length would fill the disk with silence.
    if stream.recording is not None and (held is None or Fraction(frames, source_rate) > held):
        raise CodesError(f"its codes end before its {frames} frames at {source_rate} Hz: it is cut short")
    return stream


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, name: str) -> npt.NDArray[Any]:
    if info is None:
        raise CodesError(f"has no array '{name}', so it holds no codes")
    most = LARGEST if name == "codes" else LARGEST_FIELD
    if info.file_size > most + LARGEST_FIELD:
        raise CodesError(f"its array '{name}' has {info.file_size} bytes, more than {most}")
    with archive.open(info) as opened:
        return _array(opened.read(most + LARGEST_FIELD), f"'{name}'", most)


def _array(content: bytes, what: str, most: int) -> npt.NDArray[Any]:
    """An array as it is in an ``.npy`` file, over the bytes that are there."""
    opened = io.BytesIO(content)
    try:
        major, _ = np.lib.format.read_magic(opened)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(opened)
    except Exception as error:  # a damaged header fails in NumPy's evaluation of it with whatever it leads to
        raise CodesError(f"{what} is not an array of NumPy: neither codes nor audio") from error
    if dtype.hasobject or dtype.kind not in "iuU":
        raise CodesError(f"{what} holds {dtype} and not whole numbers: these are not codes")
    held = len(content) - opened.tell()
    if math.prod(shape) * dtype.itemsize != held or held > most:
        raise CodesError(f"{what} claims to be {shape} of {dtype}, and holds {held} bytes: it is damaged")
    return np.frombuffer(content, dtype, offset=opened.tell()).reshape(shape, order="F" if fortran else "C")


def _codes(array: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2) or 0 in array.shape[1:]:
        raise CodesError(f"holds {array.dtype} {array.shape}, and codes are whole numbers, (frames, channels)")
    if array.size and (int(array.min()) < 0 or int(array.max()) >= 1 << 31):
        raise CodesError("holds numbers below 0 or over 2^31: these are not codes")
    return np.array(array.reshape(len(array), math.prod(array.shape[1:])), np.int32)


def _whole(array: npt.NDArray[Any], name: str, most: int) -> int:
    if array.size != 1 or array.dtype.kind not in "iu" or not 0 <= int(array.reshape(())) <= most:
        raise CodesError(f"its '{name}' is not a whole number from 0 to {most}")
    return int(array.reshape(()))


def _text(array: npt.NDArray[Any], name: str) -> str:
    if array.size != 1 or array.dtype.kind != "U":
        raise CodesError(f"its '{name}' is not text")
    try:
        text = str(array.reshape(()))
    except ValueError as error:  # NumPy takes any four bytes for a character, and Python does not
        raise CodesError(f"its '{name}' is not text") from error
    return "".join(char if char.isprintable() else "?" for char in text)


def _fraction(array: npt.NDArray[Any], name: str, most: Fraction) -> Fraction | None:
    text = _text(array, name)
    if not text:
        return None
    try:
        value = exact_number(name, text)
    except ValueError as error:
        raise CodesError(f"its {error}") from error
    if abs(value) > most:
        raise CodesError(f"its '{name}' is over {most}")
    return value
