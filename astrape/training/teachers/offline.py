"""A teacher from packages of PyPI that carry their weights: hama for content, Resemblyzer for speakers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from importlib import import_module, metadata
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from astrape.training.errors import TeacherError
from astrape.training.teachers.teacher import Limited, checked_audio
from astrape.voice.embedding import CHANNELS
from astrape.voice.evaluation.resemblyzer import Resemblyzer, load_resemblyzer
from astrape.wording import lacking

__all__ = ["OfflineTeacher", "embedded", "projection", "voice_encoder"]

FRAME = 320
"""Samples from frame to frame of hama, at 16 kHz. Frame k is centred on sample 320 k."""

STEP = 2 * FRAME
SPREAD = 3.0
"""Nats that become 1: about the standard deviation of a channel over read speech."""

WEIGHTS = (0.25, 0.5, 0.25)
"""Weights of the frames of hama at the begin, middle and end of a content frame: a triangle over 40 ms to each side."""

SHORTEST_VOICE = 0.25
EMBEDDED = 256
SEED = 2026

Array = npt.NDArray[np.float32]


class OfflineTeacher(Limited):
    """A teacher of a small phoneme recogniser's outputs, with speakers from a speaker verification network.

    Nothing is downloaded when it is used: the weights are in the wheels of ``hama`` (Apache 2.0) and ``Resemblyzer``
    (Apache 2.0). Both run on the CPU.

    Content is 191 channels at 25 Hz, one for each symbol of the recogniser:

    1. log-probabilities at 50 Hz less their mean over the symbols (the centred log-ratio of Aitchison, 1982): what
       the last layer of the network gives, in which sounds that are alike have like values. Probabilities themselves
       are blank between the sounds, as CTC leaves them, and would say little about a frame,
    2. a mean with weights 1/4, 1/2, 1/4 of the three frames that begin, halve and end a content frame,
    3. less the mean over the utterance, which all speech has in common, divided by 3.

    Speakers are Resemblyzer's 256 numbers, of speech without its pauses, on 128 directions, see :func:`projection`.

    Raises:
        TeacherError: for a missing package, with the line that installs it.
    """

    use = "offline"
    lacks: ClassVar[Mapping[str, str]] = {"codes": "its content is continuous", "decoder": "a recogniser only hears"}
    sample_rate = 16000
    content_rate = Fraction(sample_rate, STEP)
    speaker_channels = CHANNELS

    def __init__(self) -> None:
        self._recogniser = _recogniser()
        self._voices, self._prepared = voice_encoder()
        self.content_channels = len(self._recogniser.decoder_tokens)
        versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("hama", "resemblyzer"))
        self.name = f"astrape/offline-v1 ({versions})"
        self._projection = projection()

    def content(self, audio: Tensor) -> Tensor:
        """See :class:`~astrape.training.teachers.teacher.Teacher`; one content frame for each whole 40 ms."""
        checked = checked_audio(audio, self.sample_rate, STEP / self.sample_rate)
        contents = [self._one(item) for item in checked[:, 0].cpu().numpy()]
        return torch.from_numpy(np.stack(contents)).to(audio.device)

    def speaker(self, audio: Tensor) -> Tensor:
        """Embeddings of voices.

        Raises:
            TeacherError: for silence, in which there is no voice.
        """
        return embedded(audio, self.sample_rate, self._voice)

    def _one(self, samples: Array) -> Array:
        feeds = {"waveform": samples[None], "waveform_lengths": np.array([len(samples)])}
        (found,) = self._recogniser.session.run(["log_probs"], feeds)
        logs = found[0].astype(np.float64)
        count = len(samples) // STEP
        if logs.shape != (len(samples) // FRAME + 1, self.content_channels):
            raise TeacherError(
                f"hama gave {logs.shape} for {len(samples)} samples, not {(len(samples) // FRAME + 1, logs.shape[1])}: "
                f"this version of it counts frames in another way; take hama 1.7.0"
            )
        logs -= logs.mean(axis=1, keepdims=True)
        content = sum(weight * logs[at : at + 2 * count : 2][:count] for at, weight in enumerate(WEIGHTS))
        content = (content - content.mean(axis=0)) / SPREAD
        return np.ascontiguousarray(content.T, dtype=np.float32)

    def _voice(self, samples: Array) -> Array:
        speech = self._prepared(samples)
        # Without anything that passes for speech, all of it is taken as it is.
        embedding = self._voices.embed_utterance(speech if len(speech) else samples)
        return np.asarray(self._projection @ embedding.astype(np.float64), dtype=np.float32)


def embedded(audio: Tensor, rate: int, embed: Callable[[Array], Array]) -> Tensor:
    """Embeddings of voices, ``(batch, 1, samples)`` to ``(batch, channels)``.

    Args:
        audio: of a quarter of a second or more.
        rate: Hz.
        embed: makes the embedding of one recording.

    Raises:
        TeacherError: for silence, in which there is no voice.
    """
    recordings = checked_audio(audio, rate, SHORTEST_VOICE)[:, 0].cpu().numpy()
    if not all(samples.any() for samples in recordings):
        raise TeacherError("the audio is silent: there is no voice to embed")
    return torch.from_numpy(np.stack([embed(samples) for samples in recordings])).to(audio.device)


def projection() -> npt.NDArray[np.float64]:
    """128 orthonormal directions of 256, ``(128, 256)``: the same on every machine.

    Drawn evenly, made orthonormal by the QR decomposition, with signs such that it is unique. Distances between
    embeddings keep about half of their square, whichever the embeddings are (Johnson & Lindenstrauss, 1984), and
    means of embeddings stay means, as voicebanks of several recordings need.
    """
    drawn = np.random.PCG64(SEED).random_raw(EMBEDDED * CHANNELS).astype(np.float64) / 2.0**63 - 1
    basis, triangle = np.linalg.qr(drawn.reshape(EMBEDDED, CHANNELS))
    return np.asarray((basis * np.sign(np.diag(triangle))).T, dtype=np.float64)


def _recogniser() -> Any:
    try:
        hama = import_module("hama")
    except ImportError as error:
        raise TeacherError(_lacking("hama", error)) from error
    try:
        return hama.ASRModel()
    except Exception as error:
        raise TeacherError(f"teacher 'offline': hama does not run on this machine: {error}") from error


def voice_encoder() -> Resemblyzer:
    """Resemblyzer's network, and what it does to audio beforehand.

    Raises:
        TeacherError: for a missing package, with the line that installs it.
    """
    try:
        return load_resemblyzer()
    except ImportError as error:
        raise TeacherError(_lacking("resemblyzer", error)) from error
    except Exception as error:
        raise TeacherError(f"teacher 'offline': Resemblyzer does not run on this machine: {error}") from error


def _lacking(package: str, error: ImportError) -> str:
    if error.name == "pkg_resources":
        return (
            f"teacher 'offline': {package} takes pkg_resources, gone from setuptools 81; hint: "
            f'pip install "setuptools<81"'
        )
    if error.name and error.name.partition(".")[0] != package:
        return lacking(f"{package} in teacher 'offline'", error.name, "teachers")
    return lacking("teacher 'offline'", package, "teachers")
