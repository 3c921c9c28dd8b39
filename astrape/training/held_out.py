"""Real speakers that no training here hears: a list of conversions to evaluate on, made from Debian's packages."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from astrape.audio.atomic import atomic_path
from astrape.audio.places import Place
from astrape.audio.reader import AudioReader
from astrape.audio.whole import read_mono, write_mono
from astrape.corpus.packages import SPEECH_PACKAGES, unpacked
from astrape.corpus.plan import KOKORO
from astrape.corpus.record import read_sets
from astrape.training.tiny.voices import VOICES, write_corpus

__all__ = ["HELD_OUT", "write_held_out"]

Samples = npt.NDArray[np.float32]
Say = Callable[[str], None]

RATE = 16000
HELD_OUT = tuple(
    voice for voice in VOICES if voice.package in ("asterisk-core-sounds-en-g722", "asterisk-core-sounds-fr-g722")
) + tuple(voice for voice in VOICES if voice.package == "ktuberling-data")
"""CC-BY-SA and GPL: to measure on, and never to train on."""

ENGLISH = "allison"
TARGETS = ("allison", "june", "librivox", "dhd", "potato-de", "potato-lt", "potato-fr")
"""Two recordings or more, of different words: one to embed and others to compare with."""

SOURCES_EACH = 8
REFERENCE_SECONDS = 10.0
LEAST_SECONDS = 5.5
"""A voicebank takes 5 s."""

PAUSE = 0.2

POCKETSPHINX = "usr/share/pocketsphinx/test/data"


@dataclass(frozen=True)
class Line:
    """A recording with its words, where the package has them."""

    speaker: str
    name: str
    words: str | None
    samples: Samples


def write_held_out(work: Path, folder: Path, say: Say, corpus: Path | Place | None = None) -> dict[str, int]:
    """Write recordings of held-out speakers, and tables of conversions that ``astrape evaluate --pairs`` reads.

    ``folder/speech/SPEAKER/NAME.flac`` are the recordings, with words in ``NAME.txt`` where they are known;
    ``folder/targets`` has for each target two recordings of different words, one to embed and one to compare with.
    ``real.csv`` lists each English source with each real target but itself, and ``synthetic.csv``, where there is a
    corpus, with each voice that the corpus holds out.

    Args:
        work: folder for packages.
        folder: to write to; made anew.
        say: told what is going on.
        corpus: a corpus of parallel sets, here or in a store, for the synthetic targets.

    Returns:
        Conversions by table.

    Raises:
        AstrapeError: where a package cannot be had.
    """
    recorded = work / "held-out-recordings"
    write_corpus(work, recorded, say, HELD_OUT)
    speech = folder / "speech"
    shutil.rmtree(folder, ignore_errors=True)
    by_speaker: dict[str, list[Path]] = {}
    for path in sorted(recorded.glob("*/*.flac")):
        kept = speech / path.parent.name / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, kept)
        by_speaker.setdefault(path.parent.name, []).append(kept)
    for line in _pocketsphinx(unpacked(SPEECH_PACKAGES["pocketsphinx-testdata"], work / "packages", work / "unpacked")):
        kept = speech / line.speaker / f"{line.name}.flac"
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_mono(kept, line.samples, RATE)
        if line.words:
            kept.with_suffix(".txt").write_text(line.words + "\n")
        by_speaker.setdefault(line.speaker, []).append(kept)
    sources = [path for name in ("librivox", "cards", "dhd") for path in by_speaker[name] if _seconds(path) >= 1.5]
    sources += by_speaker[ENGLISH][:SOURCES_EACH]
    real = {}
    for name in TARGETS:
        # From the end: the sources are at the beginning.
        real[name] = _target(folder / "targets", name, by_speaker[name][::-1])
    tables = {"real": _pairs(sources, real)}
    if corpus is not None:
        voices = _held_voices(corpus)
        made = {name: _target(folder / "targets", name, paths) for name, paths in voices.items()}
        if made:
            tables["synthetic"] = _pairs(sources, made)
        else:
            say(f"  {corpus}: no held-out voice has 11 s by itself yet: without synthetic targets")
    for name, rows in tables.items():
        with atomic_path(folder / f"{name}.csv") as partial, partial.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("source", "target", "target_audio", "text", "speaker"))
            table.writerows([path.relative_to(folder).as_posix() for path in row[:3]] + list(row[3:]) for row in rows)
        say(f"  {folder / name}.csv: {len(rows)} conversions of {len(sources)} recordings")
    return {name: len(rows) for name, rows in tables.items()}


Row = tuple[Path, Path, Path, str, str]


def _pairs(sources: Sequence[Path], targets: dict[str, tuple[Path, Path]]) -> list[Row]:
    rows = []
    for source in sources:
        words = source.with_suffix(".txt")
        said = words.read_text().strip() if words.is_file() else ""
        for name, (reference, heard) in targets.items():
            if name != source.parent.name:
                rows.append((source, reference, heard, said, source.parent.name))
    return rows


def _target(folder: Path, name: str, paths: Sequence[Path | Place]) -> tuple[Path, Path]:
    """Two files of a speaker: every second recording, and the others, up to 10 s and the last one's rest."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for what, half in ((name, paths[::2]), (f"{name}-heard", paths[1::2])):
        parts: list[Samples] = []
        for path in half:
            if sum(map(len, parts)) < REFERENCE_SECONDS * RATE:
                samples, rate = read_mono(path)
                parts += [_at_rate(samples, rate), np.zeros(round(PAUSE * RATE), np.float32)]
        found.append(folder / f"{what}.flac")
        write_mono(found[-1], np.concatenate(parts), RATE)
    return found[0], found[1]


