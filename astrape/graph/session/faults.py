"""Faults of a session: numbers that are not finite silence their row and are recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Fault", "FaultGuard"]


@dataclass(frozen=True)
class Fault:
    """Non-finite frames in a row of the batch.

    Attributes:
        row: index in the batch.
        port: the input or output.
        frame: position in the stream of the first such frame.
    """

    row: int
    port: str
    frame: int


class FaultGuard:
    """Keeps non-finite frames out of the state, row by row.

    The result does not depend on how the stream was cut: a row is silenced at a port from its first non-finite frame
    there on, whatever push that frame came in. The other ports of the row may run ahead or behind, and are left alone.
    """

    def __init__(self, rows: int) -> None:
        self.found: list[Fault] = []
        self._rows = rows
        self._silenced: dict[str, set[int]] = {}

    @property
    def silencing(self) -> bool:
        """Whether a row is silent at a port."""
        return bool(self._silenced)

    def clear(self, rows: Tensor | None = None) -> None:
        """Forget the faults of the rows where the mask is true, or of all."""
        chosen = set(range(self._rows)) if rows is None else {i for i, on in enumerate(rows.tolist()) if on}
        self.found = [fault for fault in self.found if fault.row not in chosen]
        self._silenced = {port: left for port, bad in self._silenced.items() if (left := bad - chosen)}

    def saved(self) -> dict[str, Any]:
        """The faults found so far, as plain values."""
        return {
            "found": [(fault.row, fault.port, fault.frame) for fault in self.found],
            "silenced": {port: sorted(rows) for port, rows in self._silenced.items()},
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Go back to what ``saved`` gave."""
        self.found = [Fault(*fault) for fault in saved["found"]]
        self._silenced = {port: set(rows) for port, rows in saved["silenced"].items()}

    def clean(self, side: str, signals: dict[str, Tensor], positions: dict[str, int]) -> dict[str, Tensor]:
        """The signals with every faulted row silent from its first bad frame on.

        Args:
            side: ``"in"`` or ``"out"``, since an input and an output may share a name.
            signals: new frames by port.
            positions: frames before them, by port.
        """
        return {name: self._clean(side, name, x, positions[name]) for name, x in signals.items()}

    def _clean(self, side: str, name: str, x: Tensor, position: int) -> Tensor:
        silenced = self._silenced.get(f"{side}:{name}")
        # The sum of finite numbers is finite unless it overflows, which the exact look then clears up: one cheap
        # reduction in the common case.
        if not silenced and math.isfinite(x.sum().item()):
            return x
        bad = ~torch.isfinite(x).all(dim=1)
        if silenced is None and not bool(bad.any()):
            return x
        silenced = self._silenced.setdefault(f"{side}:{name}", set())
        keep = torch.ones_like(x, dtype=torch.bool)
        for row in range(x.shape[0]):
            if row in silenced:
                keep[row] = False
            elif bool(bad[row].any()):
                start = int(bad[row].int().argmax())
                silenced.add(row)
                self.found.append(Fault(row, name, position + start))
                keep[row, :, start:] = False
        return torch.where(keep, x, torch.zeros_like(x))
