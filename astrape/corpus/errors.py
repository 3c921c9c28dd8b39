"""Errors of the corpus generator."""

from __future__ import annotations

from astrape.errors import AstrapeError

__all__ = ["CorpusError", "PackageError", "ToolError", "UnfitError"]


class CorpusError(AstrapeError):
    """A corpus that cannot be made or read. It names the file or the setting, the numbers and a hint."""


class PackageError(CorpusError):
    """A package that cannot be fetched, or is not the one whose checksum is known."""


class ToolError(CorpusError):
    """A program or a library that is absent, or failed: it names what to install."""


class UnfitError(CorpusError):
    """A sentence that no set can be made of, such as one of too few phones. It is left out, which is not a fault."""
