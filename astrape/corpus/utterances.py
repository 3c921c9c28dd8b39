"""One recording of one speaker: the unit of every corpus."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from astrape.audio.atomic import shown
from astrape.audio.downmix import MEAN
from astrape.audio.places import Place
from astrape.corpus.errors import CorpusError
from astrape.errors import PlaceError

__all__ = ["EVALUATE", "HELD", "SPLITS", "Utterance", "checked", "sets_of", "speakers_of"]

SPLITS = TRAIN, HELD, EVALUATE = ("train", "held", "evaluate")
"""Splits that a manifest may name: to train on, held out to validate on, or kept for evaluation."""

RESERVED = (".codes", ".voiced")
"""Endings of what a cache keeps beside an utterance's own file."""

LONGEST_NAME = 200
"""Bytes of each part of a name; file systems end at 255, and a cache adds endings of its own."""


@dataclass(frozen=True, order=True)
class Utterance:
    """One recording of one speaker.

    Files are paths of this machine, or places in a store.

    Attributes:
        path: the audio file.
        speaker: who speaks; also the name of a folder in a cache.
        name: unlike any other of the speaker's; parts are divided by ``/``, as below a folder.
        said: what is said, where a manifest gives it.
        transcript: the file with what is said, where there is one.
        channel: of an audio file with several, as for :class:`~astrape.audio.downmix.Downmix`.
        set: the parallel set that it is a rendering of: what has the same set is the same speech in other voices, in
            step to the sample. ``None``: there is no other rendering.
        split: ``train``, ``held`` or ``evaluate``, where a manifest says.
        phones: the table of what sounds when, see :mod:`astrape.training.tables`.
        pitch: the table of its fundamental.
        vector: who speaks, as a speaker encoder has it.
        source: what it comes from, where a manifest says: ``kokoro``, ``flite`` or ``recordings`` of ours.
    """

    path: Path | Place
    speaker: str
    name: str
    said: str | None = None
    transcript: Path | Place | None = None
    channel: str = MEAN
    set: str | None = None
    split: str | None = None
    phones: Path | Place | None = None
    pitch: Path | Place | None = None
    vector: Path | Place | None = None
    source: str | None = None

    @property
    def key(self) -> str:
        """``speaker/name``: unlike any other in the corpus, and where its caches are, endings aside."""
        return f"{self.speaker}/{self.name}"

    @property
    def text(self) -> str | None:
        """The transcript; ``None`` where there is none that can be read."""
        if self.said is not None or self.transcript is None:
            return self.said
        try:
            return " ".join(Place(self.transcript).read().decode("utf-8-sig").split())
        except (PlaceError, UnicodeDecodeError):
            return None


def checked(utterances: Iterable[Utterance]) -> list[Utterance]:
    """The same, sorted by key.

    Raises:
        CorpusError: for two of one key, and names that a file cannot have.
    """
    by_key: dict[str, Utterance] = {}
    for utterance in utterances:
        parts = [utterance.speaker, *PurePosixPath(utterance.name).parts]
        bad = [part for part in parts if not _is_name(part)]
        if "/" in utterance.speaker or bad or "/".join(parts) != utterance.key:
            raise CorpusError(
                f"{shown(utterance.path)}: '{shown(utterance.speaker)}' and '{shown(utterance.name)}' are to be the "
                f"names of a folder and a file, which have no '..', no leading dot, no ending {' or '.join(RESERVED)} "
                f"and up to {LONGEST_NAME} bytes: rename them"
            )
        other = by_key.setdefault(utterance.key, utterance)
        if other is not utterance:
            raise CorpusError(
                f"{shown(other.path)} and {shown(utterance.path)} are both '{shown(utterance.key)}': keep one of them, "
                f"or give them names of their own in a manifest"
            )
    return [by_key[key] for key in sorted(by_key)]


def speakers_of(utterances: Iterable[Utterance]) -> dict[str, list[Utterance]]:
    """The utterances of each speaker, both sorted."""
    by_speaker: dict[str, list[Utterance]] = {}
    for utterance in sorted(utterances, key=lambda one: one.key):
        by_speaker.setdefault(utterance.speaker, []).append(utterance)
    return dict(sorted(by_speaker.items()))


def sets_of(utterances: Iterable[Utterance]) -> list[list[Utterance]]:
    """The renderings of each set, sorted; what has no set is one by itself."""
    groups: dict[tuple[str, bool], list[Utterance]] = {}
    for one in sorted(utterances, key=lambda one: one.key):
        groups.setdefault((one.key, False) if one.set is None else (one.set, True), []).append(one)
    return [groups[key] for key in sorted(groups)]


def _is_name(part: str) -> bool:
    try:
        size = len(os.fsencode(part))
    except UnicodeEncodeError:
        return False
    return 0 < size <= LONGEST_NAME and "\0" not in part and not part.startswith(".") and not part.endswith(RESERVED)
