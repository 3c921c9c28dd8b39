"""Names that command lines offer, apart from what they name: importing them loads nothing."""

from __future__ import annotations

__all__ = ["KINDS", "MICROPHONES"]

KINDS = ("wavlm", "speakers", "content", "audio", "pitch")
"""The caches that training reads."""

MICROPHONES = ("mic1", "mic2", "both")
"""Of recordings by two microphones, as VCTK has them."""
