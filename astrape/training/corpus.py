"""A corpus of recordings: who speaks in which file, from a folder, VCTK's layout or a manifest."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from astrape.audio.atomic import shown
from astrape.audio.downmix import MEAN, checked_channel
from astrape.audio.endings import is_audio
from astrape.errors import told_as
from astrape.training.errors import CacheError
from astrape.training.names import MICROPHONES

__all__ = [
    "MICROPHONES",
    "Split",
    "Utterance",
    "default_corpus",
    "read_corpus",
    "shown",
    "speakers_of",
    "split_by_speaker",
    "split_corpus",
]

VCTK_AUDIO = ("wav48_silence_trimmed", "wav48")
"""Where VCTK keeps its audio, version 0.92 first: both say the same, and the former without silence around it."""

MICROPHONE = re.compile(r"(?P<name>.+)_(?P<microphone>mic[12])")

RESERVED = (".codes", ".voiced")
"""Endings of what a cache keeps beside an utterance's own file."""

SPLITS = TRAIN, HELD, EVALUATE = ("train", "held", "evaluate")
"""What a manifest may say of a recording: to be trained on, held out of that to validate on, or kept for evaluation."""

LONGEST_NAME = 200
"""Bytes of each part of a name; file systems end at 255, and a cache adds endings of its own."""


@dataclass(frozen=True, order=True)
class Utterance:
    """One recording of one speaker.

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
    """

    path: Path
    speaker: str
    name: str
    said: str | None = None
    transcript: Path | None = None
    channel: str = MEAN
    set: str | None = None
    split: str | None = None
    phones: Path | None = None
    pitch: Path | None = None
    vector: Path | None = None

    @property
    def key(self) -> str:
        """``speaker/name``: unlike any other in the corpus, and where its caches are, endings aside."""
        return f"{self.speaker}/{self.name}"

    @property
    def text(self) -> str | None:
        """What is said; ``None`` where nobody wrote it down, or what was written cannot be read."""
        if self.said is not None or self.transcript is None:
            return self.said
        try:
            return " ".join(self.transcript.read_text(encoding="utf-8-sig").split())
        except (OSError, UnicodeDecodeError):
            return None


@dataclass(frozen=True)
class Split:
    """Utterances to train on, and those of speakers that training never hears."""

    train: list[Utterance]
    unseen: list[Utterance]


def read_corpus(source: str | os.PathLike[str], microphone: str = "mic1", channel: str = MEAN) -> list[Utterance]:
    """The utterances of a corpus, sorted by their keys.

    - **VCTK's layout**: a folder with ``wav48_silence_trimmed`` or ``wav48`` in it, or one of these folders. Speakers
      are the folders in there, transcripts are looked for under ``txt/SPEAKER/NAME.txt``. Of recordings by two
      microphones, ``p225_001_mic1.flac`` and ``p225_001_mic2.flac``, one is taken: ``microphone``, or the other where
      that one is missing.
    - **Any other folder**: each folder in it is a speaker, with all audio below it; audio beside those folders is one
      speaker more, called as the folder itself. A transcript is a ``.txt`` file beside the audio.
    - **A manifest**: ``.tsv``, ``.csv`` or ``.jsonl`` with ``path`` (relative to the manifest), ``speaker`` and, if
      wanted, ``text``, ``name`` and ``channel``; see :mod:`astrape.training.manifest`.

    Files and folders whose names begin with a dot are left out.

    Args:
        source: the folder or the manifest.
        microphone: ``mic1``, ``mic2`` or ``both``, of recordings by two.
        channel: of recordings with several: their ``mean``, ``left``, ``right``, or the number of one. A manifest's
            column ``channel`` says it for a single one.

    Raises:
        CacheError: for a source that is missing or holds no audio, two recordings of one name, and names that are none
            for a file.

    Example: ``[u.key for u in read_corpus("VCTK-Corpus-0.92")][:1]`` is ``["p225/p225_001"]``.
    """
    from astrape.training.manifest import ENDINGS as MANIFESTS
    from astrape.training.manifest import read_manifest

    if microphone not in MICROPHONES:
        raise CacheError(f"microphone must be one of {', '.join(MICROPHONES)}, not '{microphone}'")
    root = Path(source)
    if root.is_file():
        if root.suffix.lower() not in MANIFESTS:
            raise CacheError(
                f"{shown(root)}: is a file, and no manifest: give a folder of audio, or a manifest "
                f"({', '.join(MANIFESTS)})"
            )
        found = read_manifest(root)
    elif root.is_dir():
        audio = _vctk_audio(root)
        found = list(_folder(root) if audio is None else _vctk(audio, microphone))
    else:
        raise CacheError(f"{shown(root)}: there is no such folder or manifest: name the corpus with --data")
    if not found:
        raise CacheError(
            f"{shown(root)}: holds no audio: it takes a folder for each speaker, VCTK's layout "
            f"({VCTK_AUDIO[0]}/SPEAKER/*.flac) or a manifest"
        )
    with told_as(CacheError):
        for one in found:
            checked_channel(one.channel)
        checked_channel(channel)
    return checked(found if channel == MEAN else (_on(one, channel) for one in found))


