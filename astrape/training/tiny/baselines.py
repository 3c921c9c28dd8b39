"""Baselines for an encoder and a decoder: the best answers that take no learning over time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from astrape.corpus.utterances import Utterance
from astrape.training.caches import Cache
from astrape.training.learner import Batch, valid_frames
from astrape.training.objectives import LogMel

__all__ = ["FrontEndAlone", "MeanSpectrum"]

RIDGE = 1e-6
"""Added to the diagonal of the normal equations, as a share of its mean."""


class FrontEndAlone:
    """Content by least squares from the front end's features of the same 40 ms: no temporal context, nothing quantized.

    The strongest linear answer there is to a single content frame: all of its feature frames side by side, with a
    constant, mapped to the teacher's content over all training utterances.

    Args:
        features, content: caches of the corpus.
        utterances: to fit it on.
    """

    def __init__(self, features: Cache, content: Cache, utterances: Iterable[Utterance]) -> None:
        self.ratio = int(features.rate / content.rate)
        size = self.ratio * features.channels + 1
        squares = torch.zeros(size, size, dtype=torch.float64)
        products = torch.zeros(size, content.channels, dtype=torch.float64)
        for utterance in utterances:
            given, wanted = features.key_of(utterance), content.key_of(utterance)
            if not (features.has(given) and content.has(wanted)):
                continue
            x = self._rows(torch.from_numpy(np.array(features.stored(given)["features"].map())))
            y = torch.from_numpy(np.array(content.stored(wanted)["content"].map())).double()
            frames = min(x.shape[1], y.shape[1])
            x, y = x[:, :frames], y[:, :frames]
            squares += x @ x.T
            products += x @ y.T
        ridge = RIDGE * squares.diagonal().mean() * torch.eye(len(squares), dtype=torch.float64)
        self.weight = torch.linalg.solve(squares + ridge, products).T

    def cosine(self, batches: Iterable[Batch]) -> float:
        """Mean cosine to the teacher over all valid frames of validation windows."""
        total = count = 0.0
        for batch in batches:
            for features, content, frames in zip(batch["features"], batch["content"], batch["frames"], strict=True):
                there = int(frames)
                said = (self.weight @ self._rows(features))[:, :there].float()
                total += float(functional.cosine_similarity(said, content[:, :there], dim=0).sum())
                count += there
        return total / max(count, 1.0)

    def _rows(self, features: Tensor) -> Tensor:
        """``(channels, frames)`` to ``(channels * ratio + 1, content frames)``, float64."""
        frames = features.shape[1] // self.ratio
        blocks = features[:, : frames * self.ratio].double().unfold(1, self.ratio, self.ratio)
        rows = rearrange(blocks, "channels frames ratio -> (channels ratio) frames")
        return torch.cat([rows, torch.ones(1, frames, dtype=torch.float64)])


class MeanSpectrum:
    """The mean log mel spectrum of the training's windows, said of every frame.

    Args:
        mel: how spectra are measured.
        batches: of windows with audio, from the training's speakers.
    """

    def __init__(self, mel: LogMel, batches: Iterable[Batch]) -> None:
        self.mel = mel
        total, count = torch.zeros(1), torch.zeros(1)
        for batch in batches:
            bands, weight = self._bands(batch)
            total = total + (bands * weight).sum(dim=(0, 2))
            count = count + weight.sum()
        self.mean = (total / count.clamp(min=1))[:, None]

    def distance(self, batches: Iterable[Batch]) -> float:
        """Mean difference from validation windows, nats."""
        total = count = 0.0
        for batch in batches:
            bands, weight = self._bands(batch)
            total += float(((bands - self.mean).abs().mean(dim=1, keepdim=True) * weight).sum())
            count += float(weight.sum())
        return total / max(count, 1.0)

    @torch.no_grad()
    def _bands(self, batch: Batch) -> tuple[Tensor, Tensor]:
        wave = batch["audio"]
        there = torch.arange(wave.shape[-1]) < valid_frames(batch, self.mel.source.rate)[:, None]
        return self.mel.bands(wave), self.mel.spectrum.frame_weights(there.unsqueeze(1).to(wave.dtype))
