"""Intelligibility: what a recogniser of speech understands of the result."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from astrape.voice.evaluation.context import Context, Tools
from astrape.voice.evaluation.errors import MetricError
from astrape.voice.evaluation.metric import Quantity, Score
from astrape.voice.evaluation.packages import Package
from astrape.voice.evaluation.recording import Recording, Samples, silent
from astrape.voice.evaluation.text import check_english, normalised

__all__ = ["Intelligibility", "cut_at_pauses", "error_rates"]

RATE = 16000
LONGEST, SHORTEST = 20.0, 12.0
"""Seconds that the recogniser gets at a time. Its time grows with the square of them."""
PAUSE = 0.3
FEWEST_SAMPLES = 1600
"""Below a tenth of a second, its first layers have less than one frame."""

# It has a detector of speech of its own, whose state passes from file to file, so that what is heard in one would
# depend on the one before: with a threshold of 0 it takes everything for speech.
OPTIONS = {"vad_threshold": 0}

REFRESHED_SECONDS = 1200.0
"""Seconds of audio after which the recogniser is loaded anew: until then it keeps the samples, 64 kB a second."""

TRANSCRIPT = frozenset({"transcript"})


class Intelligibility:
    """Word and character error rates by Moonshine (tiny, English), whose weights are in its wheel.

    An error rate is the number of substitutions, deletions and insertions that make one text of the other over the
    length of the reference (Levenshtein), both texts normalised. The mean over files is that of all words together.
    """

    name = "intelligibility"
    packages = (
        Package("moonshine-voice", "moonshine_voice", "moonshine-voice==0.0.49"),
        Package("jiwer", "jiwer", "jiwer"),
    )
    quantities = (
        Quantity("wer", "Word error rate", "%", "lower", "words wrong, against the transcript", TRANSCRIPT, 2),
        Quantity("cer", "Character error rate", "%", "lower", "characters wrong, as above", TRANSCRIPT, 2),
        Quantity(
            "wer_source",
            "Word error rate to source",
            "%",
            "lower",
            "words wrong, against what the recogniser understands of the source",
            digits=2,
        ),
        Quantity(
            "cer_source",
            "Character error rate to source",
            "%",
            "lower",
            "characters wrong, against what the recogniser understands of the source",
            digits=2,
        ),
        Quantity(
            "source_wer",
            "Word error rate of the source",
            "%",
            None,
            "words wrong in the source itself, against the transcript: what the recogniser alone gets wrong",
            TRANSCRIPT,
            2,
        ),
        Quantity(
            "source_cer",
            "Character error rate of the source",
            "%",
            None,
            "characters wrong in the source itself, against the transcript",
            TRANSCRIPT,
            2,
        ),
    )

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self._recogniser: Any = None
        self._taken = 0.0

    def score(self, context: Context) -> dict[str, Score]:
        if self.tools.language.split("-")[0].lower() != "en":
            raise MetricError(f"the sources are '{self.tools.language}', and the recogniser knows English only")
        if context.transcript is not None:
            check_english(context.transcript)
        heard = self.tools.remember("recognised", context.converted, self.recognised)
        before = self.tools.remember("recognised", context.source, self.recognised)
        context.notes |= {"heard": heard, "heard_in_source": before}
        scores: dict[str, Score] = {}
        if context.transcript is not None:
            scores |= _named("wer", "cer", error_rates(context.transcript, heard, "the transcript"))
            scores |= _named("source_wer", "source_cer", error_rates(context.transcript, before, "the transcript"))
        if normalised(before):
            scores |= _named("wer_source", "cer_source", error_rates(before, heard, "the source"))
        elif not scores:
            raise MetricError("the recogniser understands no word of the source")
        return scores

    def pooled(self, parts: Sequence[object]) -> dict[str, float]:
        return {}

    def recognised(self, recording: Recording) -> str:
        """The words that the recogniser understands; none for silence."""
        lines: list[str] = []
        for piece in cut_at_pauses(recording.pieces(RATE, LONGEST - SHORTEST)):
            if len(piece) < FEWEST_SAMPLES or silent(piece):
                continue
            found = self._refreshed(len(piece) / RATE).transcribe_without_streaming(piece.tolist(), RATE)
            lines += [line.text.strip() for line in found.lines]
            _trim()
        return " ".join(line for line in lines if line)

    def _refreshed(self, seconds: float) -> Any:
        """The recogniser, ready for so much more audio."""
        if self._recogniser is not None and self._taken + seconds > REFRESHED_SECONDS:
            self._recogniser.close()
            self._recogniser = None
        if self._recogniser is None:
            from moonshine_voice import ModelArch, Transcriber, get_model_path

            self._recogniser = Transcriber(os.fspath(get_model_path("tiny-en")), ModelArch.TINY, options=OPTIONS)
            self._taken = 0.0
        self._taken += seconds
        return self._recogniser


def cut_at_pauses(pieces: Iterator[Samples], rate: int = RATE) -> Iterator[Samples]:
    """The same sound in pieces of at most 20 s, each cut after 12 s or more where it is quietest.

    Args:
        pieces: of at most 8 s each.
        rate: Hz.
    """
    held = np.zeros(0, np.float32)
    window = max(1, round(PAUSE * rate))
    for piece in pieces:
        held = np.concatenate((held, piece))
        while len(held) >= LONGEST * rate:
            first = round(SHORTEST * rate)
            power = np.square(held[first : round(LONGEST * rate)], dtype=np.float64)
            sums = np.convolve(power, np.ones(window), "valid")
            cut = first + int(sums.argmin()) + window // 2
            yield held[:cut]
            held = held[cut:]
    if len(held):
        yield held


def error_rates(reference: str, heard: str, whose: str = "the reference") -> tuple[Score, Score]:
    """Word and character error rate in percent, each weighted by the reference's length.

    "one two three" heard as "one too" is a substitution and a deletion in 3 words: 66.67 %.

    Raises:
        MetricError: for a reference without words.
    """
    import jiwer

    expected, found = normalised(reference), normalised(heard)
    if not expected:
        raise MetricError(f"{whose} has no words")
    words = jiwer.process_words(expected, found)
    characters = jiwer.process_characters(expected, found)
    return (
        Score(100 * words.wer, words.hits + words.substitutions + words.deletions),
        Score(100 * characters.cer, characters.hits + characters.substitutions + characters.deletions),
    )


def _trim() -> None:
    """Give freed memory back to the system where the C library can.

    The recogniser's buffers are of another size for each piece, and glibc keeps what lies between those that stay: over
    ten minutes of speech, half a gigabyte.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _named(word: str, character: str, rates: tuple[Score, Score]) -> dict[str, Score]:
    return {word: rates[0], character: rates[1]}
