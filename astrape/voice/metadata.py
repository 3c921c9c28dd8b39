"""Metadata of a voicebank: where the embedding comes from, and how good the recording was."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, BeforeValidator, Field, create_model

from astrape.settings import Between, Settings, Unfit, Wanted, read_settings
from astrape.voice.errors import VoicebankError
from astrape.wording import quote

__all__ = ["LARGEST_METADATA", "Metadata", "decode_metadata", "encode_metadata"]

LARGEST_METADATA = 1 << 20
"""Bytes of JSON; real files have about 500."""

REGISTERS = (20.0, 2000.0)
"""Hz; no voice lies beyond."""

SEAL = "content_sha256"
"""Field of the file, the last one: a checksum of the embedding and of the other fields; no part of the metadata."""

LARGEST_RATE = 1 << 31
"""Hz; beyond any recording, and within what every reader's integer holds."""


def _whole(value: Any) -> Any:
    """A whole number written with a point, such as ``44100.0``, as an ``int``."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise Unfit(f"holds a NUL character at {text.index(chr(0))}", "remove it")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
Share = Annotated[float, Between(0, 1)]


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
        fitted_to: recipe whose decoder the embedding was fitted to, see :mod:`astrape.training.fitting`; empty where
            it is the encoder's own.
        extra: fields of the file that this version knows nothing of, kept as they were.
        text: the JSON that this was decoded from. It is written again as long as it says the same.
        sealed: an ``.astrape`` file has a checksum of the embedding and all of this as its last field.

    Raises:
        VoicebankError: for a field of the wrong type or out of range.
    """

    duration_seconds: Annotated[float, Field(gt=0), Wanted("a positive number")]
    source_sample_rate: Annotated[int, Between(1, LARGEST_RATE), BeforeValidator(_whole)]
    source_path: Text
    embedding_model: Text = ""
    reference_sha256: Text = ""
    created_utc: Text = ""
    peak_amplitude: Annotated[float, Between(0, math.inf)] | None = None
    rms_dbfs: float | None = None
    clipping_fraction: Share | None = None
    active_speech_ratio: Share | None = None
    dc_offset: float | None = None
    quality_warnings: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    median_f0_hz: Annotated[float, Between(*REGISTERS)] | None = None
    fitted_to: Text = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    text: bytes | None = field(default=None, repr=False, compare=False)
    sealed: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in FIELDS}
        checked = read_settings(_checked(), given, VoicebankError, at=("metadata",))
        for name in FIELDS:
            object.__setattr__(self, name, getattr(checked, name))

    def to_dict(self) -> dict[str, Any]:
        """The fields in the order of the file, those in ``extra`` last; lists for tuples. Without those of ``YOUNGER``
        that say nothing."""
        return {name: _plain(getattr(self, name)) for name in self.written} | dict(self.extra)

    @property
    def written(self) -> tuple[str, ...]:
        """Fields that files hold: all but those of ``YOUNGER`` that say nothing."""
        return tuple(name for name in FIELDS if name not in YOUNGER or getattr(self, name))


FIELDS = tuple(item.name for item in fields(Metadata) if item.name not in ("extra", "text", "sealed"))
REQUIRED = FIELDS[:3]
YOUNGER = ("median_f0_hz", "fitted_to")
"""Fields that are younger than the format: a file has them where they say something."""


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
        VoicebankError: for text that is not a JSON object in UTF-8, is too long, or has fields missing, twice, of the
            wrong type or out of range.
    """
    if len(text) > LARGEST_METADATA:
        raise VoicebankError(f"metadata take {len(text)} bytes, at most {LARGEST_METADATA}")
    try:
        found = json.loads(text.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
        # A lone surrogate can be written as an escape, and then has no form in UTF-8.
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise VoicebankError(f"metadata are not UTF-8: byte 0x{text[error.start]:02x} at {error.start}") from None
    except json.JSONDecodeError as error:
        raise VoicebankError(
            f"metadata are not JSON: {error.msg} at character {error.pos} of {len(error.doc)}"
        ) from None
    except UnicodeEncodeError:
        raise VoicebankError("metadata hold half a surrogate pair, which is not a character") from None
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
    raise VoicebankError(f"metadata hold {name}, which is not JSON: write null for what is unknown")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise VoicebankError(f"metadata hold the field {quote(twice)} twice")
    return found


@cache
def _checked() -> type[Settings]:
    """The fields as a model, whose values are checked."""
    hints = get_type_hints(Metadata, include_extras=True)
    definitions: dict[str, Any] = {name: (hints[name], ...) for name in FIELDS}
    return create_model("Metadata", __base__=Settings, **definitions)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
