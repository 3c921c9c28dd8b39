"""The measured part of the speaker encoder: cosine coefficients of the long-term spectrum, scaled by a corpus."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import dct

from astrape.audio.places import Place
from astrape.errors import AstrapeError
from astrape.graph.graph import Graph
from astrape.graph.subgraph import subgraph
from astrape.training.speaker.features import played

__all__ = ["fit_tone", "tone_weights"]

MEANS, DEVIATIONS = 24, 8
"""Coefficients of the mean spectrum, from the second on (the first is the level), and of its deviation."""

SPREAD = 0.1
"""Standard deviation of each number over the corpus: that of one of the numbers beside it, so that neither part of the
embedding outweighs the other in a cosine."""

RECORDINGS = 400
"""Read at most: their means move by a tenth of ``SPREAD`` from one four hundred to another."""


def tone_weights(statistics: npt.NDArray[np.float64]) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights ``(32, 2 * bins)`` and bias ``(32,)`` of ``tone``, of means and deviations ``(recordings, 2 * bins)``.

    Coefficients are those of the orthonormal cosine transform (type II), less their mean over the recordings and
    divided by their spread.

    Raises:
        AstrapeError: for fewer than two recordings, which have no spread.
    """
    if len(statistics) < 2:
        raise AstrapeError(f"{len(statistics)} recordings to measure the tone of voices on, and it takes 2 or more")
    bins = statistics.shape[1] // 2
    cosines = dct(np.eye(bins), type=2, norm="ortho", axis=0)
    matrix = np.zeros((MEANS + DEVIATIONS, 2 * bins))
    matrix[:MEANS, :bins] = cosines[1 : MEANS + 1]
    matrix[MEANS:, bins:] = cosines[:DEVIATIONS]
    found = statistics @ matrix.T
    # A coefficient that never moves says nothing, and is not blown up.
    scale = SPREAD / np.maximum(found.std(axis=0), 1e-3)
    return (
        torch.from_numpy((matrix * scale[:, None]).astype(np.float32)),
        torch.from_numpy((-found.mean(axis=0) * scale).astype(np.float32)),
    )


def fit_tone(graph: Graph, paths: Iterable[Path | Place]) -> int:
    """Set the weights of ``tone`` in ``astrape-speaker``, loaded for training; returns how many recordings were read.

    Raises:
        AstrapeError: for fewer than two recordings.
    """
    front = subgraph(graph, ["average"], ["down"])
    found = []
    for path in islice(paths, RECORDINGS):
        heard = torch.from_numpy(played(path)).reshape(1, 1, -1)
        with torch.no_grad():
            found.append(front(heard)[0, :, -1].double().numpy())
    weight, bias = tone_weights(np.array(found))
    parameters = dict(graph.nodes["tone"].block.named_parameters())
    with torch.no_grad():
        parameters["weight"].copy_(weight)
        parameters["bias"].copy_(bias)
    return len(found)
