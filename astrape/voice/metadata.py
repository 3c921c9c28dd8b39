"""What a voicebank says of its embedding: where it comes from, and how good the recording was."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from astrape.voice.errors import VoicebankError

__all__ = ["LARGEST_METADATA", "Metadata", "decode_metadata", "encode_metadata"]

LARGEST_METADATA = 1 << 20
"""Bytes of JSON; real files have about 500."""

REGISTERS = (20.0, 2000.0)
"""Hz; no voice lies beyond."""

SEAL = "content_sha256"
"""Field of the file, the last one: a checksum of the embedding and of the other fields; no part of the metadata."""

LARGEST_RATE = 1 << 31
"""Hz; beyond any recording, and within what every reader's integer holds."""


@dataclass(frozen=True)
class Metadata:
    """Origin and quality of a reference. What was not measured is ``None``.

    Attributes:
        duration_seconds: length of all references together; positive.
        source_sample_rate: Hz.
        source_path: where the reference was read from.
        embedding_model: name of the speaker encoder.
        reference_sha256: of the reference, hexadecimal; empty where unknown.
        created_utc: ISO 8601; empty where unknown.
        peak_amplitude: largest magnitude, 1 is full scale.
        rms_dbfs: level over all of it, dB of full scale.
        clipping_fraction: share of samples at full scale, 0 to 1.
        active_speech_ratio: share of time with sound, 0 to 1.
        dc_offset: mean of the samples.
        quality_warnings: what to know of the recording.
        median_f0_hz: the register: median of F0 over the voiced frames, Hz. Conversions move the source's pitch there.
        extra: fields of the file that this version knows nothing of, kept as they were.
        text: the JSON that this was decoded from. It is written again as long as it says the same.
        sealed: an ``.astrape`` file has a checksum of the embedding and all of this as its last field.

    Raises:
        VoicebankError: for a field of the wrong type or out of range.
    """

    duration_seconds: float
    source_sample_rate: int
    source_path: str
    embedding_model: str = ""
    reference_sha256: str = ""
    created_utc: str = ""
    peak_amplitude: float | None = None
    rms_dbfs: float | None = None
    clipping_fraction: float | None = None
    active_speech_ratio: float | None = None
    dc_offset: float | None = None
    quality_warnings: tuple[str, ...] = ()
    median_f0_hz: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    text: bytes | None = field(default=None, repr=False, compare=False)
    sealed: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "duration_seconds": _number("duration_seconds", self.duration_seconds, positive=True),
            "source_sample_rate": _rate(self.source_sample_rate),
            "peak_amplitude": _measured("peak_amplitude", self.peak_amplitude, 0.0),
            "rms_dbfs": _measured("rms_dbfs", self.rms_dbfs),
            "clipping_fraction": _measured("clipping_fraction", self.clipping_fraction, 0.0, 1.0),
            "active_speech_ratio": _measured("active_speech_ratio", self.active_speech_ratio, 0.0, 1.0),
            "dc_offset": _measured("dc_offset", self.dc_offset),
            "quality_warnings": _warnings(self.quality_warnings),
            "median_f0_hz": _measured("median_f0_hz", self.median_f0_hz, *REGISTERS),
        }
        for name in ("source_path", "embedding_model", "reference_sha256", "created_utc"):
            checked[name] = _string(name, getattr(self, name))
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """The fields in the order of the file, those in ``extra`` last; lists for tuples. No register where none is."""
        return {name: _plain(getattr(self, name)) for name in self.written} | dict(self.extra)

    @property
    def written(self) -> tuple[str, ...]:
        """Fields that files hold: all but the register where it is unknown, which is younger than the format."""
        return tuple(name for name in FIELDS if name != "median_f0_hz" or self.median_f0_hz is not None)


FIELDS = tuple(item.name for item in fields(Metadata) if item.name not in ("extra", "text", "sealed"))
REQUIRED = FIELDS[:3]


