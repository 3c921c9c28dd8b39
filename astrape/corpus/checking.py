"""Reading every file of a corpus, to find the damaged and the missing ones, and rendering those sets again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from astrape.audio.atomic import left_behind
from astrape.audio.places import Place, below
from astrape.corpus.errors import CorpusError
from astrape.corpus.items import FOLDERS, SetItem, SetStudio
from astrape.corpus.making import make_items
from astrape.corpus.materials import prepare
from astrape.corpus.packages import PinnedPackage
from astrape.corpus.plan import SetPlan
from astrape.corpus.record import MANIFEST, corpus_settings, write_manifest
from astrape.corpus.sets import INFO, PHONES, Damage, inspect_set, plan_of, read_info
from astrape.errors import PlaceError
from astrape.jobs import IN_PROCESS, Engine, Failed, Finding, Job, run_batches
from astrape.progress import Progress

__all__ = ["CheckedCorpus", "check_corpus", "repair_corpus"]

BATCH = 64
"""Sets that a worker is given to look at."""


@dataclass(frozen=True)
class CheckedCorpus:
    """The result of a check.

    Attributes:
        folder: the corpus.
        sets: that were looked at.
        findings: what is wrong.
        elapsed: wall-clock seconds.
    """

    folder: str
    sets: int
    findings: tuple[Finding, ...]
    elapsed: float

    def to_dict(self) -> dict[str, Any]:
        return {"what": "corpus", **asdict(self)}


def check_corpus(
    work: Path | Place, *, reads: int = 1, engine: Engine = IN_PROCESS, progress: Progress | None = None
) -> CheckedCorpus:
    """Read all files of a corpus: whether they are whole, as long as their set says, finite, and what was written.

    What was begun and never finished is found too, and so are sets that ``manifest.jsonl`` names and are gone. Sets
    that a run has not come to are not missing: `astrape corpus make parallel` goes on with these.

    Args:
        work: the corpus.
        reads: sets that each worker reads at a time.
        engine: what does the work.
        progress: called with sets done and in all.

    Raises:
        CorpusError: for a folder without a corpus.
    """
    begin = time.monotonic()
    corpus_settings(work)
    folders = sorted(set(_begun(work)) | _named(work))
    findings = [
        Finding(str(path), "temporary", "was left behind by a run that was killed", None) for path in left_behind(work)
    ]
    found: dict[Path | Place, list[Damage]] = {}
    for done in run_batches(Job(_begin, ()), folders, engine, size=BATCH, threads=reads):
        folder, outcome = done.item, done.outcome
        found[folder] = [Damage(folder, "unreadable", done.fault or "")] if outcome is None else outcome
        if progress is not None:
            progress(len(found), len(folders))
    for folder in folders:
        key = below(folder, work)
        findings.extend(Finding(str(one.path), one.kind, one.message, key) for one in found[folder])
    return CheckedCorpus(str(work), len(folders), tuple(findings), time.monotonic() - begin)


def repair_corpus(
    work: Path | Place,
    findings: Iterable[Finding],
    *,
    engine: Engine = IN_PROCESS,
    packages: dict[str, PinnedPackage] | None = None,
    model_sha256: str | None = None,
    progress: Progress | None = None,
) -> tuple[int, list[Failed]]:
    """Render again the sets in which a check found something, and remove temporaries that were left behind.

    A set whose ``set.json`` is sound is rendered from that, by whichever version it was drawn; otherwise it is drawn
    anew from the corpus's seed and its number. Files that are sound already are left as they are.

    Returns:
        How many sets were made, and what could not be, with reasons.

    Raises:
        CorpusError: as :func:`~astrape.corpus.making.make_parallel`.
    """
    settings = corpus_settings(work)
    keys: list[str] = []
    for finding in findings:
        if finding.key is None:
            Place(finding.path).remove()
        elif finding.key not in keys:
            keys.append(finding.key)
    if not keys:
        return 0, []
    materials = prepare(work, settings.kinds, packages=packages, model_sha256=model_sha256)
    known = {item.key: item for item in SetStudio(settings, materials).items()}
    plans: dict[str, SetPlan] = {}
    hashes: dict[str, dict[str, str]] = {}
    unknown: list[str] = []
    chosen: list[SetItem] = []
    failed: list[Failed] = []
    for key in keys:
        try:
            info = read_info(work / key)
            hashes[key] = dict(info.get("files", {}))
            if not key.startswith(FOLDERS["recordings"]):
                plans[key] = plan_of(info)
        except CorpusError:
            unknown.append(key)
        if key in known:
            chosen.append(known[key])
        else:
            failed.append(Failed(key, "is beyond the hours of this corpus; hint: run `astrape corpus make parallel`"))
    made, unfit, more, _ = make_items(settings, materials, chosen, plans=plans, engine=engine, progress=progress)
    for item in chosen:
        folder = item.folder(work)
        if hashes.get(item.key) and Place(folder / INFO).exists() and read_info(folder)["files"] != hashes[item.key]:
            more.append(Failed(item.key, "was rendered again with other bytes: the versions in corpus.json made it"))
    for key in unknown:
        _remove_strangers(work / key)
    write_manifest(work)
    return made + unfit, failed + more


def _begin() -> Callable[[Path | Place], list[Damage]]:
    return lambda folder: list(inspect_set(folder))


def _begun(work: Path | Place) -> Iterator[Path | Place]:
    """The folders of sets, whatever is in them."""
    for top in FOLDERS.values():
        for one in (Place(work) / top).folders():
            yield from (work / top / one / name for name in (Place(work) / top / one).folders())


def _named(work: Path | Place) -> set[Path | Place]:
    """The folders of the sets that the manifest names."""
    try:
        lines = Place(work / MANIFEST).read().decode().splitlines()
        return {(work / json.loads(line)["path"]).parent for line in lines}
    except (PlaceError, ValueError, KeyError, TypeError):
        # It is made anew by every run.
        return set()


def _remove_strangers(folder: Path | Place) -> None:
    """Remove what is left in a set's folder of voices that it no longer has."""
    try:
        voices = set(read_info(folder)["voices"])
    except CorpusError:
        return
    for name in Place(folder).files():
        if name not in (INFO, PHONES) and name.split(".")[0] not in voices:
            (Place(folder) / name).remove()
