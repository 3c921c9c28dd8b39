"""Voicebanks: a speaker's embedding and where it comes from, in a file.

``.astrape`` (version 3) is what to write; the older ``.npz`` (versions 1 and 2) is read and written too. Which of them
a file is, its first bytes say, whatever its name.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from astrape.audio.atomic import atomic_path
from astrape.audio.places import anywhere, local_file
from astrape.errors import AstrapeError, told_as
from astrape.voice.container import HEADER_BYTES, MAGIC, VERSION, decode_astrape, decode_header, encode_astrape
from astrape.voice.embedding import CHANNELS, checked_embedding
from astrape.voice.errors import VoicebankError
from astrape.voice.legacy import LARGEST_ARCHIVE, decode_npz, encode_npz
from astrape.voice.metadata import Metadata

__all__ = ["Metadata", "Voicebank", "VoicebankError", "map_embedding", "read_voicebank", "writable", "write_voicebank"]

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True, eq=False)
class Voicebank:
    """A voice to convert to.

    Attributes:
        embedding: 128 float32, read-only. Given as any floating array or tensor of that shape.
        metadata: where it comes from.
        version: of the form it was read from, 3 for ``.astrape``, 2 or 1 for ``.npz``; banks that differ in nothing
            else are equal.

    Raises:
        VoicebankError: for an embedding of another shape, or one that is not finite or all zeros.
    """

    embedding: npt.NDArray[np.float32]
    metadata: Metadata
    version: int = VERSION

    def __post_init__(self) -> None:
        given: Any = self.embedding
        values = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
        object.__setattr__(self, "embedding", checked_embedding(values))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Voicebank):
            return NotImplemented
        return self.embedding.tobytes() == other.embedding.tobytes() and self.metadata == other.metadata

    def __hash__(self) -> int:
        return hash(self.embedding.tobytes())

    @property
    def norm(self) -> float:
        """Length of the embedding's vector, positive."""
        return float(np.linalg.norm(self.embedding.astype(np.float64)))

    @property
    def speaker(self) -> Tensor:
        """The embedding as what a graph's control ``speaker`` takes: ``(1, 128)``, float32, a copy."""
        return torch.from_numpy(self.embedding.copy()).unsqueeze(0)


def read_voicebank(path: str | os.PathLike[str]) -> Voicebank:
    """Read a voicebank of either form, of this machine or by URL.

    An ``.astrape`` file is mapped to memory and checked there, then its parts are copied, so that the file may be
    replaced or removed afterwards. Memory stays below a few MiB whatever the file claims. Nothing is ever unpickled.

    Raises:
        VoicebankError: for a file that cannot be opened, or is not a valid voicebank, naming the field that is wrong.
    """
    with _read(path) as file:
        begin = file.read(4)
        file.seek(0)
        if begin in ZIP_MAGICS:
            return Voicebank(*decode_npz(file.read(LARGEST_ARCHIVE + 1)))
        if begin != MAGIC:
            raise VoicebankError(
                f"begins with {begin!r}: not a voicebank, which begins with {MAGIC!r} (or 'PK' for .npz)"
            )
        decode_header(file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as content:
            return Voicebank(*decode_astrape(content))


def map_embedding(path: str | os.PathLike[str]) -> npt.NDArray[np.float32]:
    """The embedding of an ``.astrape`` file as a read-only view of the file itself, mapped to memory.

    Only the header and the embedding are read, not the metadata: for thousands of voices side by side. The checksum is
    in the metadata, so damage to a number is not seen here; :func:`read_voicebank` sees it. The file must stay as long
    as the view does.

    Raises:
        VoicebankError: as :func:`read_voicebank` does; also for an ``.npz``, which is compressed.
    """
    with _read(path) as file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(HEADER_BYTES)
        if header[:4] in ZIP_MAGICS:
            raise VoicebankError("is an .npz, which is compressed: read it with read_voicebank")
        layout = decode_header(header, size)
        view: npt.NDArray[np.float32] = np.memmap(file, "<f4", "r", layout.embedding_offset, (CHANNELS,))
        checked_embedding(view)
        return view


def write_voicebank(bank: Voicebank, path: str | os.PathLike[str], *, version: int | None = None) -> None:
    """Write a voicebank; the file appears whole or not at all.

    What was read and not changed is written as the same bytes: an ``.astrape`` file always (but for padding, which it
    loses), an ``.npz`` when NumPy and zlib compress as those that wrote it did.

    Args:
        bank: what to write.
        path: ending in ``.astrape`` or ``.npz``, or a URL that does.
        version: 3 for ``.astrape``; 2 or 1 for ``.npz``. Left out, it is the one it was read from, and 2 for an
            ``.npz`` of what was not.

    Raises:
        VoicebankError: for another ending or version, metadata that the form has no room for, and a path that cannot
            be written.
    """
    suffix = writable(path)
    versions = (VERSION,) if suffix == ".astrape" else (2, 1)
    if version is not None and version not in versions:
        listed = " or ".join(map(str, versions))
        raise VoicebankError(f"{os.fsdecode(path)}: a {suffix} file has version {listed}, not {version}")
    try:
        if suffix == ".astrape":
            content = encode_astrape(bank.embedding, bank.metadata)
        else:
            kept = bank.version if bank.version in versions else versions[0]
            content = encode_npz(bank.embedding, bank.metadata, version or kept)
    except VoicebankError as error:
        raise VoicebankError(f"{os.fsdecode(path)}: {error}") from None
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except AstrapeError as error:
        raise VoicebankError(str(error)) from error


def writable(path: str | os.PathLike[str]) -> str:
    """The ending of a path that a voicebank can be written to.

    Raises:
        VoicebankError: when the ending is another, or there is no such folder.
    """
    place = anywhere(path)
    suffix = place.suffix.lower()
    if suffix not in (".astrape", ".npz"):
        raise VoicebankError(f"{os.fsdecode(path)}: a voicebank's name ends with .astrape (or .npz, the older form)")
    folder = place.parent
    if isinstance(folder, Path) and not folder.is_dir():
        raise VoicebankError(f"{os.fsdecode(path)}: there is no folder {os.fsdecode(folder)}: make it first")
    return suffix


@contextmanager
def _read(path: str | os.PathLike[str]) -> Iterator[Any]:
    """A regular file, opened for reading (opening a pipe would wait for ever); what is wrong with it names it."""
    with told_as(VoicebankError):
        local = local_file(path)
    try:
        mode = os.stat(local).st_mode
        if stat.S_ISDIR(mode):
            raise VoicebankError("is a folder, not a voicebank")
        if not stat.S_ISREG(mode):
            raise VoicebankError("is not a regular file")
        with open(local, "rb") as file:
            yield file
    except VoicebankError as error:
        raise VoicebankError(f"{os.fsdecode(path)}: {error}") from None
    except (OSError, ValueError) as error:
        raise VoicebankError(
            f"{os.fsdecode(path)}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
