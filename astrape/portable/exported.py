"""A folder that ``astrape export`` wrote: its manifest, checked, and its models."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from fractions import Fraction
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from astrape.errors import ExportError
from astrape.portable.engine import Array
from astrape.portable.names import CONTROL, INPUT, NEXT, OUTPUT, PREPARED, STATE
from astrape.wording import reason_of

__all__ = ["FORMAT", "MANIFEST", "VERSION", "ControlSpec", "Exported", "Port", "Tensors", "tensors_of"]

FORMAT, VERSION, MANIFEST = "astrape-export", 1, "manifest.json"

Tensors = Mapping[str, tuple[tuple[int, ...], str]]
"""Shapes and types of what a step takes and gives, by the names they have in a model."""


class Port(NamedTuple):
    """An input or output.

    Attributes:
        rate: frames per second, exact.
        frames: of one step.
        algorithmic, framing: latency in seconds, of outputs; 0 of inputs. See ``docs/time-model.md``.
        host: both in frames, rounded up once: what a host compensates.
    """

    name: str
    rate: Fraction
    channels: int
    frames: int
    algorithmic: Fraction = Fraction(0)
    framing: Fraction = Fraction(0)
    host: int = 0


class ControlSpec(NamedTuple):
    """A control: its number of channels, one default a channel or ``None``, bounds or ``None``, and its unit or ""."""

    channels: int
    default: tuple[float, ...] | None
    minimum: float | None
    maximum: float | None
    unit: str = ""


class Exported:
    """An exported graph on disk.

    Args:
        folder: what ``astrape export`` wrote.
        check: hold every file against its checksum. Default true.

    Attributes:
        manifest: all of it, as it stands there.
        name: the recipe's.
        batch: rows of a step.
        inputs, outputs, controls: by name.
        tensors: what a step takes and gives.

    Raises:
        ExportError: for a folder that is not an export, of another version, or damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], check: bool = True) -> None:
        self.folder = Path(folder)
        path = self.folder / MANIFEST
        try:
            self.manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if self.manifest["format"] != FORMAT:
                raise ExportError(f"{path}: is not the manifest of an export: name a folder that astrape export wrote")
            if self.manifest["version"] != VERSION:
                raise ExportError(
                    f"{path}: is of version {self.manifest['version']} and this runner reads {VERSION}: "
                    "export anew, or take the runner of that version"
                )
            self.name: str = self.manifest["recipe"]
            self.batch = index(self.manifest["batch"])
            self.inputs = {item["name"]: _port(item) for item in self.manifest["inputs"]}
            self.outputs = {item["name"]: _port(item) for item in self.manifest["outputs"]}
            self.controls = {item["name"]: _control(item) for item in self.manifest["controls"]}
            self.files: dict[str, Mapping[str, Any]] = self.manifest["files"]
            self.tensors = tensors_of(self.manifest)
            self._check()
        except OSError as error:
            raise ExportError(f"{path}: {reason_of(error)}: name a folder that astrape export wrote") from error
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise ExportError(f"{path}: is damaged ({error!r}): export anew") from error
        if check:
            for name in self.files:
                self.read(name)

    def read(self, name: str) -> bytes:
        """A file of the export, held against its checksum.

        Raises:
            ExportError: when it is missing or not what was written.
        """
        path = self.folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ExportError(f"{path}: {reason_of(error)}: export anew") from error
        if hashlib.sha256(content).hexdigest() != self.files[name]["sha256"]:
            raise ExportError(f"{path}: is not what was written, by its checksum: copy it again or export anew")
        return content

    def steps(self, form: str) -> Mapping[str, Any]:
        """The manifest's entry for the step in one format, ``"onnx"`` or ``"aoti"``.

        Raises:
            ExportError: when it was not exported in that format.
        """
        found: Mapping[str, Any] | None = self.manifest.get(form)
        if found is None:
            raise ExportError(f"{self.folder}: holds no step for '{form}'; hint: export with --format {form}")
        return found

    def hold_against(self, file: str, found: Tensors) -> None:
        """Hold what a model takes and gives against what the manifest says of it.

        Raises:
            ExportError: with the first tensor that differs. A model of another export has other tensors.
        """
        for name, wanted in self.tensors.items():
            if found.get(name, wanted) != wanted or (name not in found and not name.startswith(CONTROL)):
                raise ExportError(
                    f"{self.folder / file}: is not what the manifest tells of: '{name}' is {_said(found.get(name))}, "
                    f"not {_said(wanted)}; hint: export anew"
                )
        strange = sorted(found.keys() - self.tensors.keys())
        if strange:
            raise ExportError(
                f"{self.folder / file}: is not what the manifest tells of, which has no '{strange[0]}'; "
                "hint: export anew"
            )

    def _check(self) -> None:
        """Refuse a damaged manifest whose numbers would do harm."""
        for name, port in {**self.inputs, **self.outputs}.items():
            late = min(port.algorithmic, port.framing, Fraction(port.host) - port.algorithmic * port.rate)
            if not (port.rate > 0 and port.channels > 0 and port.frames > 0 and late >= 0):
                raise ValueError(f"'{name}' has no frames, or is there before it can be")
        for name in self.files:
            if Path(name).name != name:
                raise ValueError(f"'{name}' is not a file of this folder")
        for form in ("onnx", "aoti"):
            for part in ("step", "controls") if form in self.manifest else ():
                name = self.manifest[form][part]
                if name not in self.files and (part == "step" or name is not None):
                    raise ValueError(f"'{name}' is not among its files")
        for item in self.manifest["state"]:
            if not np.isfinite(_first(item)).all():
                raise ValueError(f"state '{item['name']}' begins with what is not finite")

    def first_state(self) -> dict[str, Array]:
        """The state at time zero, by leaf."""
        return {item["name"]: np.broadcast_to(_first(item), item["shape"]).copy() for item in self.manifest["state"]}


