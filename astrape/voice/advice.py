"""Warnings about a voice: faults of its recording, and an embedding that is not learned."""

from __future__ import annotations

from astrape.voice.metadata import Metadata
from astrape.voice.quality import WARNINGS
from astrape.voice.speaker import MelStatistics

__all__ = ["escaped", "voice_warnings"]


def voice_warnings(voice: Metadata) -> list[str]:
    """A line for each warning in a voicebank's metadata, and one for an embedding that is not trained.

    Names that are unknown come from other programs, and are escaped: a voicebank may come from anywhere.
    """
    lines = [
        f"{escaped(name)}: {WARNINGS.get(name, 'a warning of another program')}" for name in voice.quality_warnings
    ]
    if voice.embedding_model == MelStatistics.name:
        lines.append(
            "the embedding is of mel-statistics, which is not trained: a decoder that was trained with another speaker "
            "encoder makes nothing of it (--encoder names another)"
        )
    return lines


def escaped(text: str) -> str:
    """Text with its control characters escaped, so that no terminal takes it for a command."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
