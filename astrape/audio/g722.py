"""Recordings in G.722 without a container: 16 kHz mono at 64 kbit/s, as telephone prompts are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from astrape.errors import AudioError

__all__ = ["G722_BYTES", "read_g722"]

G722_BYTES = 8000
"""Bytes a second."""


def read_g722(path: Path) -> npt.NDArray[np.float32]:
    """All of a file as ``(samples,)`` float32 at 16 kHz. Nothing in such a file says what it is: its ending has to.

    Raises:
        AudioError: where PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise AudioError("decoder", f"{path}: G.722 takes PyAV: hint: pip install av") from error
    with av.open(str(path), format="g722") as file:
        frames = [np.asarray(frame.to_ndarray(), np.float32).reshape(-1) for frame in file.decode(audio=0)]
    return np.concatenate(frames) / np.float32(32768) if frames else np.zeros(0, np.float32)
