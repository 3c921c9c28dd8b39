"""What a session does about numbers that are not finite: a fault on the row, silence, and a record of it."""

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

    The result does not depend on how the stream was cut: an input row is silenced from its first non-finite frame on,
    whatever push that frame came in.
    """

    def __init__(self, rows: int) -> None:
        self.found: list[Fault] = []
        self._deaf = [False] * rows
        self._mute = [False] * rows

    def clear(self, rows: Tensor | None = None) -> None:
        """Forget the faults of the rows where the mask is true, or of all."""
        chosen = set(range(len(self._deaf))) if rows is None else {i for i, on in enumerate(rows.tolist()) if on}
        self.found = [fault for fault in self.found if fault.row not in chosen]
        self._deaf = [bad and row not in chosen for row, bad in enumerate(self._deaf)]
        self._mute = [bad and row not in chosen for row, bad in enumerate(self._mute)]

    def saved(self) -> dict[str, Any]:
        return {"found": list(self.found), "deaf": list(self._deaf), "mute": list(self._mute)}

    def load(self, saved: dict[str, Any]) -> None:
        self.found, self._deaf, self._mute = list(saved["found"]), list(saved["deaf"]), list(saved["mute"])

    def clean_inputs(self, arrived: dict[str, Tensor], positions: dict[str, int]) -> dict[str, Tensor]:
        """The inputs with every faulted row silent from its first bad frame on."""
        return {name: self._clean(name, x, positions[name], self._deaf) for name, x in arrived.items()}

    def clean_outputs(self, outputs: dict[str, Tensor], given: dict[str, int]) -> dict[str, Tensor]:
        """The outputs with every row silent that has gone wrong inside."""
        return {name: self._clean(name, y, given[name], self._mute) for name, y in outputs.items()}

    def _clean(self, name: str, x: Tensor, position: int, silenced: list[bool]) -> Tensor:
        # The sum of finite numbers is finite unless it overflows, which the exact look then clears up: one cheap
        # reduction in the common case.
        if not any(silenced) and math.isfinite(float(x.sum())):
            return x
        bad = ~torch.isfinite(x).all(dim=1)
        keep = torch.ones_like(x)
        for row in range(x.shape[0]):
            start = x.shape[-1]
            if silenced[row]:
                start = 0
            elif bool(bad[row].any()):
                start = int(bad[row].int().argmax())
                silenced[row] = True
                self.found.append(Fault(row, name, position + start))
            keep[row, :, start:] = 0
        return torch.where(keep > 0, x, torch.zeros_like(x))
