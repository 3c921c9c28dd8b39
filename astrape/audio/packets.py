"""The true length of FLAC, Ogg and MP3 files, counted from their frames without decoding them.

Sources: RFC 9639 (FLAC); RFC 3533 (Ogg); ISO/IEC 11172-3 (MPEG audio).
"""

from __future__ import annotations

import io
import mmap
import os
from typing import BinaryIO

__all__ = ["flac_frames", "mp3_frames", "ogg_is_cut"]

TAIL = 1 << 17
"""Bytes at the end in which the last frame is looked for; the largest FLAC frame in use is about a quarter of that."""

FLAC_BLOCKS = {1: 192, **{code: 576 << (code - 2) for code in range(2, 6)}}
FLAC_BLOCKS |= {code: 256 << (code - 8) for code in range(8, 16)}

MPEG_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
MPEG1_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MPEG2_KBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def flac_frames(file: BinaryIO | io.FileIO) -> int | None:
    """Samples of a FLAC file up to the end of its last whole frame header's frame; ``None`` where none is found."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(42)
    if head[:4] != b"fLaC" or len(head) < 42 or head[4] & 0x7F:
        return None
    smallest, largest = int.from_bytes(head[8:10], "big"), int.from_bytes(head[10:12], "big")
    file.seek(max(42, size - TAIL))
    tail = file.read(TAIL)
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        found = _flac_header(tail[at : at + 16])
        if found is None:
            continue
        variable, number, block = found
        if block > largest or (not variable and smallest != largest):
            continue
        begin = number if variable else number * largest
        return begin + block
    return None


def _flac_header(data: bytes) -> tuple[bool, int, int] | None:
    """Whether blocks vary, the number of the frame or its first sample, and its samples; ``None``: not a header."""
    if len(data) < 6 or data[0] != 0xFF or data[1] & 0xFE != 0xF8 or data[3] & 1 or data[3] >> 4 > 10:
        return None
    code, rate = data[2] >> 4, data[2] & 15
    if code == 0 or rate == 15:
        return None
    length = 1 if data[4] < 0x80 else 8 - (data[4] ^ 0xFF).bit_length()
    if length > 7 or data[4] == 0xFF or 0x80 <= data[4] < 0xC0:
        return None
    number = data[4] if length == 1 else data[4] & (0x7F >> length)
    for byte in data[5 : 4 + length]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    at = 4 + length
    wide = {6: 1, 7: 2}.get(code, 0)
    block = int.from_bytes(data[at : at + wide], "big") + 1 if wide else FLAC_BLOCKS[code]
    at += wide + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if at >= len(data) or _crc8(data[:at]) != data[at]:
        return None
    return bool(data[1] & 1), number, block


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x07 if value & 0x80 else value << 1) & 0xFF
    return value


def ogg_is_cut(file: BinaryIO) -> bool:
    """Whether an Ogg file ends without the page that ends a stream, or within a page."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - TAIL))
    tail = file.read(TAIL)
    at = tail.rfind(b"OggS")
    page = tail[at:]
    if at < 0 or len(page) < 27 or len(page) < 27 + page[26]:
        return True
    length = 27 + page[26] + sum(page[27 : 27 + page[26]])
    return len(page) < length or not page[5] & 4


def mp3_frames(file: BinaryIO) -> int | None:
    """Samples of an MP3 file by its frames, one after the other; ``None`` where it has none.

    A first frame that only tells how many there are (Xing, Info or VBRI) is left out. Encoder delay and padding count.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _mp3_frames(data) or None


def _mp3_frames(data: mmap.mmap) -> int:
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) > at + 10:
        size = data[at + 6 : at + 10]
        at += 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])
    total, first = 0, True
    while at + 4 <= len(data):
        header = int.from_bytes(data[at : at + 4], "big")
        found = _mpeg_frame(header)
        if found is None:
            at = data.find(b"\xff", at + 1)
            if at < 0:
                break
            continue
        length, samples = found
        if first:
            if not any(mark in data[at : at + length] for mark in (b"Xing", b"Info", b"VBRI")):
                total += samples
            first = False
        elif at + length <= len(data):
            total += samples
        at += length
    return total


def _mpeg_frame(header: int) -> tuple[int, int] | None:
    """Bytes and samples of a layer III frame with this header; ``None`` where this is not such a header."""
    version, layer, kbit, rate = header >> 19 & 3, header >> 17 & 3, header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or version == 1 or layer != 1 or kbit in (0, 15) or rate == 3:
        return None
    hertz = MPEG_RATES[version][rate]
    kbits = (MPEG1_KBITS if version == 3 else MPEG2_KBITS)[kbit]
    samples = 1152 if version == 3 else 576
    return samples // 8 * kbits * 1000 // hertz + (header >> 9 & 1), samples
