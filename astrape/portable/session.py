"""Sessions of exported graphs: any number of frames at a time, with NumPy and ONNX Runtime alone."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from astrape.errors import ExportError, StreamError
from astrape.portable.engine import Array, StepEngine
from astrape.portable.exported import Exported
from astrape.wording import number, one_line

__all__ = ["ExportedSession", "Fault", "PortableSession"]

Frames = Array | Mapping[str, Array]


class Fault(NamedTuple):
    """Non-finite frames: the row, the input or output, and the position of the first of them."""

    row: int
    port: str
    frame: int


class ExportedSession:
    """A stream through an exported graph, as ``graph.stream()`` is one through a graph, in any runtime.

    Frames are ``(batch, channels, frames)`` arrays, or a dict of them by name where there are several. Whole quanta are
    computed, the rest waits: a block of 64 samples gives nothing six times, and then 441 samples. With
    ``constant_latency`` a block gives as many frames as it has.

    Args:
        export: what :class:`~astrape.portable.exported.Exported` made of the folder.
        engine: its step in some runtime.
        constant_latency: return exactly as many frames as were given (times the ratio of rates, rounded down): frame
            ``n`` stands for the input at ``n - outputs[name].host``, and before the first there is silence.

    Attributes:
        export: with manifest, inputs, outputs and controls.
        controls: current values by name, ``(batch, channels)``.
        positions: frames given so far, by input.
        faults: what was not finite, in order. From its first such frame on an input of a row is heard as silence, and
            an output is silent. Cleared by ``reset``.
    """

    def __init__(self, export: Exported, engine: StepEngine, constant_latency: bool = False) -> None:
        self.export = export
        self.constant_latency = constant_latency
        self._step = engine
        self._first = self.export.first_state()
        self.controls: dict[str, Array] = {}
        self._prepared_for: dict[str, Array] | None = None
        self.reset()

    def reset(self) -> None:
        """Start anew, at time zero. Controls stay as they are, as they do in ``flush``."""
        export = self.export
        self._step.state = self._first
        self.positions = dict.fromkeys(export.inputs, 0)
        self.faults: list[Fault] = []
        self._silenced: set[tuple[str, int]] = set()
        self._given = dict.fromkeys(export.outputs, 0)
        self._waiting = {name: self._empty(port.channels) for name, port in export.inputs.items()}
        self._late = {}
        if self.constant_latency:
            for name, port in export.outputs.items():
                waits = port.host - math.ceil(port.algorithmic * port.rate)
                self._late[name] = np.zeros((export.batch, port.channels, waits), np.float32)

    def push(self, x: Frames, **controls: Any) -> dict[str, Array]:
        """Take any number of frames, zero included, and return what can be computed, by output.

        Args:
            x: ``(batch, channels, frames)``, or a dict of them by input where there are several.
            controls: values to hold from the next quantum on; a control without a default must be given at the first
                push.

        Raises:
            StreamError: for frames of the wrong shape, and controls that are missing, unknown or out of range.
        """
        arrived = self._frames(x)
        self._take_controls(controls)
        return self._push(arrived)

    def flush(self) -> dict[str, Array]:
        """End the stream: return exactly the frames that are missing, and leave the session reset.

        With what was pushed, every output then has the input's length (times the ratio), plus its latency.
        """
        export = self.export
        heard = max(self.positions[name] / port.rate for name, port in export.inputs.items())
        missing, until = {}, heard
        for name, port in export.outputs.items():
            late = port.host if self.constant_latency else math.ceil(port.algorithmic * port.rate)
            missing[name] = max(0, math.ceil(heard * port.rate) + late - self._given[name])
            until = max(until, (self._given[name] + missing[name]) / port.rate + port.framing)
        silence = {
            name: np.zeros((export.batch, port.channels, math.ceil(until * port.rate) - self.positions[name]), "f4")
            for name, port in export.inputs.items()
        }
        self._take_controls({})
        outputs = self._push(silence)
        self.reset()
        return {name: y[..., : missing[name]] for name, y in outputs.items()}

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything that the stream depends on."""
        return {
            "state": {name: array.copy() for name, array in self._step.state.items()},
            "waiting": {name: array.copy() for name, array in self._waiting.items()},
            "late": {name: array.copy() for name, array in self._late.items()},
            "controls": dict(self.controls),
            "positions": dict(self.positions),
            "given": dict(self._given),
            "faults": list(self.faults),
            "silenced": set(self._silenced),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go back to a snapshot, of this session or of another of the same export and mode.

        Raises:
            StreamError: for a snapshot that does not fit; the session stays as it was.
        """
        own = {"state": self._step.state, "waiting": self._waiting, "late": self._late}
        try:
            arrays = {part: _taken(saved[part], held, part == "state") for part, held in own.items()}
            controls = {name: self._control(name, value) for name, value in saved["controls"].items()}
            positions = {name: int(saved["positions"][name]) for name in self.positions}
            given = {name: int(saved["given"][name]) for name in self._given}
            faults, silenced = list(saved["faults"]), set(saved["silenced"])
        except (AttributeError, LookupError, TypeError, ValueError, StreamError) as error:
            raise StreamError(
                f"the snapshot does not fit '{self.export.name}' ({error}); hint: take one of a session of this export"
            ) from error
        self._step.state = arrays["state"]
        self._waiting, self._late = arrays["waiting"], arrays["late"]
        self.controls, self._prepared_for = controls, None
        self.positions, self._given = positions, given
        self.faults, self._silenced = faults, silenced

    def _push(self, arrived: dict[str, Array]) -> dict[str, Array]:
        self._bring_up_to_date()
        export, step = self.export, self._step
        for name, frames in arrived.items():
            clean = self._clean("in", name, frames, self.positions[name])
            self.positions[name] += frames.shape[-1]
            self._waiting[name] = np.concatenate((self._waiting[name], clean), axis=-1)
        quanta = min(self._waiting[name].shape[-1] // port.frames for name, port in export.inputs.items())
        outputs = {
            name: np.empty((export.batch, port.channels, quanta * port.frames), np.float32)
            for name, port in export.outputs.items()
        }
        for index in range(quanta):
            for name, port in export.inputs.items():
                step.inputs[name][...] = self._waiting[name][..., index * port.frames : (index + 1) * port.frames]
            step.run()
            for name, port in export.outputs.items():
                outputs[name][..., index * port.frames : (index + 1) * port.frames] = step.outputs[name]
        for name, port in export.inputs.items():
            self._waiting[name] = self._waiting[name][..., quanta * port.frames :].copy()
        for name in outputs:
            position = self._given[name] + (self._late[name].shape[-1] if self.constant_latency else 0)
            outputs[name] = self._clean("out", name, outputs[name], position)
        if self.constant_latency:
            outputs = self._constant(outputs)
        for name, y in outputs.items():
            self._given[name] += y.shape[-1]
        return outputs

    def _constant(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """Pass the output through a queue that began with the frames a host waits for."""
        heard = min(self.positions[name] / port.rate for name, port in self.export.inputs.items())
        due = {}
        for name, port in self.export.outputs.items():
            held = np.concatenate((self._late[name], outputs[name]), axis=-1)
            frames = int(heard * port.rate) - self._given[name]
            due[name], self._late[name] = held[..., :frames], held[..., frames:].copy()
        return due

    def _frames(self, x: Frames) -> dict[str, Array]:
        ports = self.export.inputs
        if not isinstance(x, Mapping):
            if len(ports) != 1:
                raise StreamError(f"'{self.export.name}' takes a dict of inputs: {', '.join(ports)}")
            x = {next(iter(ports)): x}
        if set(x) != set(ports):
            raise StreamError(f"'{self.export.name}' takes inputs {', '.join(ports)}, not {', '.join(map(str, x))}")
        arrived = {}
        for name, port in ports.items():
            array = np.asarray(x[name])
            if array.dtype.kind != "f":
                raise StreamError(f"'{name}' takes floating-point frames, not {array.dtype}: scale PCM to -1..1 first")
            if array.ndim != 3 or array.shape[:2] != (self.export.batch, port.channels):
                wanted = f"({self.export.batch}, {port.channels}, frames)"
                raise StreamError(f"'{name}' takes {wanted}, not {array.shape}: reshape it, or export with --batch")
            arrived[name] = array.astype(np.float32, copy=False)
        return arrived

    def _take_controls(self, given: Mapping[str, Any]) -> None:
        """Hold new values; nothing is taken if one of them cannot be."""
        values = dict(self.controls)
        for name, value in given.items():
            values[name] = self._control(name, value)
        for name, spec in self.export.controls.items():
            if name not in values:
                if spec.default is None:
                    raise StreamError(f"control '{name}' ({spec.channels} channels) has no value: give one")
                values[name] = self._control(name, spec.default)
        self.controls = values

    def _control(self, name: str, value: Any) -> Array:
        spec = self.export.controls.get(name)
        if spec is None:
            known = ", ".join(self.export.controls) or "none"
            raise StreamError(f"unknown control '{name}' (choose from: {known})")
        array = np.asarray(value, np.float32)
        array = array.reshape(1, -1) if array.ndim < 2 else array
        if array.ndim != 2 or array.shape[0] not in (1, self.export.batch) or array.shape[1] not in (1, spec.channels):
            wanted = f"({self.export.batch}, {spec.channels}) or ({spec.channels},)"
            raise StreamError(f"control '{name}' takes {wanted}, not {np.shape(value)}")
        if not np.isfinite(array).all():
            raise StreamError(f"control '{name}' is not finite")
        low, high = float(array.min()), float(array.max())
        if spec.minimum is not None and low < spec.minimum:
            raise StreamError(f"control '{name}' is {number(low)}, below {number(spec.minimum)}: give at least that")
        if spec.maximum is not None and high > spec.maximum:
            raise StreamError(f"control '{name}' is {number(high)}, above {number(spec.maximum)}: give at most that")
        return np.broadcast_to(array, (self.export.batch, spec.channels)).copy()

    def _bring_up_to_date(self) -> None:
        """Derive from the controls what the step takes, when one of them has changed."""
        known = self._prepared_for
        if known is not None and all(np.array_equal(known[name], value) for name, value in self.controls.items()):
            return
        self._step.prepare(self.controls)
        self._prepared_for = dict(self.controls)

    def _clean(self, side: str, name: str, x: Array, position: int) -> Array:
        """Frames of a port with every faulted row silent from its first bad frame on."""
        key = f"{side}:{name}"
        if np.isfinite(x).all() and not any(held == key for held, _ in self._silenced):
            return x
        x = x.copy()
        for row, frames in enumerate(x):
            bad = ~np.isfinite(frames).all(axis=0)
            start = 0 if (key, row) in self._silenced else int(bad.argmax()) if bad.any() else x.shape[-1]
            if start < x.shape[-1] and (key, row) not in self._silenced:
                self._silenced.add((key, row))
                self.faults.append(Fault(row, name, position + start))
            x[row, :, start:] = 0
        return x

    def _empty(self, channels: int) -> Array:
        return np.zeros((self.export.batch, channels, 0), np.float32)


def _taken(saved: Mapping[str, Array], held: Mapping[str, Array], whole: bool) -> dict[str, Array]:
    """Copies of what was saved, which is to be as what is held; their last axis may differ unless it is ``whole``."""
    if saved.keys() != held.keys():
        found, wanted = (", ".join(sorted(names)) or "nothing" for names in (saved, held))
        raise ValueError(f"it holds {found}, not {wanted}")
    taken = {name: np.array(saved[name]) for name in held}
    for name, array in taken.items():
        own, axes = held[name], slice(None) if whole else slice(-1)
        if array.dtype != own.dtype or array.ndim != own.ndim or array.shape[axes] != own.shape[axes]:
            raise ValueError(f"'{name}' is {array.dtype} {array.shape}, and {own.dtype} {own.shape} is kept")
    return taken


class PortableSession(ExportedSession):
    """A stream through an exported graph with NumPy and ONNX Runtime alone::

        session = PortableSession("exported/astrape-mini", constant_latency=True)
        for block in blocks:
            y = session.push(block, speaker=embedding)["wav"]

    Args:
        export: the folder, or what :class:`~astrape.portable.exported.Exported` made of it.
        constant_latency: return exactly as many frames as were given, see :class:`ExportedSession`.
        threads: of a step. Default 1.

    Raises:
        ExportError: for a folder that is not an export, is damaged, or holds no ONNX.
    """

    def __init__(
        self, export: str | os.PathLike[str] | Exported, *, constant_latency: bool = False, threads: int = 1
    ) -> None:
        found = export if isinstance(export, Exported) else Exported(export)
        steps = found.steps("onnx")
        controls = None if steps["controls"] is None else found.read(steps["controls"])
        from astrape.portable.step import OnnxEngine  # and with it ONNX Runtime, which other sessions have no use for

        step = found.read(steps["step"])
        try:
            engine = OnnxEngine(step, controls, threads)
        except Exception as error:  # ONNX Runtime's have nothing else in common
            told = f"its models cannot be loaded ({one_line(error, 300)}); hint: export anew"
            raise ExportError(f"{found.folder}: {told}") from error
        found.hold_against(steps["step"], engine.tensors)
        super().__init__(found, engine, constant_latency)
