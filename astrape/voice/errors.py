"""Errors of voicebanks."""

from __future__ import annotations

from astrape.errors import AstrapeError

__all__ = ["VoicebankError"]


class VoicebankError(AstrapeError):
    """A voicebank, or a recording to build one from, that cannot be used. It names file, field, numbers and a hint."""
