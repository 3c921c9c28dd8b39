"""Checksums of files of weights: whether they hold what was written.

A safetensors file has no checksum of its own: a byte that flips on a disk is another weight, and nobody is told. What
astrape writes has the CRC-32 of each tensor in the file's metadata, with type and shape, and that of what the metadata
says besides, and reading compares them.
Archives of ``torch.save`` are zip files, whose CRC-32 torch writes and does not read: here it is read.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from astrape.audio.places import Where, local_file
from astrape.errors import RecipeError

__all__ = ["archive_fault", "checked_sums", "checked_tensors", "open_tensors", "read_tensors", "sealed_file"]

SUMS = "crc32"
"""Metadata: the CRC-32 of each tensor by name, as JSON."""

SEALED = "checked_by"
"""Metadata: says that there are checksums. With one of both gone, the header is damaged."""

ABOUT = "__metadata__"
"""Stands for the metadata where a tensor's name would stand. safetensors has no tensor of that name."""


def sealed_file(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """A safetensors file of these tensors: its metadata are ``about``, and a checksum of each tensor and of ``about``.

    The same tensors give the same bytes: safetensors writes its metadata in an order of chance, and here it is sorted.
    """
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sums = {name: _sum(tensor) for name, tensor in own.items()} | {ABOUT: _about_sum(about)}
    metadata = {**about, SEALED: SUMS, SUMS: json.dumps(sums, separators=(",", ":"), sort_keys=True)}
    written = save(own, metadata=metadata)
    end = 8 + int.from_bytes(written[:8], "little")
    header = json.loads(written[8:end])
    header[ABOUT] = dict(sorted(header[ABOUT].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of 8 bytes
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(written)[end:]))


def checked_sums(file: Any, path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The checksums in a file's metadata, which is held against its own; ``None`` for a file without.

    Args:
        file: of ``safetensors.safe_open``.
        path: for messages.

    Raises:
        RecipeError: for checksums that cannot be read or are not of this file's tensors, and metadata that is not as it
            was written.
    """
    about = file.metadata() or {}
    if SUMS not in about and SEALED not in about:
        return None
    try:
        sums = json.loads(about[SUMS]) if about[SEALED] == SUMS else None
    except (KeyError, ValueError, RecursionError):
        sums = None
    if not isinstance(sums, dict):
        raise RecipeError(f"{path}: is damaged: its checksums cannot be read: copy it again")
    # Files from before the metadata had a checksum of its own lack that one alone.
    if not set(file.keys()) <= sums.keys() or not sums.keys() <= {*file.keys(), ABOUT}:
        raise RecipeError(f"{path}: is damaged: its checksums are of other tensors than it holds: copy it again")
    if ABOUT in sums and sums[ABOUT] != _about_sum(about):
        raise RecipeError(f"{path}: is damaged: its metadata is not what was written (CRC-32): copy it again")
    return sums


def checked_tensors(file: Any, names: Iterable[str], path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors of an open safetensors file, held against the checksums that it has of them.

    Args:
        file: of ``safetensors.safe_open``.
        names: which; not all of them need be read.
        path: for messages.

    Raises:
        RecipeError: for a tensor that is not as it was written.
    """
    sums = checked_sums(file, path)
    found = {}
    for name in names:
        tensor = file.get_tensor(name)
        if sums is not None and sums.get(name) != _sum(tensor):
            raise RecipeError(f"{path}: is damaged: '{name}' is not what was written (CRC-32): copy it again")
        found[name] = tensor
    return found


@contextmanager
def open_tensors(path: Where) -> Iterator[Any]:
    """A safetensors file, of this machine or of a store, as ``safetensors.safe_open`` gives it.

    Raises:
        RecipeError: for a file that cannot be read, here and while it is open.
    """
    try:
        with safe_open(local_file(path), framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"{path}: cannot be read as safetensors: {error}") from error


def read_tensors(path: Where) -> dict[str, Tensor]:
    """All tensors of a safetensors file, of this machine or of a store, held against the checksums that it has of them.

    Raises:
        RecipeError: for a file that cannot be read, and a tensor that is not as it was written.
    """
    with open_tensors(path) as file:
        return checked_tensors(file, list(file.keys()), path)


def archive_fault(path: str | os.PathLike[str]) -> str | None:
    """The fault that its checksums show in an archive of ``torch.save``, in words; ``None`` where they hold.

    Also ``None`` for a file of another form, an older one of torch for instance, which has no checksums.
    """
    with Path(path).open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return None
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    # Damage leads the reader anywhere: unknown compression, a password, offsets before the file.
    except Exception as error:
        return str(error) or type(error).__name__
    return None if bad is None else f"'{bad}' is not what was written (CRC-32)"


def _sum(tensor: Tensor) -> str:
    held = tensor.detach().cpu().contiguous()
    begin = f"{held.dtype} {list(held.shape)}".encode()
    data = held.reshape(-1).view(torch.uint8).numpy().data if held.numel() else b""
    return f"{zlib.crc32(data, zlib.crc32(begin)):08x}"


def _about_sum(about: Mapping[str, str]) -> str:
    said = {name: value for name, value in about.items() if name not in (SEALED, SUMS)}
    return f"{zlib.crc32(json.dumps(said, separators=(',', ':'), sort_keys=True).encode()):08x}"
