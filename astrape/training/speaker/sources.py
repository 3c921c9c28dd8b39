"""Speech that the speaker encoder learns from: rendered voices, and recordings whose licences allow it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from astrape.audio.places import Place
from astrape.corpus.items import FOLDERS
from astrape.corpus.plan import KOKORO
from astrape.corpus.record import read_sets
from astrape.training.errors import TrainingError
from astrape.training.tiny.voices import VOICES, Voice, write_corpus

__all__ = ["LICENSED", "Speech", "recorded", "rendered", "spoken"]

Say = Callable[[str], None]

LICENSED: tuple[Voice, ...] = tuple(
    voice
    for voice in VOICES
    if voice.package in ("festvox-ru", "asterisk-core-sounds-it-g722", "asterisk-core-sounds-ru-g722")
)
"""Recordings that shipped weights may learn from: BSD-like and CC-BY. Of the others, this encoder hears nothing before
it is measured on them."""

FLITE = ("awb", "kal16", "rms", "slt")
PICO = ("en-GB", "de-DE", "es-ES", "fr-FR", "it-IT")
"""Synthesisers with free licences (BSD-like, Apache-2.0)."""

LINES = {
    "flite": ("flite", "-voice", "{voice}", "-t", "{text}", "-o", "{out}"),
    "pico": ("pico2wave", "-l", "{voice}", "-w", "{out}", "{text}"),
}

VECTOR = ".spk.npy"
"""The ending of a rendering's vector, beside it."""

SENTENCES = 40
"""Sentences of each synthesiser's voice, which sounds the same in all of them."""


@dataclass(frozen=True)
class Speech:
    """A recording of one speaker.

    Attributes:
        path: the audio file.
        speaker: unlike any other.
        held: kept from training.
        vector: a file with the teacher's vector, where it has been computed.
    """

    path: Path | Place
    speaker: str
    held: bool = False
    vector: Path | Place | None = None


def rendered(corpus: Path | Place) -> Iterator[Speech]:
    """Every rendering of a corpus of parallel sets, of this machine or of a store; those of held-out sets are held."""
    top = FOLDERS[KOKORO]
    vectors = {f"{top}/{name}" for name in Place(corpus / top).names() if name.endswith(VECTOR)}
    for key, info in read_sets(corpus, (KOKORO,)):
        for name in sorted(f"{voice}.flac" for voice in info["voices"]):
            path = corpus / key / name
            vector = path.with_suffix(VECTOR)
            there = f"{key}/{vector.name}" in vectors
            yield Speech(path, f"kokoro-{path.stem}", info["split"] != "train", vector if there else None)


def recorded(work: Path, say: Say) -> Iterator[Speech]:
    """Recordings from Debian's packages, fetched below ``work`` unless they are there."""
    folder = work / "recorded"
    write_corpus(work, folder, say, LICENSED)
    for path in sorted(folder.glob("*/*.flac")):
        yield Speech(path, path.parent.name)


def spoken(corpus: Path | Place, work: Path, say: Say) -> Iterator[Speech]:
    """Sentences of the corpus spoken by flite and pico, where those are installed."""
    texts = [info["text"] for _, info in islice(read_sets(corpus, (KOKORO,)), SENTENCES)]
    tools = {"flite": (FLITE, "flite"), "pico": (PICO, "libttspico-utils")}
    for tool, (voices, package) in tools.items():
        if shutil.which(LINES[tool][0]) is None:
            say(f"  {LINES[tool][0]} is not installed, and its voices are left out: apt-get install {package}")
            continue
        for voice in voices:
            yield from _spoken(texts, work / "spoken" / f"{tool}-{voice}", tool, voice)


def _spoken(texts: Sequence[str], folder: Path, tool: str, voice: str) -> Iterator[Speech]:
    folder.mkdir(parents=True, exist_ok=True)
    for index, text in enumerate(texts):
        out = folder / f"{index:04}.wav"
        if not out.is_file():
            partial = out.with_name(f"partial-{out.name}")
            line = [part.format(voice=voice, text=text, out=partial) for part in LINES[tool]]
            done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
            if done.returncode or not partial.is_file():
                raise TrainingError(f"{line[0]} speaks nothing: {done.stderr.strip()[-200:] or 'it gives no reason'}")
            partial.rename(out)
        yield Speech(out, folder.name)
