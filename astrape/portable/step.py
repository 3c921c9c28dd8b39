"""An exported step in ONNX Runtime, with all its memory laid out beforehand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from astrape.portable.engine import Array
from astrape.portable.names import CONTROL, INPUT, NEXT, OUTPUT, PREPARED, STATE

__all__ = ["OnnxEngine", "OnnxStep"]

TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def open_model(model: bytes | str | os.PathLike[str], threads: int = 1) -> Any:
    """A session of ONNX Runtime on the CPU.

    Denormal numbers count as 0, as in a session of astrape: a recursive filter's state would stay among them after
    speech, and cost ten to a hundred times as much.

    Args:
        model: its bytes, or a file.
        threads: of a step. Default 1: two gain little, and lose several times over once another process runs.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    given = model if isinstance(model, bytes) else os.fspath(model)
    return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])


class OnnxStep:
    """``quantum`` of an exported graph: arrays that are filled, a call, arrays that are read.

    All memory is taken once. There are two sets of arrays for the state, each call reads one and writes the other, so
    that nothing is copied and nothing is allocated from call to call.

    Args:
        model: the step's bytes, or its file.
        threads: of a call.

    Attributes:
        tensors: shapes and types of what the model takes and gives, by the names they have in it.
        inputs, prepared: arrays by name, to be filled before a call.
        outputs: arrays by name, whose values hold until the next call.
        states, at: both sets of the state's arrays, and which of them is the present one.
    """

    def __init__(self, model: bytes | str | os.PathLike[str], threads: int = 1) -> None:
        self._session = open_model(model, threads)
        entering = {item.name: _array(item) for item in self._session.get_inputs()}
        leaving = {item.name: _array(item) for item in self._session.get_outputs()}
        self.tensors = _forms({**entering, **leaving})
        self.inputs = _named(entering, INPUT)
        self.prepared = _named(entering, PREPARED)
        self.outputs = _named(leaving, OUTPUT)
        self.states = (_named(entering, STATE), _named(leaving, NEXT))
        self.at = 0
        fixed = {INPUT: self.inputs, PREPARED: self.prepared}
        self._bindings = [
            self._bound({**fixed, STATE: before}, {OUTPUT: self.outputs, NEXT: after})
            for before, after in (self.states, self.states[::-1])
        ]

    @property
    def state(self) -> dict[str, Array]:
        """The present state by leaf: the arrays themselves, which the call after the next writes over."""
        return self.states[self.at]

    @state.setter
    def state(self, values: Mapping[str, Array]) -> None:
        for name, held in self.states[self.at].items():
            held[...] = values[name]

    def run(self) -> None:
        """One call: from inputs, prepared values and state to outputs and the next state."""
        self._session.run_with_iobinding(self._bindings[self.at])
        self.at = 1 - self.at

    def _bound(self, entering: Mapping[str, Mapping[str, Array]], leaving: Mapping[str, Mapping[str, Array]]) -> Any:
        binding = self._session.io_binding()
        for prefix, arrays in entering.items():
            for name, array in arrays.items():
                binding.bind_ortvalue_input(prefix + name, ort.OrtValue.ortvalue_from_numpy(array))
        for prefix, arrays in leaving.items():
            for name, array in arrays.items():
                binding.bind_ortvalue_output(prefix + name, ort.OrtValue.ortvalue_from_numpy(array))
        return binding


class OnnxEngine(OnnxStep):
    """A step and what prepares it, in ONNX Runtime.

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
        if self._controls is not None:
            made = _forms({item.name: _array(item) for item in self._controls.get_outputs()})
            if made != {name: form for name, form in self.tensors.items() if name.startswith(PREPARED)}:
                raise ValueError("its controls come to other values than its step takes")
            self.tensors |= _forms({item.name: _array(item) for item in self._controls.get_inputs()})

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


def _forms(arrays: Mapping[str, Array]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}


def _array(item: Any) -> Array:
    return np.zeros(item.shape, TYPES[item.type])


def _named(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
