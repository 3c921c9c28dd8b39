"""The engine of an exported session: a step in some runtime, behind one face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt

__all__ = ["Array", "StepEngine"]

Array = npt.NDArray[Any]


class StepEngine(Protocol):
    """A step and what prepares it.

    Attributes:
        inputs: arrays by name, to be filled before a call.
        outputs: arrays by name, whose values hold until the next call.
        state: the present state by leaf: the arrays themselves. Set, its values are taken.
    """

    @property
    def inputs(self) -> Mapping[str, Array]: ...

    @property
    def outputs(self) -> Mapping[str, Array]: ...

    @property
    def state(self) -> Mapping[str, Array]: ...

    @state.setter
    def state(self, values: Mapping[str, Array]) -> None: ...

    def prepare(self, controls: Mapping[str, Array]) -> None:
        """Derive from all controls, ``(batch, channels)``, what the calls from now on take."""

    def run(self) -> None:
        """One call: from inputs and state to outputs and the next state."""
