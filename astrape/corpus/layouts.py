"""The utterances of a corpus, from a folder, VCTK's layout or a manifest."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from astrape.audio.atomic import shown
from astrape.audio.downmix import MEAN, checked_channel
from astrape.audio.endings import is_audio, is_hidden
from astrape.audio.places import Place, anywhere, below
from astrape.corpus.errors import CorpusError
from astrape.corpus.manifests import ENDINGS as MANIFESTS
from astrape.corpus.manifests import read_manifest
from astrape.corpus.utterances import Utterance, checked
from astrape.errors import told_as

__all__ = ["MICROPHONES", "VCTK_AUDIO", "corpus_at", "default_corpus", "passed_over", "read_corpus"]

MICROPHONES = ("mic1", "mic2", "both")
"""Choices among recordings by two microphones, as VCTK has them; ``--microphone`` offers the same."""

VCTK_AUDIO = ("wav48_silence_trimmed", "wav48")
"""Folders of VCTK's audio, version 0.92 first: both say the same, and the former without silence around it."""

MICROPHONE = re.compile(r"(?P<name>.+)_(?P<microphone>mic[12])")


def read_corpus(source: str | os.PathLike[str], microphone: str = "mic1", channel: str = MEAN) -> list[Utterance]:
    """The utterances of a corpus, sorted by their keys.

    - **VCTK's layout**: a folder with ``wav48_silence_trimmed`` or ``wav48`` in it, or one of these folders. Speakers
      are the folders in there, transcripts are looked for under ``txt/SPEAKER/NAME.txt``. Of recordings by two
      microphones, ``p225_001_mic1.flac`` and ``p225_001_mic2.flac``, one is taken: ``microphone``, or the other where
      that one is missing.
    - **Any other folder**: each folder in it is a speaker, with all audio below it; audio beside those folders is one
      speaker more, called as the folder itself. A transcript is a ``.txt`` file beside the audio.
    - **A manifest**: ``.tsv``, ``.csv`` or ``.jsonl`` with ``path`` (relative to the manifest), ``speaker`` and, if
      wanted, ``text``, ``name`` and ``channel``; see :mod:`astrape.corpus.manifests`.

    Files and folders whose names begin with a dot are left out.

    Args:
        source: the folder or the manifest; of a store, by URL.
        microphone: ``mic1``, ``mic2`` or ``both``, of recordings by two.
        channel: of recordings with several: their ``mean``, ``left``, ``right``, or the number of one. A manifest's
            column ``channel`` says it for a single one.

    Raises:
        CorpusError: for a source that is missing or holds no audio, two recordings of one name, and names that are none
            for a file.

    Example: ``[u.key for u in read_corpus("VCTK-Corpus-0.92")][:1]`` is ``["p225/p225_001"]``.
    """
    if microphone not in MICROPHONES:
        raise CorpusError(f"microphone must be one of {', '.join(MICROPHONES)}, not '{microphone}'")
    root = anywhere(source)
    if Place(root).exists():
        if root.suffix.lower() not in MANIFESTS:
            raise CorpusError(
                f"{shown(root)}: is a file, and no manifest: give a folder of audio, or a manifest "
                f"({', '.join(MANIFESTS)})"
            )
        found = read_manifest(root)
    elif isinstance(root, Place) or root.is_dir():
        audio = _vctk_audio(root)
        found = list(_folder(root) if audio is None else _vctk(audio, microphone))
    else:
        raise CorpusError(f"{shown(root)}: there is no such folder or manifest: name the corpus with --data")
    if not found:
        raise CorpusError(
            f"{shown(root)}: holds no audio: it takes a folder for each speaker, VCTK's layout "
            f"({VCTK_AUDIO[0]}/SPEAKER/*.flac) or a manifest"
        )
    with told_as(CorpusError):
        for one in found:
            checked_channel(one.channel)
        checked_channel(channel)
    return checked(found if channel == MEAN else (_on(one, channel) for one in found))


