"""Speaker similarity: conversion must approach the target and leave the source."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.voice.evaluation.context import Context, Tools
from astrape.voice.evaluation.errors import MetricError
from astrape.voice.evaluation.metric import Quantity
from astrape.voice.evaluation.packages import Package
from astrape.voice.evaluation.recording import Recording, silent

__all__ = ["Similarity"]

RATE = 16000
PIECE_SECONDS = 30.0
LEAST_SPEECH = 0.5
"""Seconds; the encoder's window is 1.6 s, and padding counts from there down."""

TARGET = frozenset({"target_audio"})


class Similarity:
    """Cosines between speaker embeddings by Resemblyzer (GE2E; Wan et al., arXiv:1710.10467).

    Its embeddings have no negative element, so cosines lie between 0 and 1; two recordings of one speaker have about
    0.8 to 0.9, of two speakers 0.4 to 0.7. Pauses are cut out, and a recording's embedding is the mean over windows of
    1.6 s.
    """

    name = "similarity"
    packages = (Package("resemblyzer", "resemblyzer", 'resemblyzer "setuptools<81"'),)
    quantities = (
        Quantity("similarity_target", "Similarity to target", "", "higher", "cosine to the target's recording", TARGET),
        Quantity("similarity_source", "Similarity to source", "", "lower", "cosine to the source"),
        Quantity(
            "similarity_before",
            "Similarity of source to target",
            "",
            None,
            "cosine of the source to the target's recording: what conversion starts from",
            TARGET,
        ),
    )

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    def score(self, context: Context) -> dict[str, float]:
        converted = self.embedding(context.converted)
        source = self.tools.remember("embedding", context.source, self.embedding)
        scores = {"similarity_source": float(converted @ source)}
        if context.target_audio is not None:
            target = self.tools.remember("embedding", context.target_audio, self.embedding)
            scores |= {"similarity_target": float(converted @ target), "similarity_before": float(source @ target)}
        return scores

    def pooled(self) -> dict[str, float]:
        return {}

    def embedding(self, recording: Recording) -> npt.NDArray[np.float64]:
        """256 numbers, of length 1.

        Raises:
            MetricError: for a recording with less than half a second of speech.
        """
        from resemblyzer import preprocess_wav

        total = np.zeros(256)
        speech = 0
        for piece in recording.pieces(RATE, PIECE_SECONDS):
            if silent(piece):
                continue
            heard = preprocess_wav(piece.copy())
            speech += len(heard)
            if len(heard):
                _, partials, _ = self._encoder.embed_utterance(heard, return_partials=True)
                total += partials.sum(axis=0, dtype=np.float64)
        if speech < LEAST_SPEECH * RATE:
            raise MetricError(
                f"{recording.path.name}: {speech / RATE:.2f} s of speech found, and an embedding takes {LEAST_SPEECH:g}"
            )
        length = np.linalg.norm(total)
        return np.asarray(total / length)

    @cached_property
    def _encoder(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from resemblyzer import VoiceEncoder
        return VoiceEncoder("cpu", verbose=False)
