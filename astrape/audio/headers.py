"""Headers of audio files, held against what the files hold.

libsndfile takes the shorter of both without saying so: a file that was cut short while it was copied reads as if it
were whole. Here the sizes in the headers of WAV (RIFF, RIFX, RF64, BW64), W64, AIFF, AU, CAF and NIST files are held
against the file's; :mod:`astrape.audio.packets` does the same for FLAC, Ogg and MP3.

A writer that cannot go back to its header, or dies before it does, leaves a length of 0 there or the largest that there
is. What follows is sound then, up to the end of the file, unless it is a chunk. Not all of that is libsndfile's view:
where it sees nothing, or refuses the file, :attr:`Claim.patched` has the bytes with which it reads what is there.

Sources: Microsoft, "Multimedia Programming Interface and Data Specifications 1.0", 1991 (RIFF); EBU Tech 3306 (RF64);
Apple, "Audio Interchange File Format: AIFF", 1989, and "Core Audio Format Specification 1.0".
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["UNKNOWN", "Claim", "claim_of", "says_length"]

UNKNOWN = {0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFFE, 0x7FFFF000, 0x80000000, 0xFFFFFFFE}
"""Sizes that programs write to a pipe, whose length is not known yet; they mean: to the end."""

PIPED = 0x7FFFFF00, 0x80000000
"""A range of sizes that mean the same: the largest of 31 bits, less that of the header."""

ENDLESS = 0xFFFFFFFF

LONGEST = 2**63 - 2**16
"""Bytes; sizes of 64 bits from here on, with a sign or without, are a writer's way to leave them open."""

CHUNKS = {b"LIST", b"bext", b"cue ", b"fact", b"id3 ", b"ID3 ", b"iXML", b"JUNK", b"PEAK", b"smpl", b"fmt ", b"_PMX"}
"""Marks of what may stand behind samples; a stream's first four bytes of sound are none of these."""

MOST_CHUNKS = 10_000
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")
NIST_HEADER = 1024


@dataclass(frozen=True)
class Claim:
    """A difference between a header and its file.

    Attributes:
        promised: bytes of audio that the header speaks of; ``None`` where it leaves that open.
        held: bytes of audio that the file has of them.
        surplus: bytes behind them that are neither audio that the header speaks of nor anything else it could be.
        begin: where the audio begins.
        cut: the file ends before its samples begin.
        unsized: the header leaves the length open, and samples follow: as many as there are.
        patched: bytes, and where they stand, that give the header its length where libsndfile needs it.
    """

    promised: int | None
    held: int
    surplus: int = 0
    begin: int = 0
    cut: bool = False
    unsized: bool = False
    patched: tuple[int, bytes] | None = None

    @property
    def missing(self) -> int:
        """Bytes that are promised and not there."""
        return 0 if self.promised is None else self.promised - self.held


def says_length(size: int) -> bool:
    """Whether a size in a header of 32 bits is meant: neither 0 nor what programs write to a pipe."""
    return size != 0 and size not in UNKNOWN and not PIPED[0] <= size < PIPED[1]


