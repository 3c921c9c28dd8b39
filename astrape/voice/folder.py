"""Folders of recordings: what in them is converted, where to, and that nothing is lost by it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astrape.audio.atomic import make_folder, shown, sweep
from astrape.audio.endings import DECODED, is_audio, is_hidden
from astrape.audio.places import Place, below
from astrape.errors import AstrapeError
from astrape.jobs import Engine, Job, run_job
from astrape.progress import Progress
from astrape.runtime.files import Conversion

__all__ = [
    "Batch",
    "Failure",
    "FilePair",
    "convert_pair",
    "convert_pairs",
    "is_folder",
    "is_there",
    "pairs_of_folder",
    "same_file",
]


@dataclass(frozen=True)
class Failure:
    """A file of a folder that was not converted, and why."""

    source: str
    error: str

    def to_dict(self) -> dict[str, str]:
        return {"source": self.source, "error": self.error}


@dataclass(frozen=True)
class FilePair:
    """A file and what it is converted to; the work item of a folder."""

    index: int
    source: Path | Place
    target: Path | Place


@dataclass(frozen=True)
class Batch:
    """The result of converting a folder.

    Attributes:
        converted: in the order of their paths.
        failed: what could not be converted.
        others: files whose endings are not those of audio.
    """

    converted: tuple[Conversion, ...]
    failed: tuple[Failure, ...]
    others: tuple[Path | Place, ...]

    @property
    def passed_over(self) -> int:
        return len(self.others)

    def to_dict(self) -> dict[str, Any]:
        return {
            "converted": [done.to_dict() for done in self.converted],
            "failed": [failure.to_dict() for failure in self.failed],
            "passed_over": self.passed_over,
            "passed_over_files": [shown(path) for path in self.others],
        }


def pairs_of_folder(
    source: Path | Place, out: Path | Place, keep: Sequence[Path | Place] = ()
) -> tuple[list[FilePair], tuple[Path | Place, ...]]:
    """Every audio file below a folder and what it is converted to, and the other files there are.

    What can be read and not written, m4a for instance, is converted to ``.wav``.

    Hidden files and folders are left alone, and so is ``out`` where it lies inside ``source``.

    Args:
        source, out: folders, of this machine or of stores.
        keep: files that are in use, such as the voice: nothing is written to them.

    Raises:
        AstrapeError: for folders that cannot be listed, without audio, or where a source or a file to keep would be
            overwritten, under its own name or another.
    """
    if not is_folder(source):
        raise AstrapeError(f"{source}: is not a folder")
    if not is_folder(out) and (isinstance(out, Place) or out.exists()):
        raise AstrapeError(f"{out}: is not a folder, and a folder converts to one: name another")
    files = sorted(_below(source, out))
    audio = [path for path in files if is_audio(path)]
    if not audio:
        raise AstrapeError(f"{source}: holds no audio file (of {len(files)}): nothing to convert")
    targets = _targets(audio, source, out)
    sources, kept = {_identity(path) for path in audio}, {_identity(path) for path in keep}
    for target in targets:
        own = _identity(target)
        if own in sources:
            raise AstrapeError(f"{out}: would overwrite the source {target}: name another folder")
        if own in kept:
            raise AstrapeError(f"{out}: would overwrite {target}, which is in use as the voice: name another folder")
    pairs = [FilePair(index, *both) for index, both in enumerate(zip(audio, targets, strict=True))]
    return pairs, tuple(path for path in files if not is_audio(path))


def _targets(audio: Sequence[Path | Place], source: Path | Place, out: Path | Place) -> list[Path | Place]:
    taken = set(audio)
    targets = []
    for path in audio:
        if path.suffix.removeprefix(".").lower() in DECODED:
            other = path.with_suffix(".wav")
            path = path.with_name(f"{path.name}.wav") if other in taken else other
            taken.add(path)
        targets.append(out / below(path, source))
    return targets


def convert_pair(convert: Callable[[FilePair], Conversion], pair: FilePair) -> Conversion | Failure:
    """Convert a file of a folder; what cannot be converted is noted."""
    try:
        make_folder(pair.target.parent)
        return convert(pair)
    except AstrapeError as error:
        return Failure(str(pair.source), str(error))


def convert_pairs(
    job: Job[FilePair, Conversion | Failure],
    pairs: Sequence[FilePair],
    others: tuple[Path | Place, ...],
    engine: Engine,
    progress: Progress | None,
) -> Batch:
    """Convert the files of a folder, in whatever order; what became of them, in the order of their paths."""
    found: dict[int, Conversion | Failure] = {}
    for folder in {pair.target.parent for pair in pairs}:
        sweep(folder)
    for done in run_job(job, pairs, engine):
        pair = done.item
        found[pair.index] = done.outcome or Failure(str(pair.source), f"{pair.source}: {done.fault}")
        if progress is not None:
            progress(float(len(found)), float(len(pairs)))
    ordered = [found[pair.index] for pair in pairs]
    return Batch(
        tuple(one for one in ordered if isinstance(one, Conversion)),
        tuple(one for one in ordered if isinstance(one, Failure)),
        others,
    )


def is_folder(where: Path | Place) -> bool:
    """Whether there is a folder; in a store, whether there is no object of that name."""
    return not where.exists() if isinstance(where, Place) else where.is_dir()


def is_there(where: Path | Place) -> bool:
    """Whether there is a file or a folder; in a store, one with something in it."""
    return where.exists() or (isinstance(where, Place) and next(where.names(), None) is not None)


def same_file(one: Path | Place, other: Path | Place) -> bool:
    """Whether two paths are one existing file."""
    if isinstance(one, Place) or isinstance(other, Place):
        return one == other
    return one.exists() and other.exists() and one.samefile(other)


def _identity(path: Path | Place) -> object:
    """The same for all names of a file, links included; of one that is not there, where it would be."""
    if isinstance(path, Place):
        return path
    try:
        found = path.stat()
    except OSError:
        return path.resolve()
    return found.st_dev, found.st_ino


def _below(folder: Path | Place, apart: Path | Place) -> Iterator[Path | Place]:
    """The files below a folder that are not hidden, but for those below ``apart``."""
    if isinstance(folder, Place):
        own = f"{below(apart, folder)}/" if apart != folder else None
        seen = (name for name in folder.names() if not is_hidden(name))
        yield from (folder / name for name in seen if own is None or not name.startswith(own))
        return

    def refuse(error: OSError) -> None:
        raise AstrapeError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    left_alone = None
    if isinstance(apart, Path) and apart.resolve() != folder.resolve():
        left_alone = apart.resolve()
    for root, folders, names in os.walk(folder, onerror=refuse):
        here = Path(root)
        folders[:] = [name for name in folders if name[0] != "." and (here / name).resolve() != left_alone]
        yield from (here / name for name in names if name[0] != ".")
