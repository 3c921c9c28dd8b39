"""Progress of long work."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "within"]

Progress = Callable[[float, float | None], None]
"""Called with the amount done and the total, in one unit; a total of ``None`` is unknown."""


def within(progress: Progress | None, index: int, count: int, share: float = 1.0) -> Progress:
    """Progress of one of ``count`` items as progress through all of them.

    Args:
        progress: of all of them; ``None``: silence.
        index: items before this one.
        count: items in all.
        share: of an item's work, what this progress is of.
    """

    def tell(done: float, total: float | None) -> None:
        if progress is not None:
            progress(index + (share * min(1.0, done / total) if total else 0.0), float(count))

    return tell
