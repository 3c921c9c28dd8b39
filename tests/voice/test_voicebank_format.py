"""The two forms of voicebanks, against files made here from the description of the form."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.voice.voicebank import (
    Metadata,
    Voicebank,
    VoicebankError,
    map_embedding,
    read_voicebank,
    write_voicebank,
)

FIELDS: dict[str, Any] = {
    "duration_seconds": 8.328004535147393,
    "source_sample_rate": 44100,
    "source_path": "/home/무엇/été.wav",
    "embedding_model": "someone/some-encoder",
    "reference_sha256": "ab" * 32,
    "created_utc": "2026-06-25T07:58:30.896484",
    "peak_amplitude": 0.47384852170944214,
    "rms_dbfs": -26.716973469182506,
    "clipping_fraction": 0.0,
    "active_speech_ratio": 0.3648618757724762,
    "dc_offset": 8.626096132502425e-06,
    "quality_warnings": ["low_active_speech_ratio"],
}
VALUES = np.random.default_rng(1).normal(size=128).astype("<f4")


def compact(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def astrape(text: bytes = compact(FIELDS), values: bytes = VALUES.tobytes(), tail: bytes = b"", **header: Any) -> bytes:
    """A file, written field by field; ``header`` overrides single fields."""
    order = ("magic", "version", "flags", "reserved", "start", "length", "text_start", "text_length", "reserved2")
    usual = dict(zip(order, (b"ASR1", 3, 1, 0, 48, 512, 560, len(text), 0), strict=True))
    return struct.pack("<4sIIIQIQIQ", *(header.get(name, usual[name]) for name in order)) + values + text + tail


def npz_fields(**change: Any) -> dict[str, Any]:
    """The arrays of version 2."""
    arrays: dict[str, Any] = {"format_version": np.asarray(2, dtype=np.int64), "global_embedding": VALUES}
    for name, value in FIELDS.items():
        kind = np.float32 if isinstance(value, float) else np.int64 if isinstance(value, int) else np.str_
        arrays[name] = np.asarray(value, dtype=kind)
    return {name: value for name, value in (arrays | change).items() if value is not None}


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refused(path: Path, *words: str) -> str:
    """The error's message: the file's name, on one line, and these words."""
    with pytest.raises(VoicebankError) as caught:
        read_voicebank(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


def test_a_file_is_read_as_it_stands_and_written_as_it_was(tmp_path: Path) -> None:
    path = save(tmp_path / "a.astrape", astrape())
    bank = read_voicebank(path)
    assert bank.embedding.tobytes() == VALUES.tobytes()
    assert bank.metadata.to_dict() == FIELDS
    assert bank.norm == pytest.approx(float(np.sqrt((VALUES.astype(float) ** 2).sum())), rel=1e-12)
    write_voicebank(bank, tmp_path / "b.astrape")
    assert (tmp_path / "b.astrape").read_bytes() == path.read_bytes()
    anew = Voicebank(VALUES, Metadata(**{**FIELDS, "quality_warnings": ("low_active_speech_ratio",)}))
    write_voicebank(anew, tmp_path / "c.astrape")
    assert (tmp_path / "c.astrape").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(FIELDS, indent=2).encode(),
        json.dumps(dict(reversed(FIELDS.items()))).encode(),
        compact({**FIELDS, "duration_seconds": 8, "rms_dbfs": None, "made_by": {"tool": [1, 2.50, None]}}),
        compact(FIELDS).replace(b"0.0", b"0E0"),
        compact({name: FIELDS[name] for name in list(FIELDS)[:3]}),
    ],
)
def test_json_of_other_writers_is_kept_as_it_was_until_something_changes(tmp_path: Path, text: bytes) -> None:
    path = save(tmp_path / "a.astrape", astrape(text))
    bank = read_voicebank(path)
    write_voicebank(bank, tmp_path / "b.astrape")
    assert (tmp_path / "b.astrape").read_bytes() == path.read_bytes()
    changed = Voicebank(bank.embedding, dataclasses.replace(bank.metadata, source_path="elsewhere.wav"))
    write_voicebank(changed, tmp_path / "c.astrape")
    found = json.loads((tmp_path / "c.astrape").read_bytes()[560:])
    assert found["source_path"] == "elsewhere.wav"
    assert found.get("made_by") == json.loads(text).get("made_by")
    assert read_voicebank(tmp_path / "c.astrape") == changed


def test_padding_and_any_order_of_the_parts_are_read(tmp_path: Path) -> None:
    text = compact(FIELDS)
    plain = read_voicebank(save(tmp_path / "a.astrape", astrape()))
    padded = astrape(text, bytes(16) + VALUES.tobytes() + bytes(64), start=64, text_start=640, tail=bytes(24))
    assert read_voicebank(save(tmp_path / "b.astrape", padded)) == plain
    swapped = astrape(
        b"", text + bytes(3) + VALUES.tobytes(), start=51 + len(text), text_start=48, text_length=len(text)
    )
    path = save(tmp_path / "c.astrape", swapped)
    assert read_voicebank(path) == plain
    assert np.array_equal(map_embedding(path), VALUES)


def test_the_embedding_is_mapped_and_read_only(tmp_path: Path) -> None:
    path = save(tmp_path / "a.astrape", astrape())
    view = map_embedding(path)
    assert isinstance(view, np.memmap)
    assert view.tobytes() == VALUES.tobytes()
    for values in (view, read_voicebank(path).embedding):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1
    speaker = read_voicebank(path).speaker
    assert speaker.shape == (1, 128)
    assert torch.equal(speaker[0], torch.from_numpy(VALUES.copy()))
    save(tmp_path / "b.astrape", astrape(b"no JSON"))
    assert np.array_equal(map_embedding(tmp_path / "b.astrape"), VALUES)
    with pytest.raises(VoicebankError, match="finite"):
        map_embedding(save(tmp_path / "c.astrape", astrape(values=struct.pack("<128f", *[float("nan")] * 128))))


@pytest.mark.parametrize("version", [1, 2])
def test_npz_is_read_and_written_as_numpy_does(tmp_path: Path, version: int) -> None:
    arrays = npz_fields(format_version=np.asarray(version, dtype=np.int64))
    if version == 1:
        arrays = {name: arrays[name] for name in list(arrays)[:5]}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    bank = read_voicebank(tmp_path / "a.npz")
    assert bank.version == version
    assert bank.embedding.tobytes() == VALUES.tobytes()
    for name, value in bank.metadata.to_dict().items():
        if name in arrays:
            assert value == (np.float32(FIELDS[name]) if isinstance(FIELDS[name], float) else FIELDS[name]), name
        else:
            assert value in (None, "", []), name
    write_voicebank(bank, tmp_path / "b.npz")
    assert (tmp_path / "b.npz").read_bytes() == (tmp_path / "a.npz").read_bytes()
    with np.load(tmp_path / "b.npz", allow_pickle=False) as loaded:
        assert list(loaded) == list(arrays)
        for name in loaded:
            assert loaded[name].dtype == arrays[name].dtype
            assert np.array_equal(loaded[name], arrays[name])
    write_voicebank(bank, tmp_path / "c.astrape")
    assert read_voicebank(tmp_path / "c.astrape") == bank


def test_npz_keeps_what_was_not_measured_as_nan(tmp_path: Path) -> None:
    write_voicebank(Voicebank(VALUES, Metadata(6.5, 16000, "a.wav")), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as loaded:
        assert np.isnan(loaded["rms_dbfs"])
    assert read_voicebank(tmp_path / "a.npz").metadata.rms_dbfs is None


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=150)
@given(
    values=st.binary(min_size=512, max_size=512),
    duration=st.floats(5, 1e6),
    rate=st.integers(1, 2**31),
    strings=st.tuples(texts, texts, texts, texts),
    level=st.none() | finite,
    share=st.none() | st.floats(0, 1),
    warnings=st.lists(texts, max_size=4),
)
def test_whatever_is_valid_comes_back(
    tmp_path_factory: Any,
    values: bytes,
    duration: float,
    rate: int,
    strings: tuple[str, str, str, str],
    level: float | None,
    share: float | None,
    warnings: list[str],
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.astrape"
    metadata = Metadata(duration, rate, *strings, None, level, share, share, level, tuple(warnings))
    embedding = np.frombuffer(values, "<f4")
    embedding = np.where(np.isfinite(embedding), embedding, np.float32(-1e-45))
    embedding[0] = 1
    bank = Voicebank(embedding, metadata)
    write_voicebank(bank, path)
    found = read_voicebank(path)
    assert found == bank
    assert found.embedding.tobytes() == embedding.tobytes()


HEADERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "magic": ({"magic": b"RIFF"}, ("RIFF", "ASR1")),
    "older": ({"version": 2}, ("version", "2", "3")),
    "newer": ({"version": 4}, ("version", "4", "3")),
    "no embedding": ({"flags": 0}, ("flags", "bit 0")),
    "unknown flags": ({"flags": 5}, ("flags", "0x5")),
    "reserved": ({"reserved": 7}, ("reserved", "7")),
    "reserved at the end": ({"reserved2": 2**40}, ("reserved", str(2**40))),
    "short embedding": ({"length": 508}, ("embedding_length", "508", "512")),
    "huge embedding": ({"length": 2**32 - 1}, ("embedding_length", "512")),
    "embedding in the header": ({"start": 44}, ("embedding_offset", "44", "48")),
    "embedding beyond the end": ({"start": 2**40}, ("embedding_offset", str(2**40), "past the end")),
    "negative offset": ({"start": 2**64 - 48}, ("embedding_offset", "-48")),
    "wraps around": ({"text_start": 2**64 - 1}, ("metadata_offset", "-1")),
    "metadata in the header": ({"text_start": 0}, ("metadata_offset", "header")),
    "metadata over the embedding": ({"text_start": 559}, ("metadata_offset", "559", "overlap")),
    "the other way round": ({"start": 60, "text_start": 48}, ("overlap",)),
    "no metadata": ({"text_length": 0}, ("metadata_length", "0")),
    "too long": ({"text_length": len(compact(FIELDS)) + 1}, ("metadata_offset", "past the end")),
    "too short": ({"text_length": len(compact(FIELDS)) - 1}, ("neither",)),
    "huge metadata": ({"text_length": 2**32 - 1}, ("metadata_length", str(2**32 - 1))),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_is_wrong_is_refused_by_field(tmp_path: Path, case: str) -> None:
    header, words = HEADERS[case]
    refused(save(tmp_path / "a.astrape", astrape(**header)), *words)


TEXTS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "no UTF-8": (b'{"a": "\xff"}', ("UTF-8", "0xff")),
    "no JSON": (b"{duration_seconds: 8}", ("JSON", "character 1")),
    "byte order mark": (b"\xef\xbb\xbf" + compact(FIELDS), ("JSON",)),
    "array": (b"[1, 2]", ("array", "object")),
    "null": (b"null", ("object",)),
    "deep": (b"[" * 200_000, ("nested",)),
    "digits": (b'{"a": ' + b"9" * 5000 + b"}", ("integer",)),
    "surrogate": (b'{"a": "\\ud800"}', ("surrogate",)),
    "twice": (compact(FIELDS)[:-1] + b',"rms_dbfs":-3}', ("rms_dbfs", "twice")),
    "missing": (compact({"duration_seconds": 8.0, "source_path": "a.wav"}), ("source_sample_rate",)),
}
WRONG: dict[str, tuple[Any, tuple[str, ...]]] = {
    "duration_seconds": ("8", ("number",)),
    "source_sample_rate": (44100.5, ("whole", "44100.5")),
    "source_path": (["a.wav"], ("string",)),
    "embedding_model": (None, ("string",)),
    "reference_sha256": ("a\0b", ("NUL",)),
    "created_utc": (True, ("string",)),
    "peak_amplitude": (-0.5, ("-0.5", "0")),
    "rms_dbfs": (False, ("number",)),
    "clipping_fraction": (1.5, ("1.5", "0 to 1")),
    "active_speech_ratio": (-0.1, ("0 to 1",)),
    "dc_offset": ({}, ("number",)),
    "quality_warnings": ([1], ("string",)),
}


@pytest.mark.parametrize("case", TEXTS)
def test_bad_json_is_refused(tmp_path: Path, case: str) -> None:
    text, words = TEXTS[case]
    refused(save(tmp_path / "a.astrape", astrape(text)), *words)


@pytest.mark.parametrize("name", WRONG)
def test_a_field_of_the_wrong_type_or_range_is_refused_by_name(tmp_path: Path, name: str) -> None:
    value, words = WRONG[name]
    refused(save(tmp_path / "a.astrape", astrape(compact({**FIELDS, name: value}))), name, *words)


@pytest.mark.parametrize(
    "number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" + b"0" * 400, b"0", b"-3", b"true"]
)
def test_a_duration_that_is_none_is_refused(tmp_path: Path, number: bytes) -> None:
    text = compact(FIELDS).replace(b"8.328004535147393", number)
    refused(save(tmp_path / "a.astrape", astrape(text)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", ["astrape", "npz"])
def test_an_embedding_that_is_not_finite_is_refused(tmp_path: Path, value: float, suffix: str) -> None:
    values = VALUES.copy()
    values[77] = value
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez_compressed(path, **npz_fields(global_embedding=values))
    else:
        save(path, astrape(values=values.tobytes()))
    refused(path, "embedding", "finite", "77")


def test_an_embedding_of_zeros_is_refused_and_the_smallest_numbers_are_not(tmp_path: Path) -> None:
    refused(save(tmp_path / "a.astrape", astrape(values=bytes(512))), "norm 0")
    tiny = struct.pack("<128f", 1e-45, *[-0.0] * 127)
    assert read_voicebank(save(tmp_path / "b.astrape", astrape(values=tiny))).norm > 0


def test_a_voicebank_is_not_made_of_what_is_none() -> None:
    metadata = Metadata(8.0, 44100, "a.wav")
    for values in (np.ones(127), np.ones((1, 128)), np.ones(128, dtype=np.int64), np.full(128, 1e39)):
        with pytest.raises(VoicebankError):
            Voicebank(values, metadata)
    with pytest.raises(VoicebankError, match="duration_seconds"):
        Metadata(float("nan"), 44100, "a.wav")
    assert Voicebank(torch.ones(128), metadata) == Voicebank(np.ones(128), metadata)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    refused(tmp_path / "none.astrape", "No such file")
    refused(tmp_path, "folder")
    refused(save(tmp_path / "empty.astrape", b""), "not a voicebank")
    refused(save(tmp_path / "text.astrape", b"hello, world"), "hell", "ASR1")
    refused(save(tmp_path / "cut.astrape", astrape()[:40]), "40 bytes", "48")
    with (tmp_path / "huge.astrape").open("wb") as file:
        file.write(astrape())
        file.truncate(1 << 40)
    refused(tmp_path / "huge.astrape", str(1 << 40))


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = read_voicebank(save(tmp_path / "a.astrape", astrape()))
    path = save(tmp_path / "b.astrape", b"what was there")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(VoicebankError, match=r"b\.astrape.*no space"):
        write_voicebank(bank, path)
    assert path.read_bytes() == b"what was there"
    assert {file.name for file in tmp_path.iterdir()} == {"a.astrape", "b.astrape"}


@pytest.mark.parametrize(
    "write",
    [
        lambda bank, folder: write_voicebank(bank, folder / "a.wav"),
        lambda bank, folder: write_voicebank(bank, folder / "none" / "a.astrape"),
        lambda bank, folder: write_voicebank(bank, folder / "a.astrape", version=2),
        lambda bank, folder: write_voicebank(bank, folder / "a.npz", version=3),
        lambda bank, folder: write_voicebank(_changed(bank, duration_seconds=1e300), folder / "a.npz"),
        lambda bank, folder: write_voicebank(_changed(bank, source_path="a" * 70_000), folder / "a.npz"),
        lambda bank, folder: write_voicebank(_changed(bank, source_path="a" * 2**20), folder / "a.astrape"),
        lambda bank, folder: write_voicebank(_changed(bank, extra={"x": float("inf")}), folder / "a.astrape"),
        lambda bank, folder: write_voicebank(_changed(bank, extra={"rms_dbfs": 1}), folder / "a.astrape"),
    ],
)
def test_what_the_form_has_no_room_for_is_not_written(tmp_path: Path, write: Callable[[Voicebank, Path], None]) -> None:
    with pytest.raises(VoicebankError):
        write(Voicebank(VALUES, Metadata(8.0, 44100, "a.wav")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def _changed(bank: Voicebank, **change: Any) -> Voicebank:
    return Voicebank(bank.embedding, dataclasses.replace(bank.metadata, **change))
