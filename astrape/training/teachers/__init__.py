"""Teachers: frozen models that hear the whole utterance, as targets for students that may not.

    teacher = open_teacher("spectral")
    content = teacher.content(audio)        # (batch, channels, frames) at teacher.content_rate
    speaker = teacher.speaker(audio)        # (batch, channels)

All but ``spectral`` are imported when they are opened: what they need is not part of astrape itself.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from astrape.named import made
from astrape.training.errors import TeacherError
from astrape.training.teachers.teacher import Teacher

__all__ = ["TEACHERS", "Teacher", "open_teacher", "teacher_class"]

TEACHERS = {
    "miocodec": "astrape.training.teachers.miocodec:MioCodecTeacher",
    "resemblyzer": "astrape.training.teachers.resemblyzer:ResemblyzerTeacher",
    "offline": "astrape.training.teachers.offline:OfflineTeacher",
    "spectral": "astrape.training.teachers.spectral:SpectralTeacher",
}
"""Names that recipes and command lines give, and the classes."""


def open_teacher(name: str, **params: Any) -> Teacher:
    """The teacher of that name, ready.

    Args:
        name: ``miocodec``, ``offline``, ``resemblyzer`` or ``spectral``.
        **params: of the teacher's class, such as ``folder`` for the weights of ``miocodec``.

    Raises:
        TeacherError: for an unknown name or parameter, and where packages or weights are missing or do not fit. It
            names what to get and where to put it.
    """
    if name not in TEACHERS:
        raise TeacherError(f"there is no teacher '{name}': choose from: {', '.join(TEACHERS)}")
    return made(f"teacher '{name}'", teacher_class(name), params, error=TeacherError)


def teacher_class(name: str) -> Callable[..., Teacher]:
    """The class of a teacher of ``TEACHERS``, imported now."""
    module, _, attribute = TEACHERS[name].partition(":")
    found: Callable[..., Teacher] = getattr(import_module(module), attribute)
    return found