def _held_voices(corpus: Path | Place) -> dict[str, list[Path | Place]]:
    """Renderings of single voices in held-out sets, by voice, of those that have two or more."""
    found: dict[str, list[Path | Place]] = {}
    for key, info in read_sets(corpus, (KOKORO,)):
        if info["split"] != "train":
            for name, voice in info["voices"].items():
                if len(voice["parts"]) == 1:
                    found.setdefault(name, []).append(corpus / key / f"{name}.flac")
    return {
        name: paths
        for name, paths in sorted(found.items())
        if min(sum(map(_seconds, half)) for half in (paths[::2], paths[1::2])) >= LEAST_SECONDS
    }


def _pocketsphinx(root: Path) -> Iterator[Line]:
    """Three speakers of English: a reader of LibriVox, and two who tested a recogniser."""
    data = root / POCKETSPHINX
    for folder, speaker, table in (
        ("librivox", "librivox", "transcription"),
        ("cards", "cards", "cards.transcription"),
    ):
        words = dict(_transcribed((data / folder / table).read_text()))
        for path in sorted((data / folder).glob("*.wav")):
            samples, rate = read_mono(path)
            name = path.stem.rsplit("-", 1)[-1]
            yield Line(speaker, name, words.get(path.stem), _at_rate(samples, rate))
    for name in ("numbers", "something", "goforward", "tidigits/dhd.2934z"):
        raw = np.fromfile(data / f"{name}.raw", "<i2").astype(np.float32) / np.float32(32768)
        yield Line("dhd", Path(name).name.replace(".", "-"), None, raw)


def _transcribed(text: str) -> Iterator[tuple[str, str]]:
    """``<s> words </s> (name)``, a line each."""
    for line in text.splitlines():
        said, _, name = line.partition("</s>")
        if name.strip():
            yield name.strip().strip("()"), " ".join(said.replace("<s>", "").split())


def _at_rate(samples: Samples, rate: int) -> Samples:
    from scipy.signal import resample_poly

    common = int(np.gcd(rate, RATE))
    return np.asarray(resample_poly(samples, RATE // common, rate // common), np.float32) if rate != RATE else samples


def _seconds(path: Path | Place) -> float:
    with AudioReader(path) as audio:
        return audio.count() / audio.rate
