"""Fidelity to a reference: PESQ and STOI, for a conversion to the source's own voice."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

from astrape.voice.evaluation.context import Context, Tools
from astrape.voice.evaluation.errors import MetricError
from astrape.voice.evaluation.metric import Quantity, Score
from astrape.voice.evaluation.packages import Package
from astrape.voice.evaluation.recording import Recording, Samples, silent

__all__ = ["PESQ", "STOI"]

RATE = 16000
PIECE_SECONDS = 15.0
"""PESQ is defined for short utterances, 8 to 12 s by the standard, and fails on long ones."""

SHORTEST_SECONDS = 0.5

REFERENCE = frozenset({"reference"})


class PESQ:
    """PESQ in its wide-band form, ITU-T P.862.2. Longer recordings are scored 15 s by 15 s."""

    name = "pesq"
    packages = (Package("pesq", "pesq", "pesq"),)
    quantities = (Quantity("pesq", "PESQ", "MOS", "higher", "wide-band PESQ, 1 to 4.64", REFERENCE, 2),)

    def __init__(self, tools: Tools) -> None:
        del tools

    def score(self, context: Context) -> dict[str, float]:
        from pesq import NoUtterancesError, pesq

        if context.reference is None:
            return {}
        scores = []
        for reference, heard in _pieces(context.reference, context.converted):
            try:
                scores.append(Score(float(pesq(RATE, reference, heard, "wb")), len(heard)))
            except NoUtterancesError:
                continue
        return {"pesq": _mean(scores)}

    def pooled(self, parts: Sequence[object]) -> dict[str, float]:
        return {}


class STOI:
    """Short-time objective intelligibility (Taal et al. 2011), and its extended form (Jensen & Taal 2016)."""

    name = "stoi"
    packages = (Package("pystoi", "pystoi", "pystoi"),)
    quantities = (
        Quantity("stoi", "STOI", "", "higher", "short-time intelligibility, up to 1", REFERENCE),
        Quantity("estoi", "Extended STOI", "", "higher", "the same without assuming independent bands", REFERENCE),
    )

    def __init__(self, tools: Tools) -> None:
        del tools

    def score(self, context: Context) -> dict[str, float]:
        from pystoi import stoi

        if context.reference is None:
            return {}
        scores: dict[str, list[Score]] = {"stoi": [], "estoi": []}
        for reference, heard in _pieces(context.reference, context.converted):
            with warnings.catch_warnings():
                # It warns of too little speech, for which it makes up a number.
                warnings.simplefilter("error", RuntimeWarning)
                for name, found in scores.items():
                    try:
                        value = float(stoi(reference, heard, RATE, extended=name == "estoi"))
                    except RuntimeWarning:
                        continue
                    found.append(Score(value, len(heard)))
        return {name: _mean(found) for name, found in scores.items()}

    def pooled(self, parts: Sequence[object]) -> dict[str, float]:
        return {}


def _pieces(reference: Recording, heard: Recording) -> Iterator[tuple[Samples, Samples]]:
    """Pieces of both that begin at the same time and are of one length; not those without any sound in one of them."""
    both = zip(reference.pieces(RATE, PIECE_SECONDS), heard.pieces(RATE, PIECE_SECONDS), strict=False)
    for a, b in both:
        length = min(len(a), len(b))
        if length >= SHORTEST_SECONDS * RATE and not silent(a[:length]) and not silent(b[:length]):
            yield a[:length], b[:length]


def _mean(scores: list[Score]) -> float:
    if not scores:
        raise MetricError("reference and result have too little speech at the same time")
    return sum(score.value * score.weight for score in scores) / sum(score.weight for score in scores)
