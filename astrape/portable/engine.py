"""What a session of an export runs on: a step in some runtime, behind one face."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

from astrape.portable.names import CONTROL, PREPARED
from astrape.portable.step import Array, OnnxStep, open_model

__all__ = ["Engine", "OnnxEngine"]


class Engine(Protocol):
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


class OnnxEngine(OnnxStep):
    """ONNX Runtime.

    Args:
        step: the step's model, its bytes or its file.
        controls: the model of the controls, or ``None`` for a graph that listens to none.
        threads: of a call.
    """

    def __init__(
        self,
        step: bytes | str | os.PathLike[str],
        controls: bytes | str | os.PathLike[str] | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__(step, threads)
        self._controls = None if controls is None else open_model(controls, threads)

    def prepare(self, controls: Mapping[str, Array]) -> None:
        """Derive from all controls, ``(batch, channels)``, what the calls from now on take."""
        if self._controls is None:
            return
        names = [item.name for item in self._controls.get_outputs()]
        wanted = {item.name for item in self._controls.get_inputs()}
        given = {CONTROL + name: value for name, value in controls.items()}
        found = self._controls.run(names, {name: value for name, value in given.items() if name in wanted})
        for name, value in zip(names, found, strict=True):
            self.prepared[name.removeprefix(PREPARED)][...] = value