def encode_metadata(metadata: Metadata) -> bytes:
    """Compact UTF-8 JSON in the order of the fields; the very bytes it was read from where nothing has changed.

    Raises:
        VoicebankError: when it takes over 1 MiB, or ``extra`` has no form in JSON.
    """
    if metadata.text is not None and _unchanged(metadata, metadata.text):
        return metadata.text
    clash = sorted(set(metadata.extra) & set(FIELDS))
    if clash:
        raise VoicebankError(f"extra field '{clash[0]}' is a field of its own: set that one")
    try:
        text = json.dumps(metadata.to_dict(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        encoded = text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise VoicebankError(f"extra fields have no form in JSON ({error}): take strings and finite numbers") from None
    if len(encoded) > LARGEST_METADATA:
        raise VoicebankError(f"metadata take {len(encoded)} bytes, at most {LARGEST_METADATA}: shorten their strings")
    return encoded


def decode_metadata(text: bytes) -> Metadata:
    """Metadata from UTF-8 JSON.

    Raises:
        VoicebankError: for what is no UTF-8, no JSON, no object, too long, or has fields missing, twice, of the wrong
            type or out of range.
    """
    if len(text) > LARGEST_METADATA:
        raise VoicebankError(f"metadata take {len(text)} bytes, at most {LARGEST_METADATA}")
    try:
        found = json.loads(text.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
        # A lone surrogate can be written as an escape, and then has no form in UTF-8.
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise VoicebankError(f"metadata are no UTF-8: byte 0x{text[error.start]:02x} at {error.start}") from None
    except json.JSONDecodeError as error:
        raise VoicebankError(
            f"metadata are no JSON: {error.msg} at character {error.pos} of {len(error.doc)}"
        ) from None
    except UnicodeEncodeError:
        raise VoicebankError("metadata hold half a surrogate pair, which is no character") from None
    except RecursionError:
        raise VoicebankError("metadata are nested too deeply") from None
    except ValueError:
        # Python converts integers of up to 4300 digits.
        raise VoicebankError("metadata hold an integer of thousands of digits") from None
    if not isinstance(found, dict):
        raise VoicebankError(f"metadata are a JSON {_type(found)}, not an object with fields such as '{FIELDS[0]}'")
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise VoicebankError(f"metadata lack the field '{missing[0]}'")
    warnings = found.get("quality_warnings", [])
    if not isinstance(warnings, list):
        raise VoicebankError(f"field 'quality_warnings' must be a list of strings, not a JSON {_type(warnings)}")
    known = {name: found[name] for name in FIELDS if name in found} | {"quality_warnings": tuple(warnings)}
    extra = {name: value for name, value in found.items() if name not in FIELDS and name != SEAL}
    return Metadata(**known, extra=extra, text=bytes(text), sealed=SEAL in found)


def _unchanged(metadata: Metadata, text: bytes) -> bool:
    try:
        return decode_metadata(text) == metadata
    except VoicebankError:
        return False


def _no_constant(name: str) -> None:
    raise VoicebankError(f"metadata hold {name}, which is no JSON: write null for what is unknown")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise VoicebankError(f"metadata hold the field {_shown(twice)} twice")
    return found


def _number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, positive: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise VoicebankError(f"field '{name}' must be a number, not {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise VoicebankError(f"field '{name}' must be a finite number")
    if not (low <= number <= high and (number > 0 or not positive)):
        limits = f"{low:g} to {high:g}" if high < math.inf else f"at least {low:g}" if low > -math.inf else "positive"
        raise VoicebankError(f"field '{name}' must be {limits}, not {number:g}")
    return number


def _measured(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float | None:
    return None if value is None else _number(name, value, low, high)


def _rate(value: Any) -> int:
    number = _number("source_sample_rate", value, 1, LARGEST_RATE)
    if number != int(number):
        raise VoicebankError(f"field 'source_sample_rate' must be a whole number of Hz, not {number:g}")
    return int(number)


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise VoicebankError(f"field '{name}' must be a string, not {_shown(value)}")
    if "\0" in value:
        raise VoicebankError(f"field '{name}' holds a NUL character at {value.index(chr(0))}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise VoicebankError(f"field '{name}' holds half a surrogate pair, which is no character") from None
    return value


def _warnings(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (tuple, list)):
        raise VoicebankError(f"field 'quality_warnings' must be a list of strings, not {_shown(value)}")
    return tuple(_string("quality_warnings", item) for item in value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def _shown(value: Any) -> str:
    """A value in an error message: on one line, and short."""
    if isinstance(value, (dict, list, tuple)):
        return f"a JSON {_type(list(value) if isinstance(value, tuple) else value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**18:
        return "an integer of over 18 digits"
    shown = ascii(value[:60] if isinstance(value, str) else value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
