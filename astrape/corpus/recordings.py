"""Recordings of real people from Debian's packages: sources that no synthesiser gives, without labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from astrape.audio.g722 import G722_BYTES, read_g722
from astrape.audio.reader import AudioReader
from astrape.audio.whole import read_mono
from astrape.corpus.errors import CorpusError
from astrape.corpus.plan import RECORDINGS, Rendering, SetPlan
from astrape.corpus.rendering import PHONE_RATE, PITCH_RATE, RenderedSet, leveled
from astrape.corpus.warping import fundamental

__all__ = ["SPEAKERS", "RecordedSpeaker", "SourceRecording", "find_recordings", "render_recording"]

RATE = 16000
"""Hz, of all of them."""

SHORTEST, LONGEST = 3.0, 15.0
"""Seconds. Prompts of a word or two are joined until they last this long; what is longer than the other is cut."""

PAUSE = 0.15
"""Seconds of silence between prompts that are joined."""

SILENT = ("silence",)
"""Folders of prompts that hold pauses."""

UTTERANCE = re.compile(r'^\(\s*(\S+)\s+"(.*)"\s*\)\s*$')
SPHINX = re.compile(r"^<s>\s*(.*?)\s*</s>\s*\((.*)\)\s*$")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RecordedSpeaker:
    """One person's recordings.

    Attributes:
        name: as manifests have it.
        package: Debian's.
        pattern: of the files in it.
        licence: of the recordings.
        transcripts: pattern of the file that says what is said, if there is one.
        evaluate: for evaluation only: no training hears them.
    """

    name: str
    package: str
    pattern: str
    licence: str
    transcripts: str | None = None
    evaluate: bool = False


SPEAKERS = (
    RecordedSpeaker("nsh", "festvox-ru", "*/wav/*.wav", "BSD-like", "*/etc/txt.done.data"),
    RecordedSpeaker("carlo", "asterisk-core-sounds-it-g722", "*/it_IT_m_Carlo/**/*.g722", "CC-BY-3.0"),
    RecordedSpeaker("ivrvoice", "asterisk-core-sounds-ru-g722", "*/ru_RU_f_IvrvoiceRU/**/*.g722", "CC-BY-3.0"),
    RecordedSpeaker("austen", "pocketsphinx-testdata", "*/librivox/*.wav", "BSD-2", "*/librivox/transcription", True),
    RecordedSpeaker("cards", "pocketsphinx-testdata", "*/cards/*.wav", "BSD-2", "*/cards/cards.transcription", True),
)


@dataclass(frozen=True)
class SourceRecording:
    """One utterance of a speaker: a file, or several short ones that are joined.

    Attributes:
        speaker: who.
        name: of the first file, without its ending.
        paths: the files, in order.
        seconds: about how long.
        text: what is said, where that is known.
    """

    speaker: RecordedSpeaker
    name: str
    paths: tuple[Path, ...]
    seconds: float
    text: str

    @property
    def split(self) -> str:
        return "held" if self.speaker.evaluate else "train"

    @property
    def set_name(self) -> str:
        return f"{self.speaker.name}-{self.name}"


def find_recordings(unpacked: Path, speakers: Iterable[RecordedSpeaker] = SPEAKERS) -> list[SourceRecording]:
    """The utterances of all speakers, in order of their files.

    Args:
        unpacked: the folder with ``PACKAGE-VERSION`` of each.
        speakers: whose.

    Raises:
        CorpusError: for a speaker without recordings.
    """
    found: list[SourceRecording] = []
    for speaker in speakers:
        roots = sorted(unpacked.glob(f"{speaker.package}-[0-9]*"))
        inside = [path for root in roots for path in root.rglob(speaker.pattern.removeprefix("*/"))]
        paths = sorted(path for path in inside if path.parent.name not in SILENT)
        if not paths:
            raise CorpusError(
                f"{unpacked}: '{speaker.package}' holds no {speaker.pattern}; hint: delete its folder and run the "
                f"same command again"
            )
        texts = _transcripts(roots[-1], speaker)
        found.extend(_grouped(speaker, paths, texts))
    return found


def render_recording(recording: SourceRecording) -> RenderedSet:
    """The set of a recording: one voice, its F0 measured, no labels.

    Raises:
        CorpusError: for a recording that is silent, or of another rate.
        AstrapeError: where PyAV or pyworld is absent.
    """
    pause = np.zeros(round(PAUSE * RATE), np.float32)
    pieces: list[Floats] = []
    for path in recording.paths:
        pieces += [pause, _read(path)]
    samples = RATE // PHONE_RATE
    audio = np.concatenate(pieces[1:])[: int(LONGEST * RATE)]
    audio = audio[: len(audio) // samples * samples]
    if not len(audio) or np.abs(audio).max() < 1e-3:
        raise CorpusError("is silent")
    frames = len(audio) // samples
    f0 = fundamental(audio, RATE, frames * PITCH_RATE // PHONE_RATE)
    voiced = f0[f0 > 0]
    register = float(np.exp(np.log(voiced).mean())) if len(voiced) else 0.0
    name = recording.speaker.name
    rendering = Rendering(name, {name: 1.0}, round(register, 3))
    plan = SetPlan(RECORDINGS, 0, recording.text, recording.split, name, 1.0, (rendering,))
    return RenderedSet(plan, None, RATE, frames, None, {name: leveled(audio, f0, samples)})


def _grouped(speaker: RecordedSpeaker, paths: list[Path], texts: dict[str, str]) -> Iterator[SourceRecording]:
    held: list[Path] = []
    seconds = 0.0
    for path in paths:
        held.append(path)
        seconds += _seconds(path)
        if seconds >= SHORTEST:
            yield _recording(speaker, held, seconds, texts)
            held, seconds = [], 0.0
    if held:
        yield _recording(speaker, held, seconds, texts)


def _recording(speaker: RecordedSpeaker, paths: list[Path], seconds: float, texts: dict[str, str]) -> SourceRecording:
    said = " ".join(texts.get(path.stem, "") for path in paths).strip()
    # Prompts in subfolders may be called alike.
    folder = paths[0].parent.name
    name = paths[0].stem if paths[0].suffix != ".g722" else f"{folder}_{paths[0].stem}"
    return SourceRecording(speaker, name, tuple(paths), min(seconds, LONGEST), said)


def _seconds(path: Path) -> float:
    if path.suffix == ".g722":
        return path.stat().st_size / G722_BYTES
    with AudioReader(path) as audio:
        return audio.count() / audio.rate


def _transcripts(root: Path, speaker: RecordedSpeaker) -> dict[str, str]:
    """Transcripts by file name."""
    texts: dict[str, str] = {}
    if speaker.transcripts is None:
        return texts
    for path in root.rglob(speaker.transcripts.removeprefix("*/")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := UTTERANCE.match(line):
                texts[match[1]] = match[2]
            elif match := SPHINX.match(line):
                texts[match[2]] = match[1]
    return texts


def _read(path: Path) -> Floats:
    """Mono at 16 kHz."""
    if path.suffix == ".g722":
        return read_g722(path)
    mono, rate = read_mono(path)
    if rate != RATE:
        raise CorpusError(f"{path}: has {rate} Hz and not {RATE} Hz")
    return mono
