"""Teachers as the speaker encoders of voicebanks: entry points of the group ``astrape.speaker_encoders``.

    astrape voicebank build speech.wav --encoder miocodec -o voice.astrape

They are found by name, so that ``astrape.voice`` imports nothing of training.
"""

from __future__ import annotations

from torch import Tensor

from astrape.training.errors import TeacherError
from astrape.training.teachers import open_teacher
from astrape.training.teachers.teacher import Teacher
from astrape.voice.embedding import CHANNELS
from astrape.voice.evaluation.packages import absence
from astrape.voice.evaluation.resemblyzer import RESEMBLYZER

__all__ = ["TeacherVoices", "miocodec", "offline", "resemblyzer", "spectral"]


class TeacherVoices:
    """A :class:`~astrape.voice.speaker.SpeakerEncoder` that a teacher is behind.

    Raises:
        TeacherError: for a teacher whose embeddings are not as wide as those of voicebanks.
    """

    def __init__(self, teacher: Teacher) -> None:
        if teacher.speaker_channels != CHANNELS:
            raise TeacherError(
                f"teacher '{teacher.name}' gives {teacher.speaker_channels} numbers for a speaker, and voicebanks "
                f"hold {CHANNELS}"
            )
        self.teacher = teacher
        self.name, self.sample_rate = teacher.name, teacher.sample_rate

    def embed(self, audio: Tensor) -> Tensor:
        """``(frames,)`` mono at ``sample_rate`` to ``(128,)``, on the CPU."""
        return self.teacher.speaker(audio.reshape(1, 1, -1))[0].cpu()


def miocodec() -> TeacherVoices:
    """MioCodec's speakers; weights from ``$ASTRAPE_TEACHERS``, ``teachers`` or the caches."""
    return TeacherVoices(open_teacher("miocodec"))


def spectral() -> TeacherVoices:
    """The long-term spectra that the teacher without weights takes for speakers."""
    return TeacherVoices(open_teacher("spectral"))


def offline() -> TeacherVoices:
    """Resemblyzer's speakers on 128 directions."""
    return TeacherVoices(open_teacher("offline"))


def resemblyzer() -> TeacherVoices:
    """The teacher of ``astrape-speaker`` itself; decoders of ``astrape-speaker`` take its voices."""
    if reason := absence([RESEMBLYZER]):
        raise TeacherError(reason)
    return TeacherVoices(open_teacher("resemblyzer"))
