"""The records of a corpus: ``corpus.json``, and ``manifest.jsonl`` with a line for each rendering."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from astrape.audio.atomic import write_whole
from astrape.audio.places import Place
from astrape.corpus import packages as table
from astrape.corpus.errors import CorpusError
from astrape.corpus.items import FOLDERS, CorpusSettings
from astrape.corpus.packages import PinnedPackage
from astrape.corpus.plan import KOKORO
from astrape.corpus.rendering import PHONE_RATE
from astrape.corpus.sets import INFO, PHONES, read_info
from astrape.corpus.sources import SOURCES, licence_of, packages_of
from astrape.corpus.voices import HELD
from astrape.errors import PlaceError
from astrape.settings import Between, Settings, read_settings

__all__ = ["MANIFEST", "RECORD", "corpus_settings", "is_corpus", "keep_record", "read_sets", "write_manifest"]

RECORD, MANIFEST = "corpus.json", "manifest.jsonl"
FORM = 1

READS, AT_A_TIME = 16, 1000
"""Sets that are read from a store at a time, and sets whose contents are held."""


class _Extent(Settings):
    """The content of a corpus: :class:`~astrape.corpus.items.CorpusSettings` without the folder, which may be moved."""

    hours: Annotated[float, Between(0, math.inf)]
    flite: Annotated[float, Between(0, math.inf)]
    recordings: bool
    warps: Annotated[float, Between(0, 1)]
    seed: int


class _Package(Settings):
    version: str
    sha256: str


class _Record(Settings):
    """``corpus.json``."""

    form: int
    settings: _Extent
    held_voices: list[str]
    packages: dict[str, _Package]
    tools: dict[str, str]
    sources: list[dict[str, Any]]


def is_corpus(folder: Path | Place) -> bool:
    """Whether a folder, of this machine or of a store, holds a corpus that was made by this package."""
    return Place(folder / RECORD).exists()


def keep_record(
    settings: CorpusSettings, tools: dict[str, str], packages: Mapping[str, PinnedPackage] | None = None
) -> list[str]:
    """Write ``corpus.json``, or hold a run against the one that is there; extents grow, they never shrink.

    Args:
        settings: what this run makes.
        tools: versions of the programs and libraries that rendered bytes depend on.
        packages: by name; all that are known where left out.

    Returns:
        What differs and does no harm, such as another version of a library, in words.

    Raises:
        CorpusError: where the corpus has another seed, share of warps or packages.
    """
    chosen = table.PACKAGES if packages is None else packages
    used = {name: chosen[name] for name in packages_of(settings.kinds | {KOKORO})}
    kept = {name: value for name, value in asdict(settings).items() if name != "work"}
    wanted: dict[str, Any] = {
        "form": FORM,
        "settings": kept,
        "held_voices": list(HELD),
        "packages": {name: {"version": one.version, "sha256": one.sha256} for name, one in sorted(used.items())},
        "tools": dict(sorted(tools.items())),
        "sources": [asdict(source) for source in SOURCES],
    }
    path = settings.work / RECORD
    notes: list[str] = []
    if Place(path).exists():
        found = _read(path)
        for name, theirs, ours in (
            ("form", found.form, FORM),
            ("seed", found.settings.seed, settings.seed),
            ("warps", found.settings.warps, settings.warps),
        ):
            if theirs != ours:
                raise CorpusError(
                    f"{path}: was made with {name} {theirs}, and this run has {ours}; hint: "
                    f"give what it was made with, or name another folder with --work"
                )
        packages_then = {name: package.model_dump() for name, package in found.packages.items()}
        for name, package in packages_then.items():
            ours = wanted["packages"].get(name, package)
            if package != ours:
                raise CorpusError(
                    f"{path}: was made with {name} {package['version']}, and this run has {ours['version']}; hint: "
                    f"name another folder with --work"
                )
        for tool, before in found.tools.items():
            if tools.get(tool, before) != before:
                notes.append(f"{tool} is {tools[tool]} now and was {before}: new sets may differ in their last bits")
        for name in ("hours", "flite", "recordings"):
            kept[name] = max(kept[name], getattr(found.settings, name))
        wanted["packages"] = dict(sorted((packages_then | wanted["packages"]).items()))
        wanted["tools"] = dict(sorted((tools | found.tools).items()))
    write_whole(path, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
    return notes


def corpus_settings(work: Path | Place) -> CorpusSettings:
    """The settings of a corpus, by its own record.

    Raises:
        CorpusError: for a folder without one, or with one that is not as this package writes it.
    """
    return CorpusSettings(work, **_read(work / RECORD).settings.model_dump())


def write_manifest(work: Path | Place) -> dict[str, Any]:
    """Write ``manifest.jsonl`` of all sets that are there, whoever rendered them.

    A line has ``path``, ``phones`` and ``pitch`` (relative to the manifest), ``speaker``, ``name``, ``set``, ``split``
    (``train`` or ``held``), ``use`` (``evaluate`` for what only evaluation may use), ``text``, ``seconds``,
    ``source`` and ``licence``.

    Returns:
        Counts: sets, renderings and hours, by split and by source, and speakers.
    """
    lines: list[str] = []
    hours: dict[str, dict[str, float]] = {}
    sets, speakers = 0, set()
    for key, info in read_sets(work):
        sets += 1
        for line in _lines(key, info):
            lines.append(json.dumps(line, ensure_ascii=False))
            by_split = hours.setdefault(line["source"], {"train": 0.0, "held": 0.0})
            by_split[line["split"]] += line["seconds"] / 3600
            speakers.add(line["speaker"])
    write_whole(work / MANIFEST, "".join(line + "\n" for line in lines))
    total = {split: sum(one[split] for one in hours.values()) for split in ("train", "held")}
    return {
        "sets": sets,
        "renderings": len(lines),
        "speakers": len(speakers),
        "hours": total,
        "hours_by_source": dict(sorted(hours.items())),
    }


def _lines(base: str, info: dict[str, Any]) -> Iterator[dict[str, Any]]:
    source = str(info.get("source", KOKORO))
    name = str(info.get("set", base.rpartition("/")[2]))
    evaluate = {one.name for one in SOURCES if one.use == "evaluate"}
    for voice in info["voices"]:
        yield {
            "path": f"{base}/{voice}.flac",
            "speaker": voice,
            "name": name,
            "set": name,
            "split": info["split"],
            "use": "evaluate" if voice in evaluate else "train" if info["split"] == "train" else "validate",
            "text": info["text"],
            "phones": None if info["phones"] is None else f"{base}/{PHONES}",
            "pitch": f"{base}/{voice}.f0.npy",
            "seconds": info["frames"] / PHONE_RATE,
            "source": source,
            "licence": info.get("licence") or licence_of(source),
        }


def read_sets(work: Path | Place, sources: Iterable[str] = FOLDERS) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys and contents of all sets of a corpus, in order of their keys; of a store, several are read at a time.

    Args:
        work: the corpus.
        sources: whose sets; of all of them when left out.
    """
    for top in (FOLDERS[source] for source in sources):
        names = (name.rpartition("/") for name in (Place(work) / top).names())
        keys = sorted((folder for folder, _, file in names if file == INFO), key=lambda one: one.split("/"))
        with ThreadPoolExecutor(READS if isinstance(work, Place) else 1) as pool:
            for begin in range(0, len(keys), AT_A_TIME):
                some = [f"{top}/{key}" for key in keys[begin : begin + AT_A_TIME]]
                for key, info in zip(some, pool.map(lambda key: _info(work / key), some), strict=True):
                    if info is not None:
                        yield key, info


def _info(folder: Path | Place) -> dict[str, Any] | None:
    try:
        return read_info(folder)
    except CorpusError:
        # A damaged one is for check-cache to find.
        return None


def _read(path: Path | Place) -> _Record:
    try:
        found = json.loads(Place(path).read())
    except PlaceError as error:
        more = "; hint: `astrape corpus make parallel` makes a corpus" if error.missing else ""
        raise CorpusError(f"{error}{more}") from error
    except ValueError as error:
        raise CorpusError(f"{path}: is not a record of a corpus: {error}; hint: delete it and run again") from error
    return read_settings(_Record, found, CorpusError, str(path))
