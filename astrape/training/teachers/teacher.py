"""The protocol of teachers: frozen models that hear whole utterances, whose content and speakers a student learns."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from astrape.training.errors import TeacherError

__all__ = ["Limited", "Teacher", "checked_audio"]

LONGEST = 3600
"""Seconds of audio that are taken at once. Attention over an hour of frames is as much as a large machine holds."""


@runtime_checkable
class Teacher(Protocol):
    """A frozen model that says what is spoken, and by whom.

    Content frame ``j`` describes the audio from ``j / content_rate`` to ``(j + 1) / content_rate`` seconds, whatever
    the teacher looks at to do so, before and after. The number of frames is the number of whole ones in the audio,
    or up to one more. Results are without gradients, in float32, and the same for the same input. A batch gives what
    its items give alone; all of its items are as long as each other, so shorter ones are taken alone, not padded:
    teachers normalise over the utterance.

    Attributes:
        name: model and version. Caches and voicebanks carry it, so that nobody mixes spaces.
        sample_rate: Hz, of the audio that it takes.
        content_rate: content frames a second.
        content_channels: channels of the content.
        speaker_channels: channels of the speaker embedding.
        code_count: number of different codes, or ``None`` if it has none.
        decodes: whether :meth:`decode` gives audio.
    """

    name: str
    sample_rate: int
    content_rate: Fraction
    content_channels: int
    speaker_channels: int
    code_count: int | None
    decodes: bool

    def content(self, audio: Tensor) -> Tensor:
        """``(batch, 1, samples)`` mono at ``sample_rate`` to ``(batch, content_channels, frames)``."""
        ...

    def codes(self, audio: Tensor) -> Tensor:
        """``(batch, 1, samples)`` to int64 ``(batch, 1, frames)``, as many frames as the content has.

        Raises:
            TeacherError: where ``code_count`` is ``None``.
        """
        ...

    def encode(self, audio: Tensor) -> tuple[Tensor, Tensor | None]:
        """Content, and codes where there are any: both at the cost of one."""
        ...

    def speaker(self, audio: Tensor) -> Tensor:
        """``(batch, 1, samples)`` to ``(batch, speaker_channels)``."""
        ...

    def decode(self, content: Tensor, speaker: Tensor) -> Tensor:
        """Audio ``(batch, 1, samples)`` of content ``(batch, content_channels, frames)`` in voices.

        Args:
            content: as :meth:`content` gives it.
            speaker: ``(batch, speaker_channels)``, as :meth:`speaker` gives it.

        Raises:
            TeacherError: where ``decodes`` is ``False``, with the reason.
        """
        ...


class Limited:
    """The base of teachers without codes and a decoder: it refuses these with the reason.

    Attributes:
        use: its name in recipes.
        lacks: reasons by what is absent: ``codes``, ``decoder``, and ``content`` unless the class overrides it.
    """

    use: ClassVar[str]
    lacks: ClassVar[Mapping[str, str]]
    code_count: int | None = None
    decodes: bool = False

    def content(self, audio: Tensor) -> Tensor:
        """Refused.

        Raises:
            TeacherError: always.
        """
        raise self._without("content")

    def codes(self, audio: Tensor) -> Tensor:
        """Refused.

        Raises:
            TeacherError: always.
        """
        raise self._without("codes")

    def encode(self, audio: Tensor) -> tuple[Tensor, Tensor | None]:
        """Content, and no codes."""
        return self.content(audio), None

    def decode(self, content: Tensor, speaker: Tensor) -> Tensor:
        """Refused.

        Raises:
            TeacherError: always.
        """
        raise self._without("decoder")

    def _without(self, what: str) -> TeacherError:
        return TeacherError(f"teacher '{self.use}' has no {what}: {self.lacks[what]}")


def checked_audio(audio: Tensor, sample_rate: int, shortest: float) -> Tensor:
    """``audio`` as float32 ``(batch, 1, samples)``, detached.

    Args:
        audio: what a caller brings.
        sample_rate: Hz.
        shortest: seconds that the teacher needs.

    Raises:
        TeacherError: for another shape, whole numbers, too short or too long audio, and values that are not finite.
    """
    if audio.dim() != 3 or audio.shape[1] != 1 or audio.shape[0] < 1:
        raise TeacherError(f"a teacher takes audio of shape (batch, 1, samples), not {tuple(audio.shape)}")
    if not audio.is_floating_point():
        raise TeacherError(f"a teacher takes floating samples, full scale at 1, not {audio.dtype}")
    seconds = audio.shape[2] / sample_rate
    if not shortest <= seconds <= LONGEST:
        raise TeacherError(
            f"a teacher takes {shortest:g} s to {LONGEST} s of audio at once, not {seconds:.4g} s "
            f"({audio.shape[2]} samples at {sample_rate} Hz)"
        )
    audio = audio.detach().to(torch.float32)
    if not bool(torch.isfinite(audio).all()):
        raise TeacherError(f"the audio has {int((~torch.isfinite(audio)).sum())} samples that are not finite")
    return audio
