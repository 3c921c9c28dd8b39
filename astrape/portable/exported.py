"""A folder that ``astrape export`` wrote: its manifest, checked, and its models."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from astrape.errors import ExportError
from astrape.portable.step import Array

__all__ = ["FORMAT", "MANIFEST", "VERSION", "ControlSpec", "Exported", "Port"]

FORMAT, VERSION, MANIFEST = "astrape-export", 1, "manifest.json"


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
    """A control: its number of channels, one default a channel or ``None``, and bounds or ``None``."""

    channels: int
    default: tuple[float, ...] | None
    minimum: float | None
    maximum: float | None


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
            self.batch: int = self.manifest["batch"]
            self.inputs = {item["name"]: _port(item) for item in self.manifest["inputs"]}
            self.outputs = {item["name"]: _port(item) for item in self.manifest["outputs"]}
            self.controls = {item["name"]: _control(item) for item in self.manifest["controls"]}
            self.files: dict[str, Mapping[str, Any]] = self.manifest["files"]
        except OSError as error:
            raise ExportError(f"{path}: {error.strerror or error}: name a folder that astrape export wrote") from error
        except (KeyError, TypeError, ValueError) as error:
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
            raise ExportError(f"{path}: {error.strerror or error}: export anew") from error
        if hashlib.sha256(content).hexdigest() != self.files[name]["sha256"]:
            raise ExportError(f"{path}: is not what was written, by its checksum: copy it again or export anew")
        return content

    def steps(self, form: str) -> Mapping[str, Any]:
        """What the manifest says of the step in one format, ``"onnx"`` or ``"aoti"``.

        Raises:
            ExportError: when it was not exported in that format.
        """
        found: Mapping[str, Any] | None = self.manifest.get(form)
        if found is None:
            raise ExportError(f"{self.folder}: holds no step for '{form}'; hint: export with --format {form}")
        return found

    def first_state(self) -> dict[str, Array]:
        """The state at time zero, by leaf."""
        state = {}
        for item in self.manifest["state"]:
            first, shape, dtype = item["first"], item["shape"], np.dtype(item["dtype"])
            state[item["name"]] = np.broadcast_to(np.array(first, dtype).reshape(_spread(first, shape)), shape).copy()
        return state


def _spread(first: Any, shape: list[int]) -> list[int]:
    """The shape in which first values are written down: one number for all, or those of a row."""
    return [1] * len(shape) if not isinstance(first, list) else [1, *shape[1:]]


def _port(item: Mapping[str, Any]) -> Port:
    late = item.get("latency")
    port = Port(item["name"], Fraction(item["rate"]), item["channels"], item["frames"])
    if late is None:
        return port
    return port._replace(
        algorithmic=Fraction(late["algorithmic_seconds"]),
        framing=Fraction(late["framing_seconds"]),
        host=late["host_frames"],
    )


def _control(item: Mapping[str, Any]) -> ControlSpec:
    default = item["default"]
    return ControlSpec(item["channels"], None if default is None else tuple(default), item["min"], item["max"])
