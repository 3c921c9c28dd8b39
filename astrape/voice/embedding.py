"""Speaker embeddings: 128 float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.voice.errors import VoicebankError

__all__ = ["CHANNELS", "checked_embedding"]

CHANNELS = 128


def checked_embedding(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """A read-only float32 copy of an embedding.

    Raises:
        VoicebankError: for another shape, another type than floating numbers, and values that are not finite or all 0.
    """
    if values.shape != (CHANNELS,):
        raise VoicebankError(f"the embedding must have shape ({CHANNELS},), not {values.shape}")
    if values.dtype.kind != "f":
        raise VoicebankError(f"the embedding must hold floating numbers, not {values.dtype}")
    with np.errstate(over="ignore"):
        embedding = np.array(values, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(embedding))
    if bad.size:
        at = int(bad[0])
        raise VoicebankError(f"the embedding is not finite: {bad.size} of {CHANNELS} values, the first at {at}")
    if not embedding.any():
        raise VoicebankError("the embedding is all zeros (norm 0), which is not a voice: build the voicebank anew")
    embedding.setflags(write=False)
    return embedding
