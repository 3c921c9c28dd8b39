"""Errors of caches, teachers and training."""

from __future__ import annotations

from astrape.errors import AstrapeError

__all__ = ["CacheError", "TeacherError", "TrainingError"]


class TrainingError(AstrapeError):
    """Training that cannot begin or go on. It names what is wrong, with the numbers, and a hint."""


class CacheError(TrainingError):
    """A corpus or a cache that cannot be used, by file."""


class TeacherError(TrainingError):
    """A teacher whose weights or packages are missing or do not fit: it names what to get and where to put it."""
