"""The position of a training, and who is told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from astrape.training.stage import Phase

__all__ = ["Listener", "Position"]


@dataclass
class Position:
    """The position of a training.

    Attributes:
        epoch, batch: the next step to make: which epoch, and which step in it.
        step: steps made in all.
        skipped: steps without a finite loss or gradient.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0

    def plain(self) -> dict[str, int]:
        return dict(vars(self))


class Listener(Protocol):
    """The receiver of a training's progress."""

    def stepped(self, position: Position, values: Mapping[str, float]) -> None:
        """Called after a step."""

    def skipped(self, position: Position, what: str) -> None:
        """Called after a skipped step, with the reason."""

    def phase_begins(self, phase: Phase, notes: Sequence[str]) -> None: ...
