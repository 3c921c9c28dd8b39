"""Hostile voicebanks: whatever the bytes, a valid bank or a ``VoicebankError``, in little time and memory."""

from __future__ import annotations

import io
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from astrape.voice.voicebank import VoicebankError, map_embedding, read_voicebank
from tests.voice.test_voicebank_format import FIELDS, VALUES, astrape, compact, npz_fields, refused, save

VALID = astrape()
MOST_MEMORY = 8 << 20


def npz(**change: Any) -> bytes:
    target = io.BytesIO()
    np.savez_compressed(target, **npz_fields(**change))
    return target.getvalue()


VALID_NPZ = npz()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def npy(descr: str, shape: str, content: bytes, order: str = "False") -> bytes:
    """A ``.npy`` file with any header."""
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def members(**change: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(VALID_NPZ)) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    return found | {f"{name}.npy": content for name, content in change.items()}


def survives(content: bytes, folder: Path) -> bool:
    """Whether these bytes are a voicebank; they must be one, or be refused with the file's name."""
    path = save(folder / "hostile.astrape", content)
    faults: dict[Any, str] = {}
    for read in (read_voicebank, map_embedding):
        try:
            read(path)
        except VoicebankError as error:
            faults[read] = str(error)
    for message in faults.values():
        assert message.startswith(str(path))
        assert len(message) < len(str(path)) + 400
    return read_voicebank not in faults


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


mutations = st.lists(
    st.tuples(
        st.sampled_from(["set", "drop", "insert", "double"]),
        st.integers(0, 2**16),
        st.one_of(
            st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, bytes(8), b"\xff\xff\xff\x7f", b"{", b"]"])
        ),
    ),
    min_size=1,
    max_size=6,
)


