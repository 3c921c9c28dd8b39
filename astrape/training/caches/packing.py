"""The job that packs caches into shards: tar files as WebDataset has them, in a folder or a store.

A pack is a place with

- ``train-000000.tar`` and so on, in each of which utterances of all speakers are mixed, and ``unseen-000000.tar`` of
  the speakers that training never hears,
- ``index.jsonl``: a line an utterance, in the order of the shards,
- ``front.safetensors``: the front end that made the features, where it has weights,
- ``plan.json``: what the pack is to be, and ``pack.json``, written last: that it is, and of which caches.

An utterance is a sample of WebDataset: ``000000012.json`` says who says what, and ``000000012.features.npy``,
``.content.npy``, ``.codes.npy``, ``.voiced.npy``, ``.speaker.npy`` and ``.audio.npy`` are the caches' own files, byte
for byte. Nothing in a shard is of the hour it was made in: the same caches give the same bytes, whoever packs them.

Of a corpus with parallel sets, the renderings of a set stay together, and the sets of each source have shards of their
own. ``.phones.npy``, ``.pitch.npy`` and ``.vector.npy`` are the tables beside the recordings, and ``.json`` says the
set, the source, the recording's own rate and the CRC-32 of each table.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astrape.audio.atomic import atomic_path, shown
from astrape.audio.places import Place
from astrape.corpus.splits import CorpusSplit
from astrape.corpus.utterances import Utterance, sets_of
from astrape.jobs import IN_PROCESS, Engine, Job, run_job
from astrape.progress import Progress
from astrape.training.caches.cache import Cache
from astrape.training.caches.files import ArrayFault, array_file, check_sum
from astrape.training.caches.front import FRONT_WEIGHTS
from astrape.training.caches.recording import read_header
from astrape.training.errors import CacheError
from astrape.training.tables import read_phones, read_pitch, read_vector

__all__ = [
    "ALONE",
    "FORMATS",
    "INDEX",
    "PACK",
    "PARALLEL",
    "PLAN",
    "TABLE_NAMES",
    "Packed",
    "Shard",
    "make_pack",
    "write_front",
    "write_shards",
]

FORMATS = ALONE, PARALLEL = (1, 2)
"""Versions of packs: of utterances that each stand alone, and of parallel sets."""

TABLE_NAMES = ("phones", "pitch", "vector")
"""Tables beside a recording."""

PACK, PLAN, INDEX = "pack.json", "plan.json", "index.jsonl"

SHARD_BYTES = 256_000_000
"""Bytes of a shard: large enough that a store gives it at full speed, small enough to be had within seconds."""


@dataclass(frozen=True)
class Shard:
    """A shard to write; the work item of a pack.

    Attributes:
        name: of its file.
        first: number of its first sample in the index.
        utterances: its samples.
        bytes: of their arrays.
        parallel: with what is known of renderings of a set.
    """

    name: str
    first: int
    utterances: tuple[Utterance, ...]
    bytes: int
    parallel: bool = False


@dataclass(frozen=True)
class Packed:
    """The result of a run.

    Attributes:
        place: the pack.
        utterances: in it: of the speakers to train on, and of the unseen ones.
        unseen: of them, the latter.
        left_out: utterances of which a cache could not be made.
        shards: in all.
        there: of them, before.
        bytes: of all shards' arrays.
        elapsed: wall-clock seconds.
    """

    place: str
    utterances: int
    unseen: int
    left_out: int
    shards: int
    there: int
    bytes: int
    elapsed: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_pack(
    caches: Sequence[Cache],
    split: CorpusSplit,
    place: Place,
    *,
    shard_bytes: int = SHARD_BYTES,
    seed: int = 0,
    engine: Engine = IN_PROCESS,
    progress: Progress | None = None,
) -> Packed:
    """Pack caches, or what a pack is missing: shards that are there whole stay.

    Args:
        caches: at most one of each kind.
        split: of their corpus. The unseen speakers have shards of their own, and training on the pack keeps to it.
        place: where to.
        shard_bytes: of a shard, about.
        seed: of the order in which utterances are mixed.
        engine: what does the work; a worker takes one core, and a shard's size in memory and on the local disk.
        progress: called with bytes packed, and in all.

    Raises:
        CacheError: for caches that are not finished, or damaged, and a place that holds another pack.
        PlaceError: for a place that cannot be read or written.
    """
    begin = time.monotonic()
    if len({cache.what for cache in caches}) < len(caches) or not caches:
        raise CacheError(f"a pack is of one cache of each kind or fewer, and of one at least, not of {len(caches)}")
    whole = {
        part: _whole(caches, utterances) for part, utterances in (("train", split.train), ("unseen", split.unseen))
    }
    left = len(split.train) + len(split.unseen) - sum(map(len, whole.values()))
    parallel = any(one.set is not None for utterances in whole.values() for one in utterances)
    learned = [_mixed(run, seed) for run in _by_source(whole["train"], parallel)]
    aside = sets_of(whole["unseen"]) if parallel else [[one] for one in whole["unseen"]]
    shards = list(_shards("train", learned, caches, shard_bytes, 0, parallel))
    shards += _shards("unseen", [aside], caches, shard_bytes, len(whole["train"]), parallel)
    about = {
        "astrape_pack": PARALLEL if parallel else ALONE,
        "seed": seed,
        "records": {cache.what: json.loads(cache.record.to_json()) for cache in caches},
        "shards": [{"name": one.name, "samples": len(one.utterances), "bytes": one.bytes} for one in shards],
        "keys": hashlib.sha256(
            "\0".join(u.key for one in shards for u in one.utterances).encode(errors="surrogateescape")
        ).hexdigest(),
        "unseen": len(whole["unseen"]),
    }
    there = _kept(place, about)
    missing = [one for one in shards if one.name not in there]
    write_shards(caches, place, missing, engine, progress)
    write_front(caches, place)
    with atomic_path(place / INDEX, folders=True, durable=True) as index, index.open("w", encoding="utf-8") as file:
        for shard in shards:
            for utterance in shard.utterances:
                row: dict[str, Any] = {"key": utterance.key, "speaker": utterance.speaker, "shard": shard.name}
                if parallel:
                    row |= {"set": utterance.set, "source": utterance.source, "tables": list(_tables(utterance))}
                file.write(_line(row))
    (place / PACK).write(json.dumps(about, indent=1).encode())
    return Packed(
        place=str(place),
        utterances=sum(map(len, whole.values())),
        unseen=len(whole["unseen"]),
        left_out=left,
        shards=len(shards),
        there=len(there),
        bytes=sum(one.bytes for one in shards),
        elapsed=time.monotonic() - begin,
    )


def write_shards(
    caches: Sequence[Cache], place: Place, shards: Sequence[Shard], engine: Engine, progress: Progress | None
) -> None:
    """Write shards of a pack, each whole, whether they are there or not.

    Raises:
        CacheError: for damage in a cache, and a shard that ends its worker again and again.
        PlaceError: for a place that cannot be written.
    """
    total, done = float(sum(one.bytes for one in shards)), 0.0
    job = Job(_begin, (tuple(cache.folder for cache in caches), place))
    for one in run_job(job, shards, engine):
        if one.fault is not None:
            raise CacheError(f"{place / one.item.name}: {one.fault}")
        done += one.item.bytes
        if progress is not None:
            progress(done, total)


def write_front(caches: Sequence[Cache], place: Place) -> None:
    """Write the weights of the front end that made the features, where it has some."""
    for cache in caches:
        front = Place(cache.folder / FRONT_WEIGHTS)
        if front.exists():
            (place / FRONT_WEIGHTS).write(front.local())


def _whole(caches: Sequence[Cache], utterances: Sequence[Utterance]) -> list[Utterance]:
    """Utterances of which all caches hold something."""
    left: set[str] = set()
    for cache in caches:
        left.update(one.key for one in cache.left_out([one for one in utterances if cache.wants(one)]))
    return sorted((one for one in utterances if one.key not in left), key=lambda one: one.key)


def _by_source(utterances: Sequence[Utterance], parallel: bool) -> list[list[list[Utterance]]]:
    """Groups that stay together, in parts with shards of their own: the sets of each source, or all utterances."""
    if not parallel:
        return [[[one] for one in utterances]]
    by_source: dict[str, list[list[Utterance]]] = {}
    for renderings in sets_of(utterances):
        by_source.setdefault(renderings[0].source or "", []).append(renderings)
    return [by_source[source] for source in sorted(by_source)]


def _mixed(groups: list[list[Utterance]], seed: int) -> list[list[Utterance]]:
    return [groups[index] for index in np.random.default_rng(seed).permutation(len(groups))]


def _shards(
    part: str,
    runs: Sequence[Sequence[Sequence[Utterance]]],
    caches: Sequence[Cache],
    shard_bytes: int,
    first: int,
    parallel: bool,
) -> Iterator[Shard]:
    """Shards of runs of groups: no shard is of two runs, and no group is in two shards."""
    number = 0
    for run in runs:
        held: list[Utterance] = []
        size = 0
        for group in [*run, None]:
            arrays = (stored for one in group or () for _, stored in _arrays(caches, one))
            own = sum(Place(stored.path).size() for stored in arrays)
            if held and (group is None or size + own > shard_bytes):
                yield Shard(f"{part}-{number:06d}.tar", first, tuple(held), size, parallel)
                first, number, size = first + len(held), number + 1, 0
                held = []
            held += group or ()
            size += own


def _arrays(caches: Sequence[Cache], utterance: Utterance) -> Iterator[tuple[str, Any]]:
    for cache in caches:
        if cache.wants(utterance):
            yield from cache.stored(cache.key_of(utterance)).items()


def _tables(utterance: Utterance) -> dict[str, Path | Place]:
    """The tables beside a recording, by name."""
    there = {"phones": utterance.phones, "pitch": utterance.pitch, "vector": utterance.vector}
    return {name: path for name, path in there.items() if path is not None}


def _parallel(utterance: Utterance) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The text of a rendering of a set, and its tables.

    Raises:
        CacheError: for a recording or a table that is missing or damaged.
    """
    readers = {"phones": read_phones, "pitch": read_pitch, "vector": read_vector}
    tables: dict[str, bytes] = {}
    for name, path in _tables(utterance).items():
        readers[name](path)
        tables[name] = Place(path).read()
    said = {"set": utterance.set, "source": utterance.source, "rate": read_header(utterance.path).rate}
    return said | {"tables": {name: zlib.crc32(content) for name, content in tables.items()}}, tables


