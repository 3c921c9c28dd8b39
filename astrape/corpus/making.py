"""The job that makes what a corpus is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from astrape.audio.atomic import check_space, left_behind, make_folder, write_whole
from astrape.audio.places import Place
from astrape.corpus.errors import CorpusError, ToolError, UnfitError
from astrape.corpus.items import FOLDERS, REGISTERS, UNFIT, CorpusSettings, SetItem, SetStudio
from astrape.corpus.materials import Materials, missing_bytes, packages_folder, prepare, tool_versions
from astrape.corpus.packages import PinnedPackage
from astrape.corpus.plan import KOKORO, SetPlan
from astrape.corpus.record import keep_record, write_manifest
from astrape.corpus.sets import INFO, seconds_of, write_set
from astrape.errors import PlaceError, WriteError, told_as
from astrape.jobs import IN_PROCESS, Done, Engine, Failed, Job, run_job
from astrape.progress import Progress

__all__ = ["MadeCorpus", "RenderedItem", "make_items", "make_parallel", "rendered_item"]


BYTES = 27_000
"""A second of a rendering on the disk, its tables among them: speech in FLAC at 24 kHz."""

HEADROOM = 1.05

MANIFEST_SECONDS = 300
"""Least time between two manifests of a run, which trainings read meanwhile."""

MANIFEST_SHARE = 0.05
"""Most of a run's time that manifests may take: each reads every set's record, which is slow from a store."""


@dataclass(frozen=True)
class RenderedItem:
    """The outcome of an item.

    Attributes:
        seconds: of its renderings; 0 where there are none.
        unfit: why its sentence cannot be one.
        fault: what went wrong.
        fatal: what would go wrong with the next one alike.
    """

    seconds: float = 0.0
    unfit: str | None = None
    fault: str | None = None
    fatal: str | None = None


@dataclass(frozen=True)
class MadeCorpus:
    """The result of a run.

    Attributes:
        folder: the corpus.
        sets: in all.
        made: of them, now.
        there: of them, before.
        unfit: of them, sentences that no set can be made of.
        failed: what could not be made, with reasons.
        seconds: of renderings, made now.
        elapsed: wall-clock seconds.
        corpus: all that is there: sets, renderings, speakers, hours by split and source.
    """

    folder: str
    sets: int
    made: int
    there: int
    unfit: int
    failed: tuple[Failed, ...]
    seconds: float
    elapsed: float
    corpus: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_parallel(
    settings: CorpusSettings,
    *,
    engine: Engine = IN_PROCESS,
    packages: Mapping[str, PinnedPackage] | None = None,
    model_sha256: str | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> MadeCorpus:
    """Make what a corpus of parallel sets is missing.

    Sets that are there stay, so a run that ended early goes on where it was; a set is there, whole, when its
    ``set.json`` is. What is in a set depends on the seed and its number, not on how the work is divided.

    Args:
        settings: what the corpus is to be.
        engine: what does the work; a worker takes one core and 0.7 GB of memory.
        packages, model_sha256: other ones than are known, for tests.
        progress: called with the seconds of one core that are done, and all, as they were estimated.
        tell: called with what a user should know before the work begins.

    Raises:
        PackageError: for a package that cannot be had, or has another checksum.
        ToolError: for a program or a library that is absent.
        CorpusError: for a corpus that was made with other settings, and a disk that is too small.
    """
    begin = time.monotonic()
    work = settings.work
    with told_as(CorpusError):
        make_folder(work)
    _check_space(
        packages_folder(work) if isinstance(work, Place) else work, missing_bytes(work, settings.kinds, packages)
    )
    materials = prepare(work, settings.kinds, packages=packages, model_sha256=model_sha256, tell=tell)
    for note in keep_record(settings, tool_versions(settings.kinds), packages):
        if tell is not None:
            tell(note)
    if tell is not None and KOKORO in settings.kinds and not Place(work / REGISTERS).exists():
        tell("measuring how high each voice speaks, once: a minute or two of one core")
    items = SetStudio(settings, materials).items()
    present = _present(work)
    unfit = sum(f"{item.key}{UNFIT}" in present for item in items)
    there = sum(f"{item.key}/{INFO}" in present for item in items)
    missing = [one for one in items if not {f"{one.key}/{INFO}", f"{one.key}{UNFIT}"} & present]
    if tell is not None:
        minutes = sum(item.cost for item in missing) / 60
        tell(f"{work}: {len(missing)} of {len(items)} sets to make, about {minutes:.0f} minutes of one core")
    made, more, failed, seconds = make_items(settings, materials, missing, engine=engine, progress=progress)
    return MadeCorpus(
        folder=str(work),
        sets=len(items),
        made=made,
        there=there,
        unfit=unfit + more,
        failed=tuple(failed),
        seconds=seconds,
        elapsed=time.monotonic() - begin,
        corpus=write_manifest(work),
    )


def make_items(
    settings: CorpusSettings,
    materials: Materials,
    items: Sequence[SetItem],
    *,
    plans: Mapping[str, SetPlan] | None = None,
    engine: Engine = IN_PROCESS,
    progress: Progress | None = None,
) -> tuple[int, int, list[Failed], float]:
    """Make these sets, whether they are there or not.

    Args:
        settings, materials: of the corpus.
        items: which.
        plans: by key, for sets that are not to be drawn anew.
        engine, progress: as for :func:`make_parallel`.

    Returns:
        How many were made and how many are unfit, what failed, and the seconds of renderings.

    Raises:
        ToolError, CorpusError: for what would fail with every set alike, and a disk that is too small or full.
    """
    work = settings.work
    for path in left_behind(work):
        path.unlink(missing_ok=True)
    _check_space(work, BYTES * sum(item.seconds for item in items))
    total, done, seconds = sum(item.cost for item in items), 0.0, 0.0
    made = unfit = 0
    failed: list[Failed] = []
    written, took = time.monotonic(), 0.0
    chosen = dict(plans or {})
    job = Job(_begin, (settings, materials, chosen), here=lambda: _work(settings, materials, chosen))
    for one in run_job(job, items, engine):
        item, outcome = one.item, _outcome_of(one)
        if outcome.fatal is not None:
            raise CorpusError(outcome.fatal)
        if outcome.unfit is not None:
            unfit += 1
        elif outcome.fault is not None:
            failed.append(Failed(item.key, outcome.fault))
        else:
            made += 1
            seconds += outcome.seconds
        done += item.cost
        if progress is not None:
            progress(done, total)
        if (now := time.monotonic()) - written > max(MANIFEST_SECONDS, took / MANIFEST_SHARE):
            write_manifest(work)
            written = time.monotonic()
            took = written - now
    return made, unfit, failed, seconds


def _present(work: Path | Place) -> set[str]:
    """The files that say of a set that it is there, or cannot be, by their paths in the corpus."""
    listed = (f"{top}/{name}" for top in FOLDERS.values() for name in (Place(work) / top).names())
    return {name for name in listed if name.endswith((f"/{INFO}", UNFIT))}


def _check_space(folder: Path | Place, needed: float) -> None:
    with told_as(CorpusError):
        hint = "free space, ask for fewer --hours, or name another disk with --work"
        check_space(folder, needed * HEADROOM, hint=hint)


def rendered_item(studio: SetStudio, item: SetItem, plan: SetPlan | None = None) -> RenderedItem:
    """Render a set and write it."""
    work = studio.settings.work
    try:
        rendered = studio.render(item, plan)
        info = write_set(item.folder(work), item.name, rendered, item.licence, studio.settings.seed)
        return RenderedItem(seconds=seconds_of(info))
    except UnfitError as error:
        write_whole(item.marker(work), f"{error}\n")
        return RenderedItem(unfit=str(error))
    except ToolError as error:
        return RenderedItem(fatal=str(error))
    except CorpusError as error:
        return RenderedItem(fault=str(error))
    except (PlaceError, WriteError) as error:
        return RenderedItem(fatal=str(error))
    except MemoryError:
        return RenderedItem(fault="out of memory")
    except Exception as error:
        # onnxruntime, WORLD and decoders fail in whatever way, and one odd sentence must not lose the night.
        return RenderedItem(fault=f"{type(error).__name__}: {error}")


def _outcome_of(one: Done[SetItem, RenderedItem]) -> RenderedItem:
    return RenderedItem(fault=one.fault) if one.outcome is None else one.outcome


def _begin(
    settings: CorpusSettings, materials: Materials, plans: dict[str, SetPlan]
) -> Callable[[SetItem], RenderedItem]:
    return _work(settings, materials.here(), plans)


def _work(
    settings: CorpusSettings, materials: Materials, plans: dict[str, SetPlan]
) -> Callable[[SetItem], RenderedItem]:
    studio = SetStudio(settings, materials)
    return lambda item: rendered_item(studio, item, plans.get(item.key))
