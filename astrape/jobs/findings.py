"""Items that a run could not make, and faults that a check of its files found."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Failed", "Finding"]


@dataclass(frozen=True)
class Failed:
    """An item that could not be made, or not be used, and why."""

    key: str
    error: str


@dataclass(frozen=True)
class Finding:
    """A fault of one file.

    Attributes:
        path: the file.
        kind: ``missing``, ``empty``, ``truncated``, ``shape``, ``non-finite``, ``changed``, ``checksum``,
            ``unreadable``, ``temporary`` or ``weights``.
        message: in words that follow the file's name.
        key: the item that it belongs to; ``None`` for a file of no item, such as a temporary.
    """

    path: str
    kind: str
    message: str
    key: str | None
