"""The register of a voice: where its pitch lies, measured piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from astrape.blocks.base import Stream
from astrape.blocks.pitch import PitchTracker

__all__ = ["FEWEST_VOICED", "RegisterMeter"]

FEWEST_VOICED = 50
"""Frames of 10 ms: with less than half a second that is voiced, a median says nothing of a voice."""


class RegisterMeter:
    """Collects the pitch of one or more recordings, by the block ``pitch_tracker``.

    Args:
        rate: Hz, of what it is given.
    """

    def __init__(self, rate: int) -> None:
        self._tracker = PitchTracker(Stream(rate, 1)).eval()
        self._voiced: list[Tensor] = []
        self._begin()

    def follow(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """The pieces ``(frames,)`` of one recording as they are, measured on their way."""
        self._begin()
        for piece in pieces:
            self._add(piece)
            yield piece

    @property
    def median(self) -> float | None:
        """Hz, over all voiced frames so far; ``None`` where there are fewer than 50."""
        found = torch.cat(self._voiced).numpy() if self._voiced else np.zeros(0)
        return float(np.median(found)) if len(found) >= FEWEST_VOICED else None

    def _begin(self) -> None:
        self._held = torch.zeros(0)
        self._state = self._tracker.init_state(1)

    @torch.no_grad()
    def _add(self, piece: Tensor) -> None:
        joined = torch.cat((self._held, piece.float()))
        whole = len(joined) // self._tracker.quantum * self._tracker.quantum
        self._held = joined[whole:].clone()
        if whole:
            found, self._state = self._tracker.step(joined[:whole].reshape(1, 1, -1), self._state, ())
            f0 = found[0, 0]
            self._voiced.append(f0[f0 > 0].clone())
