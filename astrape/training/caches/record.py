"""The record of a cache: what was stored, by what maker, and whether it fits what is asked for now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from astrape.audio.atomic import shown
from astrape.audio.downmix import MEAN
from astrape.audio.places import Place
from astrape.blocks.parameters import exact_number
from astrape.errors import PlaceError
from astrape.settings import Between, Settings, Unfit, read_settings
from astrape.training.caches.files import write_whole
from astrape.training.errors import CacheError
from astrape.training.names import KINDS

__all__ = [
    "BY_UTTERANCE",
    "KINDS",
    "RECORD",
    "Record",
    "check_record",
    "hash_of_state",
    "hash_of_values",
    "keep_record",
    "read_record",
    "record_of",
    "with_corpus",
]

RECORD = "cache.json"
BY_UTTERANCE = "utterance"
"""The value of ``one for each`` in the identity of a cache of speakers, where it is not a speaker."""
VERSION = 1
LARGEST = 2**31


@dataclass(frozen=True)
class Record:
    """The facts of a cache, in ``cache.json`` in its folder.

    Attributes:
        what: ``wavlm``, ``speakers``, ``content``, ``audio`` or ``pitch``.
        channels: of its arrays.
        rate: frames a second; ``None`` for speakers, who have no clock.
        maker: who made it, in words: a recipe's signal with its weights, or a teacher.
        identity: hashes and numbers by name, of all that the stored values depend on. Two runs agree when these do.
        options: what else it takes to make more of the same: names and paths as they were given.
        codes: how many different codes are stored beside the content; ``None``: none.
        random: weights were drawn, not trained.
        version: of this form.
    """

    what: str
    channels: int
    rate: Fraction | None
    maker: str
    identity: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    codes: int | None = None
    random: bool = False
    version: int = VERSION

    def to_json(self) -> str:
        content = asdict(self) | {"rate": None if self.rate is None else str(self.rate)}
        return json.dumps(content, indent=2, sort_keys=True) + "\n"

    def differs(self, other: Record) -> str | None:
        """The difference from another cache's record, in a few words; ``None`` where both are the same."""
        for name in ("what", "version", "channels", "rate", "codes"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name} {mine} and not {theirs}"
        for name in sorted({*self.identity, *other.identity}):
            mine, theirs = self.identity.get(name), other.identity.get(name)
            if mine != theirs:
                return f"{name} {_short(mine)} and not {_short(theirs)}"
        return None


class _Written(Settings):
    """A record as JSON has it."""

    what: Literal[*KINDS]  # type: ignore[valid-type]
    channels: Annotated[int, Between(1, LARGEST)]
    rate: str | int | None
    maker: str
    identity: dict[str, Any]
    options: dict[str, Any] = Field(default_factory=dict)
    codes: Annotated[int, Between(1, LARGEST)] | None = None
    random: bool = False
    version: int = VERSION

    @model_validator(mode="after")
    def _has_a_clock(self) -> _Written:
        if (self.rate is None) != (self.what == "speakers"):
            told = "is missing" if self.rate is None else f"is {self.rate}"
            raise Unfit(f"{told} in a cache of {self.what}", "speakers alone have no rate", ("rate",))
        if self.rate is not None and self.exact_rate <= 0:
            raise Unfit(f"is {self.rate}", "give frames a second", ("rate",))
        return self

    @property
    def exact_rate(self) -> Fraction:
        try:
            return exact_number("it", self.rate)
        except ValueError as error:
            raise Unfit(f"is {self.rate}", "give a number such as 200 or '44100/7'", ("rate",)) from error


def record_of(values: Any, where: str) -> Record:
    """A record of the plain values that JSON holds; ``where`` begins the message for what is wrong with them.

    Raises:
        CacheError: for values that no record has, naming the first of them.
    """
    written = read_settings(_Written, values, CacheError, f"{where}: is not a record of a cache")
    return Record(**(dict(written) | {"rate": None if written.rate is None else written.exact_rate}))


def read_record(folder: Path | Place) -> Record:
    """The record of the cache in a folder.

    Raises:
        CacheError: for a folder without a cache, or with one that says nothing that can be read.
    """
    path = folder / RECORD
    try:
        content = json.loads(Place(path).read())
    except PlaceError as error:
        if error.missing:
            raise CacheError(f"{shown(folder)}: holds no cache: make one with `astrape cache`") from error
        raise CacheError(str(error)) from error
    except ValueError as error:
        raise CacheError(
            f"{shown(path)}: is not a record of a cache: {error}: remove the folder and make it anew"
        ) from error
    return record_of(content, shown(path))


def keep_record(folder: Path | Place, wanted: Record) -> Record:
    """Write a cache's record, or hold it against the one that is there.

    Args:
        folder: the cache's own.
        wanted: what this run would store.

    Returns:
        What is in the folder now.

    Raises:
        CacheError: when the folder holds another cache. It names both and a hint.
    """
    if not Place(folder / RECORD).exists():
        write_whole(folder / RECORD, wanted.to_json().encode())
    found = read_record(folder)
    check_record(folder, found, wanted)
    return found


def check_record(folder: Path | Place, found: Record, wanted: Record) -> None:
    """Refuse a cache that another recipe, other weights or another teacher made.

    Raises:
        CacheError: naming both and a hint.
    """
    difference = found.differs(wanted)
    if difference is not None:
        flag = f"--{wanted.what}-dir"
        raise CacheError(
            f"{shown(folder)}: was made by {found.maker}, and this run has {wanted.maker} (it has {difference}): name "
            f"another folder with {flag}, give what it was made with, or remove it"
        )


def with_corpus(record: Record, corpus: Path | Place, microphone: str, channel: str = MEAN) -> Record:
    """The same, with where the audio is, for a check that is not told."""
    where = {"data": str(corpus.absolute()), "microphone": microphone}
    if channel != MEAN:
        where["channel"] = channel
    return replace(record, options=record.options | where)


def hash_of_state(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values of tensors, in order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_of_values(values: Any) -> str:
    """SHA-256 over plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=repr).encode()).hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 and all(char in "0123456789abcdef" for char in text) else text
