"""Names that command lines offer, apart from what they name: importing them loads nothing."""

from __future__ import annotations

__all__ = ["KINDS"]

KINDS = ("wavlm", "speakers", "content", "audio", "pitch")
"""The caches that training reads."""