def claim_of(file: BinaryIO) -> Claim | None:
    """The promise of the header of a file of samples; ``None`` for a format without such a header, and a broken one."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    begin = file.read(40)
    try:
        found = _claimed(file, size, begin)
    except struct.error:
        found = None
    if found is None and size < _whole_size(begin):
        return Claim(None, 0, cut=True)
    return found


def _whole_size(begin: bytes) -> int:
    """Bytes that a file says it has in all; 0 where it does not."""
    if begin[:4] in (b"RIFF", b"RIFX", b"FORM", b"RF64", b"BW64") and len(begin) >= 8:
        return 8 + int.from_bytes(begin[4:8], "little" if begin[:4] in (b"RIFF", b"RF64", b"BW64") else "big")
    return int.from_bytes(begin[16:24], "little") if begin[:16] == W64_RIFF else 0


def _claimed(file: BinaryIO, size: int, begin: bytes) -> Claim | None:
    if begin[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and begin[8:12] == b"WAVE":
        return _riff(file, size, begin)
    if begin[:4] == b"FORM" and begin[8:12] in (b"AIFF", b"AIFC"):
        return _aiff(file, size)
    if begin[:16] == W64_RIFF:
        return _w64(file, size)
    if begin[:4] in (b".snd", b"dns."):
        return _au(begin, size)
    if begin[:4] == b"caff":
        return _caf(file, size)
    if begin[:8] == b"NIST_1A\n":
        return _nist(file, size)
    return None


def _riff(file: BinaryIO, size: int, begin: bytes) -> Claim | None:
    order = ">" if begin[:4] == b"RIFX" else "<"
    wide = None
    wide_at = 0
    for name, at, length in _chunks(file, 12, size, f"{order}4sI"):
        if name == b"ds64" and length >= 24:
            file.seek(wide_at := at)
            _, wide, _ = struct.unpack(f"{order}QQQ", file.read(24))
        if name == b"data":
            if wide is None or length not in (0, ENDLESS):
                return _claim(file, at, length, size, f"{order}4sI", _size(order, at - 4, size - at))
            open_ended = wide if 0 < wide < LONGEST else 0
            return _claim(file, at, open_ended, size, f"{order}4sI", (wide_at + 8, struct.pack("<Q", size - at)))
    return None


def _size(order: str, at: int, held: int) -> tuple[int, bytes]:
    """A size of 32 bits in a header, of what is held, or as large as it gets."""
    return at, struct.pack(f"{order}I", min(max(0, held), ENDLESS))


def _aiff(file: BinaryIO, size: int) -> Claim | None:
    for name, at, length in _chunks(file, 12, size, ">4sI"):
        if name == b"SSND":
            # Offset and block size come before the samples.
            promised = length - 8 if length > 8 and says_length(length) else 0
            return _claim(file, at + 8, promised, size, ">4sI", _size(">", at - 4, size - at))
    return None


def _w64(file: BinaryIO, size: int) -> Claim | None:
    # After the two identifiers of 16 bytes, and the size of 8 between them.
    at = 40
    for _ in range(MOST_CHUNKS):
        file.seek(at)
        name, length = struct.unpack("<16sQ", file.read(24))
        if name == W64_DATA:
            held = max(0, size - at - 24)
            if length <= 24 or length >= LONGEST:
                return Claim(None, held, 0, at + 24, unsized=held > 0)
            return Claim(length - 24, min(length - 24, held), 0, at + 24)
        if length < 24 or at + length > size:
            return None
        at += (length + 7) & ~7
    return None


def _au(begin: bytes, size: int) -> Claim | None:
    order = ">" if begin[:4] == b".snd" else "<"
    at, length = struct.unpack(f"{order}II", begin[4:12])
    held = max(0, size - at)
    if not says_length(length):
        return Claim(None, held, 0, at, unsized=held > 0, patched=(8, b"\xff" * 4) if held else None)
    return Claim(length, min(length, held), max(0, held - length), at)


def _caf(file: BinaryIO, size: int) -> Claim | None:
    at = 8
    for _ in range(MOST_CHUNKS):
        file.seek(at)
        name, length = struct.unpack(">4sq", file.read(12))
        if name == b"data":
            # The count of edits comes before the samples.
            held = max(0, size - at - 16)
            if length > 4:
                return Claim(length - 4, min(length - 4, held), 0, at + 16)
            file.seek(at + 16)
            unsized = held > 0 and (length < 0 or not _is_caf_chunk(file.read(12), held))
            patched = (at + 4, struct.pack(">q", held + 4)) if unsized else None
            return Claim(None, held, 0, at + 16, unsized=unsized, patched=patched)
        if length < 0:
            return None
        at += 12 + length
    return None


def _is_caf_chunk(begin: bytes, held: int) -> bool:
    name, length = begin[:4], int.from_bytes(begin[4:12], "big", signed=True)
    return len(begin) == 12 and all(32 <= byte < 127 for byte in name) and 0 <= length <= held - 12


def _nist(file: BinaryIO, size: int) -> Claim | None:
    file.seek(0)
    fields = {}
    for line in file.read(NIST_HEADER).decode("ascii", "replace").splitlines():
        name, _, rest = line.partition(" ")
        kind, _, value = rest.partition(" ")
        if kind == "-i" and value.strip().isdigit():
            fields[name] = int(value)
    try:
        promised = fields["sample_count"] * fields["channel_count"] * fields["sample_n_bytes"]
    except KeyError:
        return None
    held = max(0, size - NIST_HEADER)
    if not promised:
        return Claim(None, held, 0, NIST_HEADER, unsized=held > 0)
    return Claim(promised, min(promised, held), max(0, held - promised), NIST_HEADER)


def _chunks(file: BinaryIO, at: int, size: int, form: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and length of the chunks of an IFF or RIFF file, as long as they lie within it."""
    for _ in range(MOST_CHUNKS):
        if at + 8 > size:
            return
        file.seek(at)
        name, length = struct.unpack(form, file.read(8))
        yield name, at + 8, length
        at += 8 + length + length % 2


def _claim(
    file: BinaryIO, at: int, promised: int, size: int, form: str, patched: tuple[int, bytes] | None = None
) -> Claim:
    held = max(0, size - at)
    if promised == 0:
        file.seek(at)
        unsized = held > 0 and file.read(4) not in CHUNKS and not _is_known(file, at, size, form, padded=False)
        return Claim(None, held, 0, at, unsized=True, patched=patched) if unsized else Claim(0, 0, 0, at)
    if not says_length(promised):
        # A file may be that long, too.
        return Claim(promised if promised <= held else None, min(promised, held), 0, at, unsized=promised > held)
    if promised >= held:
        return Claim(promised, held, 0, at)
    behind = at + promised
    return Claim(promised, promised, 0 if _is_known(file, behind, size, form) else size - behind, at)


def _is_known(file: BinaryIO, at: int, size: int, form: str, *, padded: bool = True) -> bool:
    """Whether what follows the audio is chunks, a tag, or, where there may be some, padding with zeros."""
    at += at % 2
    file.seek(at)
    rest = file.read(1 << 16)
    if padded and not rest.strip(b"\0") and at + len(rest) >= size and len(rest) < 1 << 16:
        # Zeros to the end of a disk's block; the audio of a recorder that died is longer.
        return len(rest) <= 4096
    if rest[:3] in (b"TAG", b"ID3") or rest[:8] == b"APETAGEX":
        return True
    if len(rest) < 8:
        return padded and not rest.strip(b"\0")
    for name, begin, length in _chunks(file, at, size, form):
        if not all(32 <= byte < 127 for byte in name) or begin + length > size + 1:
            return False
        at = begin + length + length % 2
    return size - at < 8
