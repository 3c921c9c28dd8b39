"""A teacher of speakers alone: Resemblyzer, on the 128 directions that the shipped voice is trained on."""

from __future__ import annotations

from fractions import Fraction
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astrape.training.errors import TeacherError
from astrape.training.teachers.offline import voice_encoder
from astrape.training.teachers.teacher import checked_audio
from astrape.voice.embedding import CHANNELS

__all__ = ["ResemblyzerTeacher", "directions"]

EMBEDDED = 256
SHORTEST_VOICE = 0.25
SHORTEST_SPEECH = 0.5
"""Seconds of speech without its pauses, below which all of the audio is taken as it is."""


class ResemblyzerTeacher:
    """Resemblyzer's 256 numbers of who speaks, on 128 directions, see :func:`directions`. It has no content.

    The network (Apache-2.0) is in its wheel, and runs on the CPU.

    Raises:
        TeacherError: for a missing package, with the line that installs it.
    """

    sample_rate = 16000
    content_rate = Fraction(25)
    content_channels = 1
    speaker_channels = CHANNELS
    code_count = None
    decodes = False

    def __init__(self) -> None:
        self._voices, self._prepared = voice_encoder()
        self.name = f"astrape/resemblyzer-128 (resemblyzer {metadata.version('resemblyzer')})"
        self._directions = directions()

    def speaker(self, audio: Tensor) -> Tensor:
        """Embeddings of voices, ``(batch, 1, samples)`` at 16 kHz to ``(batch, 128)``.

        Raises:
            TeacherError: for silence, in which there is no voice.
        """
        checked = checked_audio(audio, self.sample_rate, SHORTEST_VOICE)
        voices = [self._voice(item) for item in checked[:, 0].cpu().numpy()]
        return torch.from_numpy(np.stack(voices)).to(audio.device)

    def content(self, audio: Tensor) -> Tensor:
        """It has none.

        Raises:
            TeacherError: always.
        """
        raise TeacherError("teacher 'resemblyzer' has no content: it hears who speaks, and not what is said")

    def codes(self, audio: Tensor) -> Tensor:
        """It has none.

        Raises:
            TeacherError: always.
        """
        raise TeacherError("teacher 'resemblyzer' has no codes: it hears who speaks, and not what is said")

    def decode(self, content: Tensor, speaker: Tensor) -> Tensor:
        """It cannot.

        Raises:
            TeacherError: always.
        """
        raise TeacherError("teacher 'resemblyzer' has no decoder: it hears who speaks, and no more")

    def _voice(self, samples: Any) -> Any:
        if not samples.any():
            raise TeacherError("the audio is silent: there is no voice to embed")
        speech = self._prepared(samples)
        heard = speech if len(speech) > SHORTEST_SPEECH * self.sample_rate else samples
        embedding = self._voices.embed_utterance(heard)
        return np.asarray(self._directions @ embedding.astype(np.float64), dtype=np.float32)


def directions() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """128 orthonormal directions of 256, ``(128, 256)``: those of the speaker encoder that ships.

    The first factor of the QR decomposition of normal numbers that NumPy's default generator draws with seed 0.
    Embeddings are not normalised again, so that means of them stay means.
    """
    drawn = np.random.default_rng(0).standard_normal((EMBEDDED, CHANNELS))
    return np.ascontiguousarray(np.linalg.qr(drawn)[0].T)
