"""A pack to read from: its caches are as those in folders, and arrays come from shards, fetched as they are needed."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from astrape.audio.fetching import Fetcher
from astrape.audio.places import CACHE_GB, Place, PlaceError, read_cache, read_cache_bytes
from astrape.corpus.splits import CorpusSplit
from astrape.corpus.utterances import Utterance
from astrape.training.caches.cache import Cache, Holdings, Stored
from astrape.training.caches.files import ArrayFault
from astrape.training.caches.front import FRONT_WEIGHTS
from astrape.training.caches.packing import FORMATS, INDEX, PACK, TABLE_NAMES
from astrape.training.caches.record import Record, record_of
from astrape.training.errors import CacheError
from astrape.wording import reason_of

__all__ = ["Pack", "PackedCache", "mapped_part", "read_part", "read_table"]

Read = TypeVar("Read")

TRIES = 3
"""Times that a shard is fetched that others make room for meanwhile."""

TABLES = 16
"""Shards whose tables of contents are held in memory: some 100 bytes an array."""


class Pack:
    """Shards of a place, and what is in them.

    In memory are the keys of all utterances, some 700 bytes each; of arrays, what is mapped.

    Args:
        place: the pack.

    Attributes:
        caches: by kind, as those of folders.
        split: utterances to train on, and of unseen speakers.
        shards: those to train on, each with its utterances.

    Raises:
        CacheError: for a place without a pack, or with one that is not finished or not of this version.
        PlaceError: for a place that cannot be read.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        if not (place / PACK).exists():
            raise CacheError(
                f"{place}: holds no pack, or one that is not finished: make it with `astrape cache pack`, which goes "
                f"on from what is there"
            )
        content = (place / PACK).read()
        try:
            about = json.loads(content)
            if about["astrape_pack"] not in FORMATS:
                read = " and ".join(map(str, FORMATS))
                raise CacheError(f"{place}: is a pack of version {about['astrape_pack']}, and this reads {read}")
            records = {kind: record_of(fields, f"{place / PACK}: {kind}") for kind, fields in about["records"].items()}
            self._samples = {one["name"]: int(one["samples"]) for one in about["shards"]}
            self._where: dict[str, tuple[str, int]] = {}
            by_shard: dict[str, list[Utterance]] = {name: [] for name in self._samples}
            with (place / INDEX).local().open(encoding="utf-8") as lines:
                for number, line in enumerate(lines):
                    row = json.loads(line)
                    self._where[row["key"]] = row["shard"], number
                    by_shard[row["shard"]].append(_utterance(row))
        except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
            raise CacheError(
                f"{place}: its {PACK} and {INDEX} are not those of a pack ({type(error).__name__})"
            ) from error
        if {name: len(held) for name, held in by_shard.items()} != self._samples:
            raise CacheError(f"{place}: {INDEX} does not list what {PACK} says: pack it again")
        self.shards = [held for name, held in by_shard.items() if name.startswith("train-")]
        aside = [one for name, held in by_shard.items() if name.startswith("unseen-") for one in held]
        self.split = CorpusSplit([one for held in self.shards for one in held], aside)
        folder = self._folder(content)
        self.caches: dict[str, Cache] = {kind: PackedCache(folder, record, self) for kind, record in records.items()}
        self._largest = max((int(one["bytes"]) for one in about["shards"]), default=0)
        self._fetcher: Fetcher | None = None
        self._tables: OrderedDict[str, tuple[Path, dict[str, tuple[int, int]]]] = OrderedDict()

    def keys(self) -> set[str]:
        """Keys of all utterances."""
        return set(self._where)

    def __getstate__(self) -> dict[str, Any]:
        """The state without the fetching thread, which another process starts for itself."""
        return vars(self) | {"_fetcher": None}

    def fetch_ahead(self, shards: Sequence[str]) -> None:
        """Begin to fetch shards that are read next, beside the reading, one at a time.

        What was asked for before and has not begun is given up. Nothing is fetched from folders, and where the read
        cache does not hold what is read and as much again.
        """
        if self.place.path is not None or 2 * len(shards) * self._largest > read_cache_bytes():
            return
        if self._fetcher is None or self._fetcher.process != os.getpid():
            self._fetcher = Fetcher()
        self._fetcher.ask([self.place / shard for shard in shards])

    def array(self, key: str, name: str, dtype: np.dtype[Any], channels: int | None) -> npt.NDArray[Any]:
        """An array of an utterance, mapped into memory from its shard.

        Raises:
            ArrayFault: for one that is missing, or not such an array.
            CacheError: for a shard that is missing or damaged.
        """
        return self._from(key, f"{name}.npy", lambda local, at, size: mapped_part(local, at, size, dtype, channels))

    def member(self, key: str, ending: str) -> bytes:
        """A file of an utterance's sample, by what follows its number.

        Raises:
            ArrayFault: for one that is missing.
            CacheError: for a shard that is missing or damaged.
        """
        return self._from(key, ending, read_part)

    def rate(self, key: str) -> int:
        """The rate of an utterance's recording, Hz, before it was resampled.

        Raises:
            CacheError: for a shard that does not say, or is missing or damaged.
        """
        try:
            return int(json.loads(self.member(key, "json"))["rate"])
        except (ArrayFault, ValueError, KeyError, TypeError) as error:
            raise CacheError(
                f"{self.place / self._where[key][0]}: says no rate of the recording {key}: pack its parallel sets anew"
            ) from error

    def _from(self, key: str, ending: str, read: Callable[[Path, int, int], Read]) -> Read:
        """The content of a member, given its shard on this machine, its offset there, and its size."""
        shard, number = self._where[key]
        for _ in range(TRIES):
            try:
                local, table = self._table(shard)
                member = f"{number:09d}.{ending}"
                if member not in table:
                    raise ArrayFault("missing", f"is missing in {shard}")
                return read(local, *table[member])
            except FileNotFoundError:
                # Another process made room for a shard of its own just now.
                self._tables.pop(shard, None)
        raise CacheError(
            f"{self.place / shard}: was removed from the read cache {TRIES} times before it was read; hint: a "
            f"larger {CACHE_GB}"
        )

    def _table(self, shard: str) -> tuple[Path, dict[str, tuple[int, int]]]:
        """A shard on this machine, and where its members begin."""
        if shard in self._tables and self._tables[shard][0].exists():
            self._tables.move_to_end(shard)
            return self._tables[shard]
        place = self.place / shard
        try:
            local = place.local()
        except PlaceError as error:
            raise CacheError(str(error)) from error
        try:
            table = read_table(local, self._samples[shard])
        except ArrayFault as fault:
            raise CacheError(f"{place}: {fault}; hint: `astrape check-cache --pack {self.place} --repair`") from fault
        self._tables[shard] = local, table
        while len(self._tables) > TABLES:
            self._tables.popitem(last=False)
        return local, table

    def _folder(self, content: bytes) -> Path:
        """A folder of this machine with the front end's weights, where there are some."""
        if self.place.path is not None:
            return self.place.path
        front = self.place / FRONT_WEIGHTS
        if not front.exists():
            return Path(str(self.place))
        folder = read_cache() / f"front-{hashlib.sha256(str(self.place).encode() + content).hexdigest()[:16]}"
        Place(str(folder / FRONT_WEIGHTS)).write(front.read())
        return folder


