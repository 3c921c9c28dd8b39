"""Names that command lines offer, apart from what they name: importing them loads nothing."""

from __future__ import annotations

__all__ = ["KINDS", "SIGNALS"]

SIGNALS = {
    "wavlm": ("features",),
    "speakers": ("speaker",),
    "content": ("content", "codes", "voiced"),
    "audio": ("audio",),
    "pitch": ("pitch",),
}
"""The signals of each cache that training reads, as batches, targets and losses call them too; its own first. The names
of caches are those of flags, folders and records."""

KINDS = tuple(SIGNALS)
"""The caches that training reads."""