def passed_over(source: str | os.PathLike[str]) -> list[Path | Place]:
    """The files below a folder whose endings are not those of audio, sorted; transcripts and hidden files left out."""
    root = anywhere(source)
    names = [] if Place(root).exists() else Place(root).names()
    return [root / name for name in sorted(name for name in names if not is_hidden(name) and not _belongs(name))]


def _belongs(name: str) -> bool:
    return is_audio(name) or name.lower().endswith(".txt")


def _on(utterance: Utterance, channel: str) -> Utterance:
    return utterance if utterance.channel != MEAN else replace(utterance, channel=channel)


def corpus_at(recorded: str | None) -> Path | Place | None:
    """The corpus that a cache says it was made of; ``None`` where none is said, or it is not on this machine any more.

    One in a store is taken to be there.
    """
    if recorded is None:
        return None
    found = anywhere(recorded)
    return found if isinstance(found, Place) or found.exists() else None


def default_corpus() -> Path:
    """The corpus where none is named: the folder ``data``, or the current one where it has VCTK's layout.

    Raises:
        CorpusError: where neither is there.
    """
    data, here = Path("data"), Path()
    if data.is_dir():
        return data
    if _vctk_audio(here.absolute()) is not None:
        return here
    raise CorpusError(
        f"there is no corpus: name a folder of audio, VCTK's folder or a manifest with --data (without it, the folder "
        f"'data' is taken, or {here.absolute().name or 'the current folder'} itself where it has {VCTK_AUDIO[0]} in it)"
    )


def _vctk_audio(root: Path | Place) -> Path | Place | None:
    """VCTK's folder of audio: itself, in it, or in the one folder that an archive unpacks to."""
    if root.name in VCTK_AUDIO:
        return root
    folders = Place(root).folders()
    for inside in (root, *(root / name for name in folders if name.startswith("VCTK"))):
        own = folders if inside is root else Place(inside).folders()
        for name in VCTK_AUDIO:
            if name in own:
                return inside / name
    return None


def _vctk(audio: Path | Place, microphone: str) -> Iterator[Utterance]:
    texts = audio.parent / "txt"
    there = _texts_below(texts)
    taken: dict[tuple[str, str], Utterance] = {}
    for path, parts in _audio_files(audio):
        if len(parts) < 2:
            continue
        speaker, name = parts[0], "/".join(parts[1:])
        match = MICROPHONE.fullmatch(name)
        plain = match["name"] if match else name
        transcript = texts / speaker / f"{plain}.txt"
        text = transcript if there(transcript) else None
        if match is None or microphone == "both":
            yield Utterance(path, speaker, name, transcript=text)
        elif (speaker, plain) not in taken or match["microphone"] == microphone:
            taken[speaker, plain] = Utterance(path, speaker, plain, transcript=text)
    yield from taken.values()


def _folder(root: Path | Place) -> Iterator[Utterance]:
    own = (root.name if isinstance(root, Place) else root.resolve().name) or "speaker"
    there = _texts_below(root)
    for path, parts in _audio_files(root):
        transcript = path.with_suffix(".txt")
        speaker, names = (parts[0], parts[1:]) if len(parts) > 1 else (own, parts)
        yield Utterance(path, speaker, "/".join(names), transcript=transcript if there(transcript) else None)


def _texts_below(folder: Path | Place) -> Callable[[Path | Place], bool]:
    """Whether there is a transcript; of a store, they are listed once, and not asked for one by one."""
    if isinstance(folder, Path):
        return lambda path: Path(path).is_file()
    listed = {name for name in folder.names() if name.endswith(".txt")}
    return lambda path: below(path, folder) in listed


def _audio_files(root: Path | Place) -> Iterator[tuple[Path | Place, tuple[str, ...]]]:
    """Every audio file below a folder, with the parts of its path from there, its ending left out."""
    if isinstance(root, Place):
        for name in sorted(root.names()):
            folders, stem = name.split("/")[:-1], name.rpartition("/")[2].rpartition(".")[0]
            if stem and not is_hidden(name) and is_audio(name):
                yield root / name, (*folders, stem)
        return
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