def mutated(content: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for what, place, data in changes:
        at = place % (len(content) + 1)
        if what == "set":
            content = content[:at] + data + content[at + len(data) :]
        elif what == "drop":
            content = content[:at] + content[at + len(data) :]
        elif what == "insert":
            content = content[:at] + data + content[at:]
        else:
            content = content[:at] + content[max(0, at - 40) : at] + content[at:]
    return content


@settings(max_examples=400)
@given(content=st.binary(max_size=600) | st.binary(max_size=600).map(lambda tail: b"ASR1" + tail))
def test_random_bytes(folder: Path, content: bytes) -> None:
    assert not survives(content, folder)


@settings(max_examples=600)
@given(changes=mutations)
def test_mutations_of_a_file(folder: Path, changes: list[tuple[str, int, bytes]]) -> None:
    survives(mutated(VALID, changes), folder)


@settings(max_examples=600)
@given(changes=mutations)
def test_mutations_of_an_npz(folder: Path, changes: list[tuple[str, int, bytes]]) -> None:
    survives(mutated(VALID_NPZ, changes), folder)


@settings(max_examples=300)
@given(
    member=st.sampled_from(list(members())),
    changes=mutations,
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_mutations_of_an_array_in_an_npz_that_is_whole(
    folder: Path, member: str, changes: list[tuple[str, int, bytes]], method: int
) -> None:
    found = members()
    survives(zipped(found | {member: mutated(found[member], changes)}, method), folder)


words = st.sampled_from([0, 1, 47, 48, 49, 512, 559, 560, 561, len(VALID), 2**31, 2**32 - 1])
longs = (
    words | st.sampled_from([2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 48, 2**64 - 512]) | st.integers(0, 2**64 - 1)
)


@settings(max_examples=500)
@given(start=longs, length=words, text_start=longs, text_length=words, tail=st.binary(max_size=64))
@example(start=48, length=512, text_start=560, text_length=len(compact({})), tail=b"")
def test_any_offsets_and_lengths(
    folder: Path, start: int, length: int, text_start: int, text_length: int, tail: bytes
) -> None:
    header = {"start": start, "length": length, "text_start": text_start, "text_length": text_length}
    right = (start, length, text_start, text_length) == (48, 512, 560, len(VALID) - 560) and not any(tail)
    assert survives(astrape(tail=tail, **header), folder) == right


@pytest.mark.parametrize("content", [VALID, VALID_NPZ], ids=["astrape", "npz"])
def test_a_file_that_is_cut_off_is_refused(folder: Path, content: bytes) -> None:
    for end in {*range(0, len(content), 7), *range(len(content) - 60, len(content))}:
        assert not survives(content[:end], folder), end
    assert survives(content, folder)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(fields=st.dictionaries(st.sampled_from([name[:-4] for name in members()]), json_values), other=json_values)
def test_any_json(folder: Path, fields: dict[str, Any], other: Any) -> None:
    for content in ({**FIELDS, **fields}, other):
        try:
            text = compact(content)
        except UnicodeEncodeError:
            continue
        survives(astrape(text), folder)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("unpickled",))


HUGE = 1 << 40
ARCHIVES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no archive": (lambda: b"PK\x03\x04" + bytes(100), ("archive",)),
    "empty archive": (lambda: zipped({}), ("format_version",)),
    "no embedding": (lambda: npz(global_embedding=None), ("global_embedding",)),
    "no duration": (lambda: npz(duration_seconds=None), ("duration_seconds",)),
    "version 3": (lambda: npz(format_version=np.asarray(3)), ("format_version", "3")),
    "version as float": (lambda: npz(format_version=np.asarray(2.0)), ("format_version",)),
    "two versions": (lambda: npz(format_version=np.asarray([2, 2])), ("format_version",)),
    "too few": (lambda: npz(global_embedding=VALUES[:127]), ("(127,)",)),
    "too many dimensions": (lambda: npz(global_embedding=VALUES[None]), ("(1, 128)",)),
    "integers": (lambda: npz(global_embedding=np.arange(128)), ("floating",)),
    "complex": (lambda: npz(global_embedding=VALUES.astype(np.complex64)), ("c8",)),
    "too large for float32": (lambda: npz(global_embedding=np.full(128, 1e300)), ("finite",)),
    "objects": (lambda: npz(global_embedding=np.array([Bomb()] * 128, dtype=object)), ("pickled",)),
    "object scalar": (lambda: npz(source_path=np.array(Bomb(), dtype=object)), ("source_path", "pickled")),
    "a bare pickle": (lambda: zipped(members(source_path=pickle.dumps(Bomb()))), ("source_path",)),
    "bytes": (lambda: npz(source_path=np.asarray(b"a.wav")), ("source_path",)),
    "a string for a number": (lambda: npz(rms_dbfs=np.asarray("-20")), ("rms_dbfs", "number")),
    "a number for a string": (lambda: npz(created_utc=np.asarray(2026.0)), ("created_utc", "string")),
    "infinite": (lambda: npz(rms_dbfs=np.asarray(np.inf)), ("rms_dbfs", "finite")),
    "out of range": (lambda: npz(clipping_fraction=np.asarray(2.0)), ("clipping_fraction", "0 to 1")),
    "several paths": (lambda: npz(source_path=np.asarray(["a", "b"])), ("source_path", "(2,)")),
    "warning without a list": (lambda: npz(quality_warnings=np.asarray("x")), ("quality_warnings",)),
    "no character": (
        lambda: zipped(members(source_path=npy("'<U1'", "()", b"\xff\xff\xff\xff"))),
        ("source_path", "character"),
    ),
    "half a pair": (lambda: zipped(members(source_path=npy("'<U1'", "()", b"\x00\xd8\0\0"))), ("character",)),
    "huge shape": (lambda: zipped(members(global_embedding=npy("'<f4'", "(999999999, 999999999)", b""))), ("takes",)),
    "shape beyond a long": (lambda: zipped(members(global_embedding=npy("'<f4'", f"({HUGE},)", b""))), ("plain",)),
    "negative shape": (lambda: zipped(members(global_embedding=npy("'<f4'", "(-1,)", b""))), ("plain",)),
    "endless warnings": (lambda: zipped(members(quality_warnings=npy("'<U0'", "(999999999,)", b""))), ("no size",)),
    "code in the header": (
        lambda: zipped(members(global_embedding=npy("__import__('os')", "(128,)", VALUES.tobytes()))),
        ("plain",),
    ),
    "structured": (
        lambda: zipped(members(global_embedding=npy("[('a', '<f4')]", "(128,)", VALUES.tobytes()))),
        ("plain",),
    ),
    "deep header": (lambda: zipped(members(global_embedding=npy("(" * 3000, "()", b""))), ("plain",)),
    "bomb": (lambda: zipped(members(source_path=npy("'<U1'", "()", bytes(200 << 20)))), ("source_path", "claims")),
    "lzma": (lambda: zipped(members(), zipfile.ZIP_LZMA), ("method 14",)),
    "too large": (lambda: zipped(members() | {"x": bytes(2 << 20)}, zipfile.ZIP_STORED), (str(1 << 20),)),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_hostile_archives_are_refused_in_little_memory(tmp_path: Path, case: str, capfd: Any) -> None:
    make, said = ARCHIVES[case]
    path = save(tmp_path / "a.npz", make())
    tracemalloc.start()
    begin = time.process_time()
    try:
        refused(path, *said)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
        assert time.process_time() - begin < 2
    finally:
        tracemalloc.stop()
    assert "unpickled" not in capfd.readouterr().out


def test_a_member_that_is_larger_than_it_claims_is_refused(tmp_path: Path) -> None:
    content = zipped(members(source_path=npy("'<U1'", "()", bytes(50 << 20))))
    claimed = struct.pack("<L", len(npy("'<U1'", "()", bytes(50 << 20))))
    assert content.count(claimed) == 2
    path = save(tmp_path / "a.npz", content.replace(claimed, struct.pack("<L", 200)))
    tracemalloc.start()
    try:
        refused(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    target = io.BytesIO(VALID_NPZ)
    with zipfile.ZipFile(target, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("source_path.npy", members()["source_path.npy"])
    refused(save(tmp_path / "a.npz", target.getvalue()), "source_path", "twice")


def test_huge_claims_of_a_header_take_no_memory(tmp_path: Path) -> None:
    for header in ({"start": 2**63}, {"text_start": 2**62}, {"text_length": 2**32 - 1}, {"length": 2**32 - 1}):
        path = save(tmp_path / "a.astrape", astrape(**header))
        tracemalloc.start()
        try:
            refused(path)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


def test_a_million_fields_take_no_quadratic_time(tmp_path: Path) -> None:
    begin = time.process_time()
    text = b"{" + b",".join(b'"%x":0' % number for number in range(90_000)) + b',"0":0}'
    refused(save(tmp_path / "a.astrape", astrape(text)), "twice")
    assert time.process_time() - begin < 5


def test_arrays_of_other_names_are_passed_over(tmp_path: Path) -> None:
    whole = read_voicebank(save(tmp_path / "a.npz", VALID_NPZ))
    more = npz(other=np.array([Bomb()], dtype=object), notes=np.zeros(2**20))
    assert read_voicebank(save(tmp_path / "b.npz", more)) == whole


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.astrape")
    refused(tmp_path / "pipe.astrape", "regular")