class PackedCache(Cache):
    """One cache of a pack."""

    def __init__(self, folder: Path, record: Record, pack: Pack) -> None:
        self.folder, self.record, self.pack = folder, record, pack

    @property
    def by_speaker(self) -> bool:
        """Every utterance has its speaker's array beside it."""
        return False

    def stored(self, key: str) -> dict[str, Stored]:
        return {
            name: PackedStored(Path(str(self.pack.place)) / key, one.dtype, one.channels, self.pack, key, name)
            for name, one in super().stored("any").items()
        }

    def holdings(self) -> Holdings:
        keys = self.pack.keys()
        return Holdings(keys, set(), keys)


@dataclass(frozen=True)
class PackedStored(Stored):
    """One array of a pack."""

    pack: Pack = field(repr=False)
    key: str
    name: str

    def map(self) -> npt.NDArray[Any]:
        return self.pack.array(self.key, self.name, self.dtype, self.channels)

    def read(self) -> npt.NDArray[Any]:
        return np.array(self.map())


def read_table(local: Path, samples: int) -> dict[str, tuple[int, int]]:
    """Offsets and sizes of a shard's members, in bytes, by name.

    Args:
        local: the shard, on this machine.
        samples: utterances that are due in it.

    Raises:
        ArrayFault: for what is not a whole tar file, or holds more or fewer utterances.
        FileNotFoundError: for a shard that is not there any more.
    """
    try:
        with tarfile.open(local, "r:") as tar:
            table = {member.name: (member.offset_data, member.size) for member in tar}
    except FileNotFoundError:
        raise
    except (tarfile.TarError, EOFError) as error:
        raise ArrayFault("truncated", f"is not a whole tar file ({error})") from error
    except OSError as error:
        raise ArrayFault("unreadable", f"cannot be read: {reason_of(error)}") from error
    size, held = local.stat().st_size, sum(name.endswith(".json") for name in table)
    if held != samples or any(begin + length > size for begin, length in table.values()):
        raise ArrayFault("truncated", f"is cut short ({size} bytes, {held} of {samples} utterances)")
    return table


def read_part(local: Path, begin: int, size: int) -> bytes:
    """Bytes of a file from one on."""
    with local.open("rb") as file:
        file.seek(begin)
        return file.read(size)


def _utterance(row: dict[str, Any]) -> Utterance:
    """The utterance of a line of the index. Its paths say in which shard it is, and which tables it has there."""
    shard = Path(row["shard"])
    phones, pitch, vector = (shard if name in row.get("tables", ()) else None for name in TABLE_NAMES)
    return Utterance(
        shard,
        row["speaker"],
        row["key"].removeprefix(row["speaker"] + "/"),
        set=row.get("set"),
        source=row.get("source"),
        phones=phones,
        pitch=pitch,
        vector=vector,
    )


def mapped_part(local: Path, offset: int, size: int, dtype: np.dtype[Any], channels: int | None) -> npt.NDArray[Any]:
    """An array within a file, mapped into memory.

    Raises:
        ArrayFault: for bytes that are not such an array.
    """
    with local.open("rb") as file:
        file.seek(offset)
        try:
            np.lib.format.read_magic(file)
            shape, fortran, held = np.lib.format.read_array_header_1_0(file)
        except (ValueError, EOFError, SyntaxError, TypeError, KeyError, RecursionError, TokenError) as error:
            raise ArrayFault("unreadable", f"has no header of an array ({size} bytes)") from error
        begin = file.tell()
    wanted = 1 if channels is None else 2
    if held != dtype or fortran or len(shape) != wanted or channels not in (None, shape[0]):
        raise ArrayFault("shape", f"holds {shape} of {held}, and {dtype} with {channels} channels is due")
    if begin - offset + held.itemsize * int(np.prod(shape, dtype=object)) != size or not shape[-1]:
        raise ArrayFault("truncated", f"has {size} bytes, which its header does not")
    return np.memmap(local, dtype=held, mode="r", offset=begin, shape=shape)