def _kept(place: Place, about: dict[str, Any]) -> set[str]:
    """Write the pack's plan, or compare it with the one written before; returns the finished shards."""
    content = json.dumps(about, sort_keys=True).encode()
    if not (place / PLAN).exists():
        (place / PLAN).write(content)
        return set()
    if (place / PLAN).read() != content:
        raise CacheError(
            f"{place}: holds another pack, of other caches, another split, seed or size of shards; hint: name another "
            f"place, or remove it"
        )
    return {name for name in place.names() if name.endswith(".tar")}


def _begin(folders: tuple[Path | Place, ...], place: Place) -> Callable[[Shard], None]:
    caches = [Cache(folder) for folder in folders]

    def work(shard: Shard) -> None:
        with atomic_path(place / shard.name, folders=True, durable=True, ending=False) as made:
            _write(made, caches, shard)

    return work


def _write(made: Path, caches: Sequence[Cache], shard: Shard) -> None:
    with tarfile.open(made, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, utterance in enumerate(shard.utterances, shard.first):
            about: dict[str, Any] = {"key": utterance.key, "speaker": utterance.speaker, "text": utterance.text}
            said, tables = _parallel(utterance) if shard.parallel else ({}, {})
            about |= said
            _add(tar, f"{number:09d}.json", _line(about).encode())
            for name, stored in _arrays(caches, utterance):
                try:
                    stored.map()
                    check_sum(local := array_file(stored.path))
                    content = local.read_bytes()
                except ArrayFault as fault:
                    raise CacheError(
                        f"{shown(stored.path)}: {fault}: repair it with `astrape check-cache --repair`"
                    ) from fault
                _add(tar, f"{number:09d}.{name}.npy", content)
            for name, content in tables.items():
                _add(tar, f"{number:09d}.{name}.npy", content)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(content))


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content) + "\n"
