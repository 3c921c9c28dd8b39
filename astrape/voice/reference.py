"""The windows of a speaker's recordings that an embedding is the mean over, in voicebanks and in caches alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from astrape.voice.quality import rms_dbfs

__all__ = ["SHORTEST_SECONDS", "SILENT_DBFS", "level_of", "reference_windows"]

WINDOW_SECONDS, HOP_SECONDS = 8, 4

SHORTEST_SECONDS = 1
"""A recording below this has too little of a voice to weigh as much as a window of 8 s does."""

SILENT_DBFS = -45.0
"""Windows below this level have little of a voice and are left out."""


def reference_windows(pieces: Iterable[Tensor], rate: int) -> Iterator[Tensor]:
    """Windows of 8 s, one every 4 s; a last one ends with the recording where those leave a rest.

    A recording shorter than 8 s is one window, and one below 1 s has none.

    Args:
        pieces: the recording, ``(samples,)`` each.
        rate: of the recording, Hz.
    """
    length, hop = WINDOW_SECONDS * rate, HOP_SECONDS * rate
    held = torch.zeros(0)
    start = 0
    for piece in pieces:
        held = torch.cat((held, piece))
        while len(held) >= start + length:
            yield held[start : start + length]
            # From the last window's start: the window at the very end may reach back that far.
            held = held[start:]
            start = hop
    if (start == 0 and len(held) >= SHORTEST_SECONDS * rate) or len(held) > length:
        yield held[-length:]


def level_of(window: Tensor) -> float:
    """Level of a window, dB of full scale."""
    return rms_dbfs(float(window.double().square().mean()))
