"""The older form of voicebanks: a compressed ``.npz`` of NumPy arrays, version 1 or 2.

Version 2 has ``format_version``, ``global_embedding`` and every field of the metadata as an array, numbers as float32,
NaN where nothing was measured. Version 1 stops after ``source_path``. Arrays of other names are passed over.

``numpy.load`` would believe whatever size a member claims. Here every size is checked first, against the archive's and
against the one that its place takes, and the header of an array is matched, not evaluated.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.voice.embedding import checked_embedding
from astrape.voice.errors import VoicebankError
from astrape.voice.metadata import FIELDS, REQUIRED, Metadata

__all__ = ["LARGEST_ARCHIVE", "VERSIONS", "decode_npz", "encode_npz"]

VERSIONS = (1, 2)
LARGEST_ARCHIVE = 1 << 20
"""Bytes; real files have under 4000."""
LARGEST_MEMBER = 256 << 10
"""Bytes of an array, inflated: a string of 65,000 characters."""

NUMBERS = (
    "duration_seconds",
    "peak_amplitude",
    "rms_dbfs",
    "clipping_fraction",
    "active_speech_ratio",
    "dc_offset",
    "median_f0_hz",
)
STRINGS = ("source_path", "embedding_model", "reference_sha256", "created_utc")

ARRAY_HEADER = re.compile(
    rb"\{ *'descr' *: *'(?P<descr>[<>|=]?[A-Za-z][0-9]{0,9})' *, *'fortran_order' *: *(?:True|False) *, *"
    rb"'shape' *: *\((?P<shape>[0-9]{0,9}(?: *, *[0-9]{1,9}){0,4}),? *\) *,? *\} *\n?"
)
ZIP_FAULTS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    EOFError,
    OSError,
    LookupError,
)
"""Exceptions that ``zipfile`` raises on damaged archives: by experience far more than its ``BadZipFile``."""


def decode_npz(content: bytes) -> tuple[npt.NDArray[np.float32], Metadata, int]:
    """Embedding, metadata and version of a whole file.

    Raises:
        VoicebankError: naming the array that is wrong.
    """
    arrays = _arrays(content)
    version = _array(arrays, "format_version")
    if version.dtype.kind not in "iu" or version.size != 1 or int(version.reshape(())) not in VERSIONS:
        shown = repr(version.reshape(-1)[:1].tolist())[1:-1][:40]
        raise VoicebankError(f"array 'format_version' holds {shown}, and this reads 1 and 2: build the voicebank anew")
    embedding = checked_embedding(_array(arrays, "global_embedding"))
    found: dict[str, Any] = {}
    for name in FIELDS:
        if name in arrays or name in REQUIRED:
            found[name] = _field(name, _array(arrays, name))
    return embedding, Metadata(**found), int(version.item())


def encode_npz(embedding: npt.NDArray[np.float32], metadata: Metadata, version: int = 2) -> bytes:
    """The bytes of a file. ``extra`` fields have no place in it.

    Raises:
        VoicebankError: when a number is too large for float32, or the strings for a reader.
    """
    arrays: dict[str, npt.NDArray[Any]] = {"format_version": np.asarray(version, dtype=np.int64)}
    arrays["global_embedding"] = embedding
    for name in metadata.written if version > 1 else REQUIRED:
        value = getattr(metadata, name)
        if name in NUMBERS:
            with np.errstate(over="ignore"):
                arrays[name] = np.asarray(math.nan if value is None else value, dtype=np.float32)
            if value is not None and not np.isfinite(arrays[name]):
                raise VoicebankError(f"field '{name}' is {value:g}, and .npz keeps float32: write .astrape")
        else:
            arrays[name] = np.asarray(value, dtype=np.int64 if name == "source_sample_rate" else np.str_)
        if arrays[name].nbytes > LARGEST_MEMBER - 4096:
            raise VoicebankError(
                f"field '{name}' takes {arrays[name].nbytes} bytes in .npz: shorten it, or write .astrape"
            )
    target = io.BytesIO()
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]
    return target.getvalue()


def _arrays(content: bytes) -> dict[str, bytes]:
    """The members of known names, inflated, none of them larger than ``LARGEST_MEMBER``."""
    if len(content) > LARGEST_ARCHIVE:
        raise VoicebankError(f"has over {LARGEST_ARCHIVE} bytes, which no voicebank takes")
    known = {f"{name}.npy": name for name in ("format_version", "global_embedding", *FIELDS)}
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                name = known.get(member.filename)
                if name is not None:
                    if name in found:
                        raise VoicebankError(f"array '{name}' is there twice")
                    found[name] = _inflated(archive, member, name)
    except ZIP_FAULTS as error:
        reason = ascii(str(error))[1:-1][:120] or type(error).__name__
        raise VoicebankError(f"is not a readable .npz archive ({reason}): it is damaged, copy it anew") from None
    return found


def _inflated(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    if member.file_size > LARGEST_MEMBER:
        raise VoicebankError(f"array '{name}' claims {member.file_size} bytes, at most {LARGEST_MEMBER}")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise VoicebankError(f"array '{name}' is compressed by method {member.compress_type}, not stored or deflated")
    with archive.open(member) as file:
        content = file.read(LARGEST_MEMBER + 1)
    if len(content) != member.file_size:
        raise VoicebankError(f"array '{name}' has {len(content)} bytes and claims {member.file_size}")
    return content


def _array(arrays: dict[str, bytes], name: str) -> npt.NDArray[Any]:
    """An array of numbers or strings from the bytes of a ``.npy`` file."""
    if name not in arrays:
        raise VoicebankError(f"has no array '{name}', so it is not a voicebank, or is damaged")
    content = arrays[name]
    if content[:6] != b"\x93NUMPY" or content[6:8] not in (b"\x01\x00", b"\x02\x00") or len(content) < 12:
        raise VoicebankError(f"array '{name}' is not a NumPy array of version 1 or 2")
    wide = content[6] == 2
    begin = 12 if wide else 10
    end = begin + int.from_bytes(content[8:begin], "little")
    header = ARRAY_HEADER.fullmatch(content[begin:end]) if end <= min(len(content), 4096) else None
    if header is None:
        raise VoicebankError(f"array '{name}' has a header that describes no plain array")
    descr = header["descr"].decode("ascii")
    kind = descr.lstrip("<>|=")[0]
    if kind == "O":
        raise VoicebankError(f"array '{name}' holds pickled Python objects, which are never loaded: build it anew")
    if kind not in "fiuU":
        raise VoicebankError(f"array '{name}' is of type '{descr}', neither numbers nor strings")
    width = descr.lstrip("<>|=")[1:]
    if kind != "U" and width not in ("1", "2", "4", "8"):
        raise VoicebankError(f"array '{name}' is of type '{descr}', which holds no numbers of 1, 2, 4 or 8 bytes")
    shape = tuple(int(part) for part in header["shape"].split(b",") if part.strip())
    values = content[end:]
    item = int(width or 0) * (4 if kind == "U" else 1)
    needed = math.prod(shape) * item
    if needed != len(values):
        raise VoicebankError(
            f"array '{name}' of shape {shape} and type '{descr}' takes {needed} bytes and has {len(values)}"
        )
    if item == 0:
        # Strings of no characters: NumPy never writes them, and their number is bounded by no length.
        raise VoicebankError(f"array '{name}' is of type '{descr}', which has no size")
    try:
        return np.frombuffer(values, dtype=np.dtype(descr)).reshape(shape)
    except (TypeError, ValueError):
        raise VoicebankError(f"array '{name}' is of type '{descr}', which NumPy does not know") from None


def _field(name: str, array: npt.NDArray[Any]) -> Any:
    """A field of the metadata: a string, strings, a number, or ``None`` for NaN."""
    text = name in STRINGS or name == "quality_warnings"
    if text != (array.dtype.kind == "U"):
        raise VoicebankError(f"array '{name}' is of type {array.dtype}, not {'a string' if text else 'a number'}")
    if name == "quality_warnings":
        if array.ndim != 1:
            raise VoicebankError(f"array 'quality_warnings' must have one dimension, not shape {array.shape}")
        return tuple(_text(name, item) for item in array)
    if array.size != 1:
        raise VoicebankError(f"array '{name}' must hold one value, not shape {array.shape}")
    value = array.reshape(())
    if text:
        return _text(name, value)
    number = value.item()
    return None if isinstance(number, float) and math.isnan(number) and name not in REQUIRED else number


def _text(name: str, value: Any) -> str:
    try:
        return str(np.asarray(value).astype(value.dtype.newbyteorder("<")).tobytes().decode("utf-32-le").rstrip("\0"))
    except (UnicodeDecodeError, ValueError):
        raise VoicebankError(f"array '{name}' holds a value that is not a character") from None
