"""The layout of ``.astrape`` files, version 3: a header, an embedding, and JSON.

A little-endian header of 48 bytes comes first::

    offset  0   4 bytes   magic, "ASR1"
            4   uint32    version, 3
            8   uint32    flags; bit 0: an embedding is there
           12   uint32    reserved, 0
           16   uint64    offset of the embedding
           24   uint32    its length in bytes, 512
           28   uint64    offset of the metadata
           36   uint32    their length in bytes
           40   uint64    reserved, 0

then 128 float32, then UTF-8 JSON, whose last field is a checksum of both where astrape built the voice. Readers go by
the offsets, so there may be padding of zeros; what is written here has
none. Nothing that a header says is believed before it is checked against the length of the file.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from astrape.voice.embedding import CHANNELS, checked_embedding
from astrape.voice.errors import VoicebankError
from astrape.voice.metadata import LARGEST_METADATA, SEAL, Metadata, decode_metadata, encode_metadata

__all__ = [
    "HEADER_BYTES",
    "LARGEST_FILE",
    "MAGIC",
    "VERSION",
    "Layout",
    "decode_astrape",
    "decode_header",
    "encode_astrape",
]

MAGIC = b"ASR1"
VERSION = 3
HAS_EMBEDDING = 1
HEADER = struct.Struct("<4sIIIQIQIQ")
HEADER_BYTES = HEADER.size
SEALED = re.compile(rb',"(.{%d})":"(.{64})"}$' % len(SEAL), re.DOTALL)
EMBEDDING_BYTES = 4 * CHANNELS
LARGEST_FILE = LARGEST_METADATA + (64 << 10)
"""Bytes: the largest metadata, the rest, and room for padding."""


@dataclass(frozen=True)
class Layout:
    """Offsets of the parts of a file, in bytes; they lie within the file and do not overlap."""

    embedding_offset: int
    metadata_offset: int
    metadata_length: int


def decode_header(header: bytes, size: int) -> Layout:
    """Read the header of a file of ``size`` bytes and check it against that size.

    Raises:
        VoicebankError: naming the field that is wrong.
    """
    if size > LARGEST_FILE:
        raise VoicebankError(f"has {size} bytes, and a voicebank has at most {LARGEST_FILE}")
    if len(header) < HEADER.size:
        raise VoicebankError(f"has {size} bytes, and the header alone takes {HEADER.size}: it is cut off, copy it anew")
    magic, version, flags, reserved, start, length, text_start, text_length, tail = HEADER.unpack(header[: HEADER.size])
    if magic != MAGIC:
        raise VoicebankError(f"field 'magic' is {magic!r}, not {MAGIC!r}: this is not an .astrape file")
    if version != VERSION:
        raise VoicebankError(
            f"field 'version' is {version}, and this reads version {VERSION}: build the voicebank anew"
        )
    if not flags & HAS_EMBEDDING:
        raise VoicebankError(f"field 'flags' is {flags:#x}: bit 0 is clear, so there is no embedding: build it anew")
    if flags != HAS_EMBEDDING:
        raise VoicebankError(f"field 'flags' is {flags:#x}: version {VERSION} knows bit 0 alone")
    for name, value, place in (("reserved", reserved, 12), ("reserved", tail, 40)):
        if value:
            raise VoicebankError(f"field '{name}' at byte {place} is {value}, and version {VERSION} has 0 there")
    if length != EMBEDDING_BYTES:
        raise VoicebankError(f"field 'embedding_length' is {length}, not {EMBEDDING_BYTES} ({CHANNELS} float32)")
    if not 0 < text_length <= LARGEST_METADATA:
        raise VoicebankError(f"field 'metadata_length' is {text_length}, not 1 to {LARGEST_METADATA}")
    _check_within("embedding", start, length, size)
    _check_within("metadata", text_start, text_length, size)
    if start < text_start + text_length and text_start < start + length:
        raise VoicebankError(
            f"field 'metadata_offset' is {text_start}: {text_length} bytes from there overlap the embedding, "
            f"bytes {start} to {start + length - 1}"
        )
    return Layout(start, text_start, text_length)


def decode_astrape(content: memoryview) -> tuple[npt.NDArray[np.float32], Metadata]:
    """Embedding and metadata of a whole file; both are copies.

    Raises:
        VoicebankError: naming the field that is wrong.
    """
    layout = decode_header(bytes(content[: HEADER.size]), len(content))
    _check_padding(content, layout)
    values = bytes(content[layout.embedding_offset : layout.embedding_offset + EMBEDDING_BYTES])
    text = bytes(content[layout.metadata_offset : layout.metadata_offset + layout.metadata_length])
    _check_seal(text, values)
    return checked_embedding(np.frombuffer(values, "<f4")), decode_metadata(text)


def encode_astrape(embedding: npt.NDArray[np.float32], metadata: Metadata) -> bytes:
    """The bytes of a file.

    Raises:
        VoicebankError: for metadata that are too long or have no form in JSON.
    """
    values = embedding.astype("<f4").tobytes()
    text = _sealed(encode_metadata(metadata), values, metadata.sealed)
    text_start = HEADER.size + len(values)
    parts = (MAGIC, VERSION, HAS_EMBEDDING, 0, HEADER.size, len(values), text_start, len(text), 0)
    return HEADER.pack(*parts) + values + text


def _sealed(text: bytes, values: bytes, wanted: bool) -> bytes:
    """Metadata with a checksum of themselves and the embedding as their last field, where that is wanted."""
    if not wanted:
        return text
    if SEALED.search(text) is None:
        text = text[:-1] + b',"%s":"%s"}' % (SEAL.encode(), b"0" * 64)
    return text[:-66] + _seal(text, values) + b'"}'


def _seal(text: bytes, values: bytes) -> bytes:
    """SHA-256 of the embedding and the metadata, the checksum itself taken as zeros."""
    return hashlib.sha256(values + text[:-66] + b"0" * 64 + b'"}').hexdigest().encode()


def _check_seal(text: bytes, values: bytes) -> None:
    match = SEALED.search(text)
    # A damaged name is still known by most of its letters.
    if match is None or sum(one == other for one, other in zip(match[1], SEAL.encode(), strict=True)) < len(SEAL) // 2:
        return
    if match[2] != _seal(text, values):
        raise VoicebankError(
            f"is damaged: embedding and metadata are not what was written (field '{SEAL}'): copy it again, or build it "
            f"anew"
        )


def _check_within(name: str, start: int, length: int, size: int) -> None:
    if start < HEADER.size:
        raise VoicebankError(f"field '{name}_offset' is {start}: within the header, which takes {HEADER.size} bytes")
    if start + length > size:
        signed = f" (as a signed number {start - 2**64})" if start >= 2**63 else ""
        raise VoicebankError(
            f"field '{name}_offset' is {start}{signed}: {length} bytes from there reach past the end of the file, "
            f"which has {size}: it is cut off or damaged, copy it anew"
        )


def _check_padding(content: memoryview, layout: Layout) -> None:
    """Refuse bytes outside all parts that are not zero, which is data that the header does not speak of."""
    parts = sorted(
        (
            (0, HEADER.size),
            (layout.embedding_offset, layout.embedding_offset + EMBEDDING_BYTES),
            (layout.metadata_offset, layout.metadata_offset + layout.metadata_length),
            (len(content), len(content)),
        )
    )
    for (_, end), (start, _) in pairwise(parts):
        if any(content[end:start]):
            raise VoicebankError(f"bytes {end} to {start - 1} hold data that belong to neither embedding nor metadata")
