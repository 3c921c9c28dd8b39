"""The effort that a check may spend on a block, counted in operators, so that it is the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from astrape.measure.subject import BATCH, Subject

__all__ = ["Effort", "effort"]

VALUES_AN_OPERATOR = 10_000
"""Numbers that an operator works on in the time that calling it takes."""

WEIGHTS_AN_OPERATOR = 20_000
"""Weights that are multiplied in that time."""

MOST_VALUES = 1 << 20
"""Numbers at the widest port of the longest signal: 8 MB."""

LOOKED_AT = 9
"""Quanta of the longer of the two steps that are counted."""


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled in here, and telling the compiler so would load it: 1.7 s of imports.
        return False

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return operator(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Effort:
    """The cost of a step in operators, 5 to 10 us each.

    Attributes:
        call: operators of a step, however many quanta it has.
        quantum: operators more for every quantum, as where frames are gone through one by one.
        values: numbers at the widest port in a quantum, all rows together.
        weights: of the block.
    """

    call: float
    quantum: float
    values: int
    weights: int

    @property
    def most(self) -> int:
        """Quanta of the longest signal."""
        return MOST_VALUES // self.values

    def of(self, quanta: int) -> float:
        """Cost of one step of that many quanta."""
        wide = 1 + quanta * self.values / VALUES_AN_OPERATOR
        return self.call * wide + quanta * (self.quantum + self.weights / WEIGHTS_AN_OPERATOR)

    def quanta(self, budget: float, limit: int) -> int:
        """The longest step that a budget is enough for; ``limit`` quanta at most, and at least one."""
        low, high = 1, max(1, min(limit, self.most))
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.of(middle) <= budget else (low, middle - 1)
        return low

    def calls(self, budget: float, limit: int) -> int:
        """Steps of one quantum that a budget is enough for; ``limit`` at most, and at least one."""
        return max(1, min(limit, self.most, int(budget / self.of(1))))


def effort(subject: Subject, batch: int = BATCH) -> Effort:
    """Count what steps of a block take."""
    block = subject.block
    # In inference mode fewer operators would be seen, and more done for the same count.
    with torch.inference_mode(False), torch.no_grad():
        x, prepared = subject.signal(LOOKED_AT, batch=batch, seed=50), subject.prepared(batch)
        counts = []
        for quanta in (1, LOOKED_AT):
            with _Counting() as counting:
                subject.step(subject.cut(x, 0, quanta), subject.fresh(batch), prepared)
            counts.append(counting.count)
    each = max(0.0, (counts[1] - counts[0]) / (LOOKED_AT - 1))
    ports = [(stream, block.consumes[port]) for port, stream in block.inputs.items()]
    ports += [(stream, block.produces[port]) for port, stream in block.outputs.items()]
    return Effort(
        call=max(1.0, counts[0] - each),
        quantum=each,
        values=batch * max(stream.channels * frames for stream, frames in ports),
        weights=sum(parameter.numel() for parameter in block.parameters()),
    )