def passed_over(source: str | os.PathLike[str]) -> list[Path]:
    """The files below a folder that are no audio by their endings, sorted; transcripts and hidden files left out."""
    found: list[Path] = []
    root = Path(source)
    for folder, inside, files in os.walk(root) if root.is_dir() else ():
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        found += (Path(folder) / name for name in sorted(files) if not name.startswith(".") and not _belongs(name))
    return found


def _belongs(name: str) -> bool:
    return is_audio(name) or name.lower().endswith(".txt")


def _on(utterance: Utterance, channel: str) -> Utterance:
    return utterance if utterance.channel != MEAN else replace(utterance, channel=channel)


def default_corpus() -> Path:
    """Where the corpus is when nobody says: the folder ``data``, or the current one where it has VCTK's layout.

    Raises:
        CacheError: where neither is there.
    """
    data, here = Path("data"), Path()
    if data.is_dir():
        return data
    if _vctk_audio(here.absolute()) is not None:
        return here
    raise CacheError(
        f"there is no corpus: name a folder of audio, VCTK's folder or a manifest with --data (without it, the folder "
        f"'data' is taken, or {here.absolute().name or 'the current folder'} itself where it has {VCTK_AUDIO[0]} in it)"
    )


def checked(utterances: Iterable[Utterance]) -> list[Utterance]:
    """The same, sorted by key.

    Raises:
        CacheError: for two of one key, and names that are none for a file.
    """
    by_key: dict[str, Utterance] = {}
    for utterance in utterances:
        parts = [utterance.speaker, *PurePosixPath(utterance.name).parts]
        bad = [part for part in parts if not _is_name(part)]
        if "/" in utterance.speaker or bad or "/".join(parts) != utterance.key:
            raise CacheError(
                f"{shown(utterance.path)}: '{shown(utterance.speaker)}' and '{shown(utterance.name)}' are to be the "
                f"names of a folder and a file, which have no '..', no leading dot, no ending {' or '.join(RESERVED)} "
                f"and up to {LONGEST_NAME} bytes: call them otherwise"
            )
        other = by_key.setdefault(utterance.key, utterance)
        if other is not utterance:
            raise CacheError(
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


def split_by_speaker(utterances: Sequence[Utterance], unseen: float = 0.1, seed: int = 0) -> Split:
    """Set speakers aside whom training never hears.

    Speakers are ordered by a hash of their name and the seed, and the first ones set aside: on every machine the same
    ones, and another corpus with some of the same speakers treats most of these alike.

    Args:
        utterances: of two speakers or more.
        unseen: share of the speakers, over 0 and below 1; at least one is set aside and at least one is left.
        seed: for another choice.

    Raises:
        CacheError: for a single speaker, and a share out of range.

    Example: of VCTK's 110 speakers, 11 are unseen by default.
    """
    if not 0 < unseen < 1:
        raise CacheError(f"the share of unseen speakers must be over 0 and below 1, not {unseen:g}")
    names = list(speakers_of(utterances))
    if len(names) < 2:
        found = f"'{shown(names[0])}' alone" if names else "none"
        raise CacheError(
            f"a split by speaker takes two speakers or more, and there is {found}: add recordings of others, or say "
            f"who speaks with a manifest"
        )
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogateescape")).digest())
    aside = set(order[: min(len(names) - 1, max(1, round(unseen * len(names))))])
    ordered = sorted(utterances, key=lambda one: one.key)
    return Split(
        train=[one for one in ordered if one.speaker not in aside],
        unseen=[one for one in ordered if one.speaker in aside],
    )


def split_corpus(utterances: Sequence[Utterance], unseen: float = 0.1, seed: int = 0) -> Split:
    """What is trained on and what is held out: as the manifest says where it does, by speaker where it does not.

    What is kept for evaluation is in neither.

    Raises:
        CacheError: for a manifest that leaves nothing to train on, or holds nothing out, and as
            :func:`split_by_speaker`.
    """
    if all(one.split is None for one in utterances):
        return split_by_speaker(utterances, unseen, seed)
    ordered = sorted(utterances, key=lambda one: one.key)
    train = [one for one in ordered if one.split not in (HELD, EVALUATE)]
    split = Split(train, [one for one in ordered if one.split == HELD])
    if not split.train or not split.unseen:
        raise CacheError(
            f"the manifest has {len(split.train)} recordings to train on and {len(split.unseen)} with split 'held': "
            f"hold some speakers out, and leave some"
        )
    return split


def _is_name(part: str) -> bool:
    try:
        size = len(os.fsencode(part))
    except UnicodeEncodeError:
        return False
    return 0 < size <= LONGEST_NAME and "\0" not in part and not part.startswith(".") and not part.endswith(RESERVED)


def _vctk_audio(root: Path) -> Path | None:
    """VCTK's folder of audio: itself, in it, or in the one folder that an archive unpacks to."""
    if root.name in VCTK_AUDIO:
        return root
    for inside in (root, *sorted(path for path in root.iterdir() if path.is_dir() and path.name.startswith("VCTK"))):
        for name in VCTK_AUDIO:
            if (inside / name).is_dir():
                return inside / name
    return None


def _vctk(audio: Path, microphone: str) -> Iterator[Utterance]:
    texts = audio.parent / "txt"
    taken: dict[tuple[str, str], Utterance] = {}
    for path, parts in _audio_files(audio):
        if len(parts) < 2:
            continue
        speaker, name = parts[0], "/".join(parts[1:])
        match = MICROPHONE.fullmatch(name)
        plain = match["name"] if match else name
        transcript = texts / speaker / f"{plain}.txt"
        text = transcript if transcript.is_file() else None
        if match is None or microphone == "both":
            yield Utterance(path, speaker, name, transcript=text)
        elif (speaker, plain) not in taken or match["microphone"] == microphone:
            taken[speaker, plain] = Utterance(path, speaker, plain, transcript=text)
    yield from taken.values()


def _folder(root: Path) -> Iterator[Utterance]:
    own = root.resolve().name or "speaker"
    for path, parts in _audio_files(root):
        transcript = path.with_suffix(".txt")
        speaker, names = (parts[0], parts[1:]) if len(parts) > 1 else (own, parts)
        yield Utterance(path, speaker, "/".join(names), transcript=transcript if transcript.is_file() else None)


def _audio_files(root: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Every audio file below a folder, with the parts of its path from there, its ending left out."""
    seen: set[str] = set()
    for folder, inside, files in os.walk(root, followlinks=True):
        # A link may lead back to a folder that was walked already.
        real = os.path.realpath(folder)
        if real in seen:
            inside.clear()
            continue
        seen.add(real)
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in sorted(files):
            stem = name.rpartition(".")[0]
            if stem and not name.startswith(".") and is_audio(name):
                path = Path(folder) / name
                yield path, (*path.parent.relative_to(root).parts, stem)
