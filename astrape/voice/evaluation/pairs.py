"""Sources, targets, and the pairs of them that are converted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from astrape.audio.endings import is_audio, is_hidden
from astrape.audio.places import Place, Where, anywhere, joined
from astrape.corpus.layouts import VCTK_AUDIO, read_corpus
from astrape.corpus.manifests import IsThere, is_file, json_rows, known_files, manifest_text, table_rows
from astrape.corpus.utterances import Utterance
from astrape.errors import AstrapeError
from astrape.voice.evaluation.errors import EvaluationError
from astrape.voice.folder import is_folder, is_there
from astrape.voice.shipped import shipped_voices

__all__ = [
    "Pair",
    "Target",
    "all_pairs",
    "own_voices",
    "read_pairs",
    "read_sources",
    "read_targets",
    "some",
    "utterance",
]

MANIFESTS = (".csv", ".tsv", ".jsonl")
VOICEBANKS = (".astrape", ".npz")
OWN_RECORDINGS = 8
"""Recordings of a speaker that their own voice is embedded from: as many as a training cache takes."""


@dataclass(frozen=True)
class Target:
    """A voice to convert to. Files are paths of this machine, or places in a store.

    Attributes:
        name: of the voice, also of the folder that its results go to.
        files: a voicebank, or recordings to embed.
        audio: a recording of the speaker, to compare with.
    """

    name: str
    files: tuple[Path | Place, ...]
    audio: Path | Place | None = None


@dataclass(frozen=True)
class Pair:
    """One conversion to evaluate.

    Attributes:
        source: who says what.
        target: the voice; ``None`` where another system converted to an unknown voice.
        converted: the result of another system.
        own_voice: the target is the source's own voice, so that the source is what a perfect system gives.
        given: what systems hear in place of the source: the same in a worse condition.
    """

    source: Utterance
    target: Target | None
    converted: Path | Place | None = None
    own_voice: bool = False
    given: Path | Place | None = None

    @property
    def heard(self) -> Path | Place:
        """The recording that systems convert. Results are measured against the source."""
        return self.given or self.source.path

    @property
    def name(self) -> str:
        """``source to target``, unlike any other of a run."""
        return f"{self.source.key} to {self.target.name}" if self.target else self.source.key


def utterance(path: Path | Place, text: str | None = None, there: IsThere | None = None) -> Utterance:
    """A recording by itself, with what a text file beside it, or in VCTK's ``txt/SPEAKER/NAME.txt``, says of it.

    Args:
        path: the recording.
        text: what is said in it, where that is known.
        there: whether there is a file, where somebody has a list of them.
    """
    speaker = path.absolute().parent.name or "speaker"
    transcript = None if text is not None else _transcript(path.absolute(), there or is_file)
    return Utterance(path, speaker, path.stem, said=text, transcript=transcript)


def read_sources(sources: Sequence[Where]) -> list[Utterance]:
    """Sources from audio files, folders (VCTK's layout among them) and manifests, of this machine or by URL.

    See :func:`astrape.corpus.layouts.read_corpus` for folders and manifests.

    Raises:
        AstrapeError: for what is missing, or holds no audio, and for two sources of one name.
    """
    found: list[Utterance] = []
    for path in map(anywhere, sources):
        if isinstance(path, Path) and not path.exists():
            raise EvaluationError(f"{path}: there is no such file or folder")
        single = not is_folder(path) and path.suffix.lower() not in MANIFESTS
        try:
            found += [utterance(path)] if single else read_corpus(path)
        except AstrapeError as error:
            raise EvaluationError(str(error)) from error
    return _unlike(found)


def read_targets(targets: Sequence[Where], audio: Where | None = None) -> list[Target]:
    """Targets from voicebanks, recordings, and folders that hold some of these, of this machine or by URL.

    Args:
        targets: a recording is embedded, and compared with; the name of a voice that ships stands for its voicebank.
        audio: what voicebanks are compared with: a recording, or a folder with one of each voicebank's name. Left out,
            a recording of the same name beside the voicebank.

    Raises:
        EvaluationError: for what is missing, is of another kind, or has a name twice.
    """
    files: list[Path | Place] = []
    for path in map(_shipped, map(anywhere, targets)):
        if isinstance(path, Path) and not path.exists():
            names = ", ".join(shipped_voices())
            raise EvaluationError(
                f"{path}: there is no such voicebank, recording or folder, and no voice of that name ships: hint: "
                f"those that do are {names}"
            )
        if is_folder(path):
            inside = [path / name for name in Place(path).files() if not is_hidden(name)]
            banks = [one for one in inside if one.suffix.lower() in VOICEBANKS]
            taken = {one.stem for one in banks}
            heard = [one for one in inside if is_audio(one) and one.stem not in taken]
            if not banks and not heard:
                raise EvaluationError(f"{path}: holds no voicebank (.astrape) and no recording to convert to")
            files += _one_form(banks) + heard
        else:
            files.append(path)
    heard_in = None if audio is None else anywhere(audio)
    if heard_in is not None and not is_there(heard_in):
        raise EvaluationError(f"{heard_in}: there is no such recording of the target")
    found = [_target(path, heard_in, len(files)) for path in files]
    for index, target in enumerate(found):
        if target.name in {other.name for other in found[:index]}:
            raise EvaluationError(f"{target.files[0]}: there are two targets '{target.name}': rename one")
    return found


def all_pairs(sources: Iterable[Utterance], targets: Iterable[Target]) -> list[Pair]:
    """Every source to every target."""
    voices = list(targets)
    return [Pair(source, target) for source in sources for target in voices]


def own_voices(sources: Sequence[Utterance]) -> list[Pair]:
    """Every source to its speaker's own voice, embedded from up to 8 of the speaker's sources."""
    speakers: dict[str, list[Path | Place]] = {}
    for source in sources:
        speakers.setdefault(source.speaker, []).append(source.path)
    voices = {
        name: Target(f"{name} (own voice)", tuple(files[:OWN_RECORDINGS]), files[0]) for name, files in speakers.items()
    }
    return [Pair(source, replace(voices[source.speaker], audio=source.path), own_voice=True) for source in sources]


def some(pairs: Sequence[Pair], limit: int | None, seed: int) -> list[Pair]:
    """At most ``limit`` of the pairs, drawn with the seed, in their order."""
    if limit is None or limit >= len(pairs):
        return list(pairs)
    kept = np.random.default_rng(seed).choice(len(pairs), size=limit, replace=False)
    return [pairs[index] for index in sorted(kept.tolist())]


def read_pairs(table: Where) -> list[Pair]:
    """Listed pairs, from a table: .csv or .tsv with a first line of names, or .jsonl with an object a line.

    Columns: ``source``, and where wanted ``target`` (a voicebank, a recording, or the name of a voice that ships),
    ``target_audio``, ``text`` (what is said), ``converted`` (by another system), ``speaker``, ``own_voice`` (``yes``).
    Paths are relative to the table, and may be URLs. What lies below a table in a store is listed once.

    Raises:
        EvaluationError: for a table that cannot be read, by line, and files that are missing.
    """
    path = anywhere(table)
    there = cache(known_files(path))
    pairs = [_pair(path, line, row, there) for line, row in _rows(path)]
    if not pairs:
        raise EvaluationError(f"{path}: lists no pair")
    _unlike({pair.source.path: pair.source for pair in pairs}.values())
    seen: set[tuple[str, str | None]] = set()
    for pair in pairs:
        key = (pair.source.key, pair.target.name if pair.target else None)
        if key in seen:
            raise EvaluationError(f"{path}: lists '{pair.name}' twice: leave one out")
        seen.add(key)
    return pairs


def _pair(table: Path | Place, line: int, row: dict[str, Any], there: IsThere) -> Pair:
    where = f"{table}:{line}"
    for name, value in row.items():
        if value is not None and not isinstance(value, str):
            raise EvaluationError(f"{where}: '{name}' must be text")

    def file(name: str) -> Path | Place | None:
        value = (row.get(name) or "").strip()
        if not value:
            return None
        found = joined(table.parent, value)
        if there(found):
            return found
        if name == "target":
            found = _shipped(anywhere(value), found)
        if not is_file(found):
            raise EvaluationError(f"{where}: '{name}' is {found}, and there is no such file")
        return found

    source, target, converted = file("source"), file("target"), file("converted")
    if source is None:
        raise EvaluationError(f"{where}: has no 'source'")
    if target is None and converted is None:
        raise EvaluationError(f"{where}: has neither a 'target' to convert to nor a 'converted' file")
    said = utterance(source, (row.get("text") or "").strip() or None, there)
    speaker = (row.get("speaker") or "").strip()
    voice = None if target is None else _target(target, file("target_audio"), 1)
    if voice is None and (audio := file("target_audio")) is not None:
        voice = Target(audio.stem, (audio,), audio)
    own = (row.get("own_voice") or "").strip().lower() in ("yes", "true", "1")
    return Pair(replace(said, speaker=speaker) if speaker else said, voice, converted, own)


def _rows(path: Path | Place) -> Iterator[tuple[int, dict[str, Any]]]:
    text = manifest_text(path, EvaluationError)
    if path.suffix.lower() not in MANIFESTS:
        raise EvaluationError(f"{path}: pairs are listed in a table, {', '.join(MANIFESTS)}")
    if path.suffix.lower() == ".jsonl":
        yield from json_rows(path, text, EvaluationError, '{"source": ..., "target": ...}')
        return
    yield from table_rows(path, text, EvaluationError, ["source"])


def _target(path: Path | Place, audio: Path | Place | None, count: int) -> Target:
    single = audio is not None and not is_folder(audio)
    if path.suffix.lower() not in VOICEBANKS:
        return Target(path.stem, (path,), audio if single else path)
    if single:
        if count > 1:
            raise EvaluationError(f"{audio}: is one recording for {count} targets: give a folder with one of each name")
        return Target(path.stem, (path,), audio)
    folder = path.parent if audio is None else audio
    beside = (folder / name for name in Place(folder).files() if is_audio(name))
    return Target(path.stem, (path,), next((one for one in beside if one.stem == path.stem), None))


def _shipped(path: Path | Place, otherwise: Path | Place | None = None) -> Path | Place:
    """The voicebank of a voice that ships, for its name where no file or folder is called so; else the path itself."""
    named = isinstance(path, Path) and not path.exists()
    found = shipped_voices().get(os.fspath(path)) if named else None
    return found or otherwise or path


def _one_form(banks: list[Path | Place]) -> list[Path | Place]:
    """Voicebanks without the older form of a voice that is there in both."""
    newer = {bank.stem for bank in banks if bank.suffix.lower() == ".astrape"}
    return [bank for bank in banks if bank.suffix.lower() == ".astrape" or bank.stem not in newer]


def _transcript(path: Path | Place, there: IsThere) -> Path | Place | None:
    beside = [path.with_suffix(".txt")]
    if path.parent.parent.name in VCTK_AUDIO:
        stem = path.stem.removesuffix("_mic1").removesuffix("_mic2")
        beside.append(path.parent.parent.parent / "txt" / path.parent.name / f"{stem}.txt")
    return next((file for file in beside if there(file)), None)


def _unlike(sources: Iterable[Utterance]) -> list[Utterance]:
    """The same, if no two have one name: results are files of that name."""
    by_key: dict[str, Utterance] = {}
    for source in sources:
        other = by_key.setdefault(source.key, source)
        if other is not source:
            shown = f"{os.fspath(other.path)} and {os.fspath(source.path)}"
            raise EvaluationError(f"{shown} are both '{source.key}': keep one of them, or tell them apart by folders")
    return list(by_key.values())
