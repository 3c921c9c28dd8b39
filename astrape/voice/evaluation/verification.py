"""Verification of a speaker encoder: its equal error rate over pieces of recordings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from astrape.audio.places import Place, Where
from astrape.voice.errors import VoicebankError
from astrape.voice.evaluation.dvector import DVECTOR, DVector
from astrape.voice.evaluation.packages import absence
from astrape.voice.evaluation.pairs import read_sources
from astrape.voice.evaluation.recording import Recording, Samples, silent
from astrape.voice.evaluation.resemblyzer import RESEMBLYZER, load_resemblyzer
from astrape.voice.evaluation.statistics import RESAMPLES
from astrape.voice.speaker import speaker_encoder

__all__ = ["Embeds", "Verified", "encoder_to_verify", "equal_error_rate", "speaker_pieces", "verify"]

Floats = npt.NDArray[np.float64]

PACKAGES = {"resemblyzer": RESEMBLYZER, "dvector": DVECTOR}

MOST_PIECES = 16
"""Most pieces of a speaker, evenly spread: hours of speech tell no more of who speaks."""


@dataclass(frozen=True)
class Embeds:
    """An encoder to be verified.

    Attributes:
        name: as it was asked for.
        rate: Hz, of what it takes.
        embed: mono samples at that rate to numbers, as many as it likes.
    """

    name: str
    rate: int
    embed: Callable[[Samples], npt.NDArray[Any]]


@dataclass(frozen=True)
class Verified:
    """Measurements of an encoder.

    Attributes:
        encoder: its name.
        equal_error_rate: share of wrong decisions at the threshold where both kinds of error are equally frequent.
        low, high: 95 % of it, by drawing speakers with replacement.
        same, different: mean cosine of two pieces of one speaker, and of two speakers.
        same_trials, different_trials: how many of each.
        speakers, pieces: that were compared.
        seconds_per_second: of one core, for a second of speech.
    """

    encoder: str
    equal_error_rate: float
    low: float
    high: float
    same: float
    different: float
    same_trials: int
    different_trials: int
    speakers: int
    pieces: int
    seconds_per_second: float


def equal_error_rate(same: Floats, different: Floats) -> float:
    """The rate at the threshold where as large a share of ``same`` lies below as of ``different`` at or above.

    Between two thresholds the rates are joined by a straight line.

    Raises:
        VoicebankError: where one of them is empty.

    >>> equal_error_rate(np.array([0.9, 0.8, 0.4]), np.array([0.5, 0.3, 0.2]))
    0.3333333333333333
    """
    if not len(same) or not len(different):
        raise VoicebankError("an equal error rate takes pairs of one speaker and of two: give two speakers or more")
    thresholds = np.unique(np.concatenate((same, different)))
    missed = np.searchsorted(np.sort(same), thresholds, "left") / len(same)
    taken = 1 - np.searchsorted(np.sort(different), thresholds, "left") / len(different)
    missed, taken = np.append(missed, 1.0), np.append(taken, 0.0)
    gap = missed - taken
    after = int(np.argmax(gap >= 0))
    if after == 0:
        return float((missed[0] + taken[0]) / 2)
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(missed[after - 1] + share * (missed[after] - missed[after - 1]))


def speaker_pieces(folder: Where, rate: int, seconds: float) -> dict[str, list[Samples]]:
    """Up to 16 pieces of each speaker of a folder of speakers, of ``seconds`` each, all recordings joined.

    Raises:
        AstrapeError: for what cannot be read.
        VoicebankError: where fewer than two speakers have two pieces.
    """
    by_speaker: dict[str, list[Path | Place]] = {}
    for source in read_sources([folder]):
        by_speaker.setdefault(source.speaker, []).append(source.path)
    found: dict[str, list[Samples]] = {}
    length = round(rate * seconds)
    for speaker, paths in by_speaker.items():
        parts: list[Samples] = []
        for path in paths:
            if sum(map(len, parts)) < 4 * MOST_PIECES * length:
                parts += [piece for piece in Recording(path).pieces(rate, 1.0) if not silent(piece)]
        joined = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        count = len(joined) // length
        if count > 1:
            kept = np.unique(np.linspace(0, count - 1, min(count, MOST_PIECES)).round().astype(int))
            found[speaker] = [joined[index * length : (index + 1) * length] for index in kept]
    if len(found) < 2:
        raise VoicebankError(
            f"{folder}: {len(found)} speakers have two pieces of {seconds:g} s, and telling them apart takes 2: give "
            f"more recordings, or shorter pieces (--seconds)"
        )
    return found


def verify(encoder: Embeds, pieces: Mapping[str, Sequence[Samples]], seed: int = 0) -> Verified:
    """Every piece against every other one, by the cosine of what the encoder makes of them.

    Args:
        encoder: what embeds.
        pieces: of each speaker, at the encoder's rate.
        seed: of the interval.
    """
    begun, heard = time.process_time(), 0
    rows, labels = [], []
    for label, own in enumerate(pieces.values()):
        for piece in own:
            row = np.asarray(encoder.embed(piece), dtype=np.float64)
            rows.append(row / max(float(np.linalg.norm(row)), 1e-12))
            labels.append(label)
            heard += len(piece)
    spent = time.process_time() - begun
    matrix, who = np.stack(rows), np.array(labels)
    cosines = matrix @ matrix.T
    # By pairs of speakers, so that the bootstrap draws speakers.
    table = [[cosines[np.ix_(who == a, who == b)] for b in range(len(pieces))] for a in range(len(pieces))]
    own_cosines = [table[a][a][np.triu_indices(len(table[a][a]), 1)] for a in range(len(pieces))]

    def rate(drawn: Sequence[int]) -> float | None:
        same = [own_cosines[a] for a in drawn]
        different = [table[a][b].ravel() for i, a in enumerate(drawn) for b in drawn[:i] if a != b]
        return equal_error_rate(np.concatenate(same), np.concatenate(different)) if different else None

    everyone = range(len(pieces))
    generator = np.random.default_rng(seed)
    draws = [rate(generator.integers(len(pieces), size=len(pieces)).tolist()) for _ in range(RESAMPLES // 10)]
    low, high = np.quantile([one for one in draws if one is not None], [0.025, 0.975])
    same = np.concatenate(own_cosines)
    different = np.concatenate([table[a][b].ravel() for a in everyone for b in range(a)])
    return Verified(
        encoder.name,
        equal_error_rate(same, different),
        float(low),
        float(high),
        float(same.mean()),
        float(different.mean()),
        len(same),
        len(different),
        len(pieces),
        len(rows),
        spent * encoder.rate / heard,
    )


def encoder_to_verify(name: str) -> Embeds:
    """An encoder by name: as :func:`~astrape.voice.speaker.speaker_encoder` knows them, ``resemblyzer`` with all of its
    256 numbers, or ``dvector``, which evaluations measure with.

    Raises:
        VoicebankError: for an unknown one, or one whose package is not installed.
    """
    package = PACKAGES.get(name)
    if package is not None and (reason := absence([package])):
        raise VoicebankError(f"encoder '{name}': {reason}")
    if name == "resemblyzer":
        return Embeds(name, 16000, _resemblyzer())
    if name == "dvector":
        dvector = DVector()
        return Embeds(name, 16000, lambda samples: dvector.embed([samples]))
    encoder = speaker_encoder(name)
    return Embeds(name, encoder.sample_rate, lambda samples: encoder.embed(torch.from_numpy(samples.copy())).numpy())


def _resemblyzer() -> Callable[[Samples], npt.NDArray[Any]]:
    network, prepare = load_resemblyzer()

    def embed(samples: Samples) -> npt.NDArray[Any]:
        prepared = prepare(samples.copy())
        return np.asarray(network.embed_utterance(prepared if len(prepared) else samples))

    return embed
