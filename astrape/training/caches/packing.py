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
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astrape.audio.atomic import atomic_path, shown
from astrape.audio.places import Place
from astrape.corpus.splits import Split
from astrape.corpus.utterances import Utterance
from astrape.jobs import IN_PROCESS, Engine, Job, run_job
from astrape.progress import Progress
from astrape.training.caches.cache import Cache
from astrape.training.caches.files import Fault, array_file, check_sum
from astrape.training.caches.front import FRONT_WEIGHTS
from astrape.training.errors import CacheError

__all__ = ["FORMAT", "INDEX", "PACK", "PLAN", "Packed", "Shard", "make_pack", "write_front", "write_shards"]

FORMAT = 1

PACK, PLAN, INDEX = "pack.json", "plan.json", "index.jsonl"

SHARD_BYTES = 256_000_000
"""Of a shard: large enough that a store gives it at full speed, small enough to be had within seconds."""


@dataclass(frozen=True)
class Shard:
    """A shard to write; the work item of a pack.

    Attributes:
        name: of its file.
        first: number of its first sample in the index.
        utterances: its samples.
        bytes: of their arrays.
    """

    name: str
    first: int
    utterances: tuple[Utterance, ...]
    bytes: int


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
    split: Split,
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
    mixed = [whole["train"][index] for index in np.random.default_rng(seed).permutation(len(whole["train"]))]
    shards = list(_shards("train", mixed, caches, shard_bytes, 0))
    shards += _shards("unseen", whole["unseen"], caches, shard_bytes, len(mixed))
    about = {
        "astrape_pack": FORMAT,
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
                file.write(_line({"key": utterance.key, "speaker": utterance.speaker, "shard": shard.name}))
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
        left.update(one.key for one in cache.left_out(utterances))
    return sorted((one for one in utterances if one.key not in left), key=lambda one: one.key)


def _shards(
    part: str, utterances: Sequence[Utterance], caches: Sequence[Cache], shard_bytes: int, first: int
) -> Iterator[Shard]:
    held: list[Utterance] = []
    size, number = 0, 0

    def closed() -> Shard:
        return Shard(f"{part}-{number:06d}.tar", first, tuple(held), size)

    for utterance in utterances:
        own = sum(Place(stored.path).size() for _, stored in _arrays(caches, utterance))
        if held and size + own > shard_bytes:
            yield closed()
            first, number, size = first + len(held), number + 1, 0
            held = []
        held.append(utterance)
        size += own
    if held:
        yield closed()


def _arrays(caches: Sequence[Cache], utterance: Utterance) -> Iterator[tuple[str, Any]]:
    for cache in caches:
        yield from cache.stored(cache.key_of(utterance)).items()


def _kept(place: Place, about: dict[str, Any]) -> set[str]:
    """Note what the pack is to be, or hold that against what is noted; the shards that are there."""
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
            about = {"key": utterance.key, "speaker": utterance.speaker, "text": utterance.text}
            _add(tar, f"{number:09d}.json", _line(about).encode())
            for name, stored in _arrays(caches, utterance):
                try:
                    stored.map()
                    check_sum(local := array_file(stored.path))
                    content = local.read_bytes()
                except Fault as fault:
                    raise CacheError(
                        f"{shown(stored.path)}: {fault}: repair it with `astrape check-cache --repair`"
                    ) from fault
                _add(tar, f"{number:09d}.{name}.npy", content)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(content))


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content) + "\n"