def tensors_of(manifest: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shapes and types of a step's inputs, outputs and controls, by their names in the model."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for prefix, key in ((CONTROL, "controls"), (INPUT, "inputs"), (PREPARED, "prepared"), (STATE, "state")):
        for item in manifest[key]:
            found[prefix + item["name"]] = _form(item, manifest["batch"])
    for item in manifest["outputs"]:
        found[OUTPUT + item["name"]] = _form(item, manifest["batch"])
    return found | {NEXT + item["name"]: _form(item, manifest["batch"]) for item in manifest["state"]}


def _form(item: Mapping[str, Any], batch: int) -> tuple[tuple[int, ...], str]:
    if "shape" in item:
        return tuple(map(index, item["shape"])), str(item["dtype"])
    return (batch, index(item["channels"]), *([index(item["frames"])] if "frames" in item else ())), "float32"


def _said(form: tuple[tuple[int, ...], str] | None) -> str:
    return "not there" if form is None else f"{form[1]} {form[0]}"


def _first(item: Mapping[str, Any]) -> Array:
    """First values of a leaf as they are written down: one number for all, or those of a row."""
    first, shape = item["first"], item["shape"]
    return np.array(first, item["dtype"]).reshape([1, *shape[1:]] if isinstance(first, list) else [1] * len(shape))


def _port(item: Mapping[str, Any]) -> Port:
    late = item.get("latency")
    port = Port(item["name"], Fraction(item["rate"]), index(item["channels"]), index(item["frames"]))
    if late is None:
        return port
    return port._replace(
        algorithmic=Fraction(late["algorithmic_seconds"]),
        framing=Fraction(late["framing_seconds"]),
        host=index(late["host_frames"]),
    )


def _control(item: Mapping[str, Any]) -> ControlSpec:
    default = item["default"]
    low, high = (None if bound is None else float(bound) for bound in (item["min"], item["max"]))
    standard = None if default is None else tuple(map(float, default))
    # Manifests of before controls had units say nothing of them.
    return ControlSpec(index(item["channels"]), standard, low, high, str(item.get("unit", "")))
