"""A teacher of speakers alone: Resemblyzer, and the tone of the voice, as the shipped voice is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from importlib import metadata
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.signal import resample_poly
from torch import Tensor

from astrape.training.teachers.offline import embedded, voice_encoder
from astrape.training.teachers.teacher import Limited
from astrape.voice.embedding import CHANNELS
from astrape.voice.own_encoder import AstrapeSpeaker

__all__ = ["WHO", "ResemblyzerTeacher", "directions"]

Array = npt.NDArray[np.float32]

EMBEDDED = 256
WHO = 96
"""Numbers of who speaks; the other 32 of an embedding are the tone, see the recipe ``astrape-speaker``."""

SHORTEST_SPEECH = 0.5
"""Seconds of speech without its pauses, below which all of the audio is taken as it is."""


class ResemblyzerTeacher(Limited):
    """Resemblyzer's 256 numbers of who speaks, on 96 directions, and the tone of the voice. It has no content.

    The directions are those of :func:`directions`; the tone is measured by the speaker encoder that ships, whose space
    this is.

    The network (Apache-2.0) is in its wheel, and runs on the CPU.

    Raises:
        TeacherError: for a missing package, with the line that installs it.
    """

    use = "resemblyzer"
    lacks: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("content", "codes", "decoder"), "it hears who speaks, and not what is said"
    )
    sample_rate = 16000
    content_rate = Fraction(25)
    content_channels = 1
    speaker_channels = CHANNELS

    def __init__(self) -> None:
        self._voices, self._prepared = voice_encoder()
        self.name = f"astrape/resemblyzer-96 (resemblyzer {metadata.version('resemblyzer')})"
        self._directions = directions()

    def speaker(self, audio: Tensor) -> Tensor:
        """Embeddings of voices, ``(batch, 1, samples)`` at 16 kHz to ``(batch, 128)``.

        Raises:
            TeacherError: for silence, in which there is no voice.
        """
        return embedded(audio, self.sample_rate, self._voice)

    @cached_property
    def _own(self) -> AstrapeSpeaker:
        # When the first tone is asked for: who teaches the encoder that ships needs none of its weights.
        return AstrapeSpeaker()

    def who(self, samples: Array) -> Array:
        """``(frames,)`` at 16 kHz, pauses and all, to ``(96,)``."""
        speech = self._prepared(samples.copy())
        heard = speech if len(speech) > SHORTEST_SPEECH * self.sample_rate else samples
        embedding = self._voices.embed_utterance(heard)
        return np.asarray(self._directions @ embedding.astype(np.float64), dtype=np.float32)

    def _voice(self, samples: Array) -> Array:
        # From 16 to 44.1 kHz, which the encoder that ships hears.
        audio = resample_poly(samples, 441, 160).astype(np.float32)
        return np.concatenate((self.who(samples), self._own.embed(torch.from_numpy(audio))[WHO:].numpy()))


def directions() -> npt.NDArray[np.float64]:
    """96 orthonormal directions of 256, ``(96, 256)``: those of the speaker encoder that ships.

    The first 96 columns of the first factor of the QR decomposition of normal numbers ``(256, 128)`` that NumPy's
    default generator draws with seed 0. Distances keep about three eighths of their square (Johnson & Lindenstrauss,
    1984). Embeddings are not normalised again, so that means of them stay means.
    """
    drawn = np.random.default_rng(0).standard_normal((EMBEDDED, CHANNELS))
    return np.ascontiguousarray(np.linalg.qr(drawn)[0].T[:WHO])
