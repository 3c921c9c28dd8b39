"""Short recordings at once, as one channel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.audio.downmix import KEEP, MEAN, Downmix
from astrape.audio.reader import AudioReader, Samples
from astrape.audio.writer import AudioWriter

__all__ = ["read_mono", "write_mono"]


def read_mono(path: str | os.PathLike[str], channel: str = MEAN) -> tuple[Samples, int]:
    """All of an audio file as ``(frames,)`` float32, and its rate.

    Raises:
        AudioError: for a file that cannot be read or is not as long as it says, samples that are not finite, and
            channels that cancel each other.
    """
    with AudioReader(path) as audio:
        downmix = Downmix(audio.rate, audio.channels, channel, audio.name)
        blocks = [downmix.add(block) for block in audio.finite_blocks(10.0)]
        audio.refuse_faults()
        downmix.refuse_cancelled(KEEP)
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32), audio.rate


def write_mono(path: Path, samples: npt.NDArray[Any], rate: int, subtype: str = "PCM_16") -> None:
    """Write ``(frames,)`` to an audio file that appears whole or not at all; its ending picks the format.

    Raises:
        WriteError: when it cannot be written.
    """
    with AudioWriter(path, rate, 1, subtype, frames=len(samples)) as written:
        written.write(np.asarray(samples)[:, None])
