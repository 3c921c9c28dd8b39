"""Reading every shard of a pack, to find the damaged and the missing ones, and packing those again."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from astrape.audio.atomic import left_behind
from astrape.audio.places import Place
from astrape.corpus.utterances import Utterance
from astrape.jobs import IN_PROCESS, Engine, Failed, Finding, Job, run_batches
from astrape.progress import Progress
from astrape.training.caches.cache import Cache, check_values
from astrape.training.caches.checking import Checked
from astrape.training.caches.files import ArrayFault, check_content
from astrape.training.caches.front import FRONT_WEIGHTS
from astrape.training.caches.packed import mapped_part, read_part, read_table
from astrape.training.caches.packing import INDEX, PACK, PARALLEL, PLAN, Shard, write_front, write_shards
from astrape.training.caches.record import Record, hash_of_state, record_of
from astrape.training.errors import CacheError

__all__ = ["check_pack", "pack_kinds", "repair_pack"]

AGAIN = "`astrape cache pack`, with the options that it was packed with, goes on from what is there"


@dataclass(frozen=True)
class _Plan:
    """A planned pack.

    Attributes:
        records: of its caches, by kind.
        samples: of each shard, by its name, in their order.
        rows: lines of the index by shard, the first with its number; ``None`` where there is no index to go by.
        faults: of the files beside the shards.
        parallel: it is of parallel sets.
    """

    records: dict[str, Record]
    samples: dict[str, int]
    rows: dict[str, list[tuple[int, str, str]]] | None
    faults: tuple[Finding, ...]
    parallel: bool


class _Described(Cache):
    """A cache of which only the record is at hand."""

    def __init__(self, record: Record) -> None:
        self.folder, self.record = Path(), record


def check_pack(
    place: Place, *, reads: int = 1, engine: Engine = IN_PROCESS, progress: Progress | None = None
) -> Checked:
    """Read all of a pack: every shard whole, every array as it was written, every utterance where the index says.

    Args:
        place: the pack, finished or not. Of a store, each shard comes through the read cache.
        reads: shards that each worker reads at a time.
        engine: what does the work.
        progress: called with shards done and in all.

    Raises:
        CacheError: for a place without a pack.
        PlaceError: for a store that cannot be read.
    """
    begin = time.monotonic()
    plan = _read_plan(place)
    found: dict[str, list[Finding]] = {}
    job = Job(_begin, (place,), here=lambda: partial(_look, place, plan))
    for done in run_batches(job, list(plan.samples), engine, size=reads, threads=reads):
        name, outcome = done.item, done.outcome
        if outcome is None:
            outcome = [Finding(str(place / name), "unreadable", done.fault or "", name)]
        found[name] = outcome
        if progress is not None:
            progress(len(found), len(plan.samples))
    findings = [*plan.faults, *_front(place, plan), *(one for name in plan.samples for one in found[name])]
    own = {*plan.samples, PACK, PLAN, INDEX, FRONT_WEIGHTS}
    return Checked(
        what="pack",
        folder=str(place),
        maker=", ".join(record.maker for record in plan.records.values()),
        items=sum(plan.samples.values()),
        findings=tuple(findings),
        strangers=sum(name not in own for name in place.names()),
        elapsed=time.monotonic() - begin,
    )


def pack_kinds(place: Place) -> list[str]:
    """The caches in a pack.

    Raises:
        CacheError: for a place without a pack.
    """
    return list(_read_plan(place).records)


def repair_pack(
    place: Place,
    findings: Sequence[Finding],
    caches: Sequence[Cache],
    utterances: Sequence[Utterance],
    *,
    engine: Engine = IN_PROCESS,
    progress: Progress | None = None,
) -> tuple[int, list[Failed]]:
    """Pack the shards again that a check found damaged or missing, to the bytes that they had.

    Args:
        place: the pack.
        findings: of :func:`check_pack`.
        caches: those that it was packed from.
        utterances: their corpus.
        engine, progress: as for :func:`~astrape.training.caches.packing.make_pack`.

    Returns:
        How many files were made, and what could not be, with reasons. Without the index nobody knows what is in a
        shard: damaged ones are removed then, so that packing makes them again.

    Raises:
        CacheError: for caches that the pack is not of, or that are damaged themselves.
        PlaceError: for a place that cannot be written.
    """
    plan = _read_plan(place)
    caches = _own_caches(place, plan, caches)
    by_key = {one.key: one for one in utterances}
    shards: dict[str, Shard] = {}
    failed: list[Failed] = []
    fronts = 0
    for finding in findings:
        if finding.kind == "temporary":
            Path(finding.path).unlink(missing_ok=True)
        elif finding.kind == "weights":
            write_front(caches, place)
            fronts += 1
        elif finding.key is None:
            failed.append(Failed(finding.path, f"{finding.message}; hint: {AGAIN}"))
        elif plan.rows is None:
            (place / finding.key).remove()
            failed.append(Failed(finding.path, f"was removed, since nothing says what is in it; hint: {AGAIN}"))
        elif finding.key not in shards:
            rows = plan.rows[finding.key]
            gone = [key for _, key, _ in rows if key not in by_key]
            if gone:
                failed.append(
                    Failed(finding.path, f"'{gone[0]}' is not in the corpus; hint: name its corpus with --data")
                )
                continue
            own = tuple(by_key[key] for _, key, _ in rows)
            shards[finding.key] = Shard(finding.key, rows[0][0], own, 1, plan.parallel)
    write_shards(caches, place, list(shards.values()), engine, progress)
    return len(shards) + fronts, failed


def _read_plan(place: Place) -> _Plan:
    faults: list[Finding] = []
    name = PACK if (place / PACK).exists() else PLAN
    if not (place / name).exists():
        raise CacheError(f"{place}: holds no pack; hint: make one with `astrape cache pack {place}`")
    try:
        about = json.loads((place / name).read())
        records = {kind: record_of(fields, f"{place / name}: {kind}") for kind, fields in about["records"].items()}
        samples = {one["name"]: int(one["samples"]) for one in about["shards"]}
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise CacheError(f"{place / name}: is not that of a pack ({type(error).__name__})") from error
    if name == PLAN:
        faults.append(Finding(str(place / PACK), "missing", "is missing: the pack is not finished", None))
    rows = None
    try:
        rows = _read_rows(place, samples)
    except ArrayFault as fault:
        faults.append(Finding(str(place / INDEX), fault.kind, str(fault), None))
    return _Plan(records, samples, rows, tuple(faults), about.get("astrape_pack") == PARALLEL)


def _read_rows(place: Place, samples: dict[str, int]) -> dict[str, list[tuple[int, str, str]]]:
    if not (place / INDEX).exists():
        raise ArrayFault("missing", "is missing")
    rows: dict[str, list[tuple[int, str, str]]] = {name: [] for name in samples}
    try:
        with (place / INDEX).local().open(encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                row = json.loads(line)
                rows[row["shard"]].append((number, row["key"], row["speaker"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ArrayFault("unreadable", f"is not an index of the pack ({type(error).__name__})") from error
    if {name: len(held) for name, held in rows.items()} != samples:
        count = sum(map(len, rows.values()))
        raise ArrayFault("truncated", f"lists {count} utterances, and {sum(samples.values())} are packed")
    return rows


def _begin(place: Place) -> Callable[[str], list[Finding]]:
    return partial(_look, place, _read_plan(place))


def _look(place: Place, plan: _Plan, name: str) -> list[Finding]:
    """The faults of a shard, and of each utterance in it."""
    return list(_faults(place, plan, name))


def _faults(place: Place, plan: _Plan, name: str) -> Iterator[Finding]:
    shard = place / name
    if not shard.exists():
        yield Finding(str(shard), "missing", "is missing", name)
        return
    try:
        local = shard.local()
        table = read_table(local, plan.samples[name])
    except ArrayFault as fault:
        yield Finding(str(shard), fault.kind, str(fault), name)
        return
    held = sorted(member.removesuffix(".json") for member in table if member.endswith(".json"))
    due = None if plan.rows is None else {f"{number:09d}": (key, speaker) for number, key, speaker in plan.rows[name]}
    with local.open("rb") as file:
        for sample in held:
            try:
                file.seek(table[f"{sample}.json"][0])
                about, sums = _about(file.read(table[f"{sample}.json"][1]))
                if due is not None and due.get(sample) != about:
                    raise ArrayFault("changed", f"is of '{about[0]}', and the index says otherwise")
                _check_arrays(plan, local, table, sample, sums)
            except ArrayFault as fault:
                yield Finding(str(shard), fault.kind, f"{sample}: {fault}", name)


def _about(content: bytes) -> tuple[tuple[str, str], dict[str, int]]:
    """Key and speaker of a sample, and the checksums of its tables."""
    try:
        about: dict[str, Any] = json.loads(content)
        return (str(about["key"]), str(about["speaker"])), dict(about.get("tables", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise ArrayFault("unreadable", "has no description that can be read") from error


def _check_arrays(
    plan: _Plan, local: Path, table: dict[str, tuple[int, int]], sample: str, sums: dict[str, int]
) -> None:
    for name, due in sums.items():
        member = f"{sample}.{name}.npy"
        if member not in table:
            raise ArrayFault("missing", f"{name} is missing")
        if zlib.crc32(read_part(local, *table[member])) != due:
            raise ArrayFault("damaged", f"{name} is damaged: its bytes are not what was written")
    for record in plan.records.values():
        if record.what in sums:
            # The content of a table is not in any cache.
            continue
        frames: list[int] = []
        for name, one in _Described(record).stored("any").items():
            member = f"{sample}.{name}.npy"
            try:
                if member not in table:
                    raise ArrayFault("missing", "is missing")
                begin, size = table[member]
                array = mapped_part(local, begin, size, one.dtype, one.channels)
                check_values(name, array, record.codes)
                check_content(read_part(local, begin, size))
                frames.append(array.shape[-1])
                if frames[-1] != frames[0]:
                    raise ArrayFault("shape", f"holds {frames[-1]} frames, and the array beside it {frames[0]}")
            except ArrayFault as fault:
                raise ArrayFault(fault.kind, f"{name} {fault}") from fault


def _front(place: Place, plan: _Plan) -> Iterator[Finding]:
    """The faults of the front end's weights, and files that killed writers left."""
    if place.path is not None:
        for path in left_behind(place.path):
            yield Finding(str(path), "temporary", "was left behind by a run that was killed", None)
    record = plan.records.get("wavlm")
    if record is None or record.identity.get("weights") == hash_of_state({}):
        return
    file = place / FRONT_WEIGHTS
    if not file.exists():
        yield Finding(str(file), "weights", "is missing", None)
        return
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        sound = hash_of_state(load(file.read())) == record.identity.get("weights")
    except (SafetensorError, ValueError):
        sound = False
    if not sound:
        yield Finding(str(file), "weights", "holds other weights than the cache was made with", None)


def _own_caches(place: Place, plan: _Plan, caches: Sequence[Cache]) -> list[Cache]:
    """The caches that a pack is of, in the order in which it was packed, as far as anything says."""
    given = {cache.what: cache for cache in caches}
    for kind, record in plan.records.items():
        if kind not in given:
            raise CacheError(f"{place}: is of a cache of {kind} too; hint: name its folder with --{kind}-dir")
        difference = record.differs(given[kind].record)
        if difference is not None:
            raise CacheError(
                f"{place}: was packed from another cache of {kind} than {given[kind].folder} (it has {difference}); "
                f"hint: --{kind}-dir, or pack to another place"
            )
    # A plan alone has its records by their names.
    kinds = list(plan.records) if (place / PACK).exists() else [kind for kind in given if kind in plan.records]
    return [given[kind] for kind in kinds]
