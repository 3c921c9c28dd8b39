"""Exports run as machine code: ``from astrape.runtime.aoti import AotiSession``.

A package is code. Whoever made it can do on this machine what you can, so load none but those of your own: a checksum
in the manifest tells damage, and says nothing about who wrote both.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astrape.blocks.live import denormals_flushed
from astrape.errors import ExportError
from astrape.graph.backends.aoti_packages import Family, this_family
from astrape.portable.engine import Array
from astrape.portable.exported import Exported, tensors_of
from astrape.portable.names import NEXT
from astrape.portable.session import ExportedSession
from astrape.wording import one_line

__all__ = ["AotiEngine", "AotiSession", "check_family", "facts_of"]

FACTS = "astrape"
"""Under which name a package says what it takes and gives."""


class AotiSession(ExportedSession):
    """A stream through an exported graph by its ahead-of-time compiled package, with PyTorch and without its compiler.

    ``push``, ``flush``, ``reset``, ``snapshot`` and ``restore`` are those of
    :class:`~astrape.runtime.portable.PortableSession`. Kernels have one thread; products take as many as PyTorch has
    (``torch.set_num_threads``), of which one is best on a machine that does other things too.

    Args:
        export: a folder of your own, as a package is code, or what :class:`~astrape.portable.exported.Exported` made
            of it. Every file is held against its checksum before anything of it is loaded.
        constant_latency: return exactly as many frames as were given, see
            :class:`~astrape.portable.session.ExportedSession`.

    Raises:
        ExportError: for a folder that is not an export, is damaged, holds no package, or one for other machines or
            another PyTorch.
    """

    def __init__(self, export: str | os.PathLike[str] | Exported, *, constant_latency: bool = False) -> None:
        found = export if isinstance(export, Exported) else Exported(export)
        steps = found.steps("aoti")
        check_family(found.folder, steps)
        controls = None if steps["controls"] is None else found.read(steps["controls"])
        try:
            engine = AotiEngine(found.manifest, found.read(steps["step"]), controls)
        except (RuntimeError, ValueError) as error:
            told = f"its package cannot be loaded ({one_line(error, 300)}); hint: export anew"
            raise ExportError(f"{found.folder}: {told}") from error
        super().__init__(found, engine, constant_latency)


class AotiEngine:
    """A step and what prepares it, from packages, with all memory of the state laid out beforehand.

    Args:
        manifest: of the export, which says what the packages take.
        step, controls: packages, whose checksums were looked at. They hold no check of what they are handed, and read
            and write beyond it where it is smaller than what they were compiled for. So they say what that was.

    Attributes:
        inputs, prepared, state: arrays by name. The state is written where it lies.
        outputs: arrays by name, new ones after each call.

    Raises:
        RuntimeError: for what is not a package.
        ValueError: for a package that takes or gives something else than the manifest says.
    """

    def __init__(self, manifest: Mapping[str, Any], step: bytes, controls: bytes | None) -> None:
        facts = facts_of(manifest)
        self._run = opened(step, facts)
        self._prepare = None if controls is None else opened(controls, facts)
        batch = manifest["batch"]
        inputs = {item["name"]: torch.zeros(batch, item["channels"], item["frames"]) for item in manifest["inputs"]}
        prepared = {item["name"]: _zeros(item) for item in manifest["prepared"]}
        state = {item["name"]: _zeros(item) for item in manifest["state"]}
        self.inputs, self.prepared = _arrays(inputs), _arrays(prepared)
        self._state = _arrays(state)
        self.outputs: Mapping[str, Array] = {}
        self._arguments = [*inputs.values(), *prepared.values(), *state.values()]
        self._names = [item["name"] for item in manifest["outputs"]]
        self._controls = [item["name"] for item in manifest["controls"]]

    @property
    def state(self) -> Mapping[str, Array]:
        """The present state by leaf: the arrays themselves. Set, its values are taken."""
        return self._state

    @state.setter
    def state(self, values: Mapping[str, Array]) -> None:
        for name, held in self._state.items():
            held[...] = values[name]

    def prepare(self, controls: Mapping[str, Array]) -> None:
        """Derive from all controls, ``(batch, channels)``, what the calls from now on take."""
        if self._prepare is None:
            return
        found = self._prepare([torch.from_numpy(controls[name]) for name in self._controls])
        for held, tensor in zip(self.prepared.values(), found, strict=True):
            held[...] = tensor.numpy()

    def run(self) -> None:
        """One call: from inputs and state to outputs and the next state."""
        with denormals_flushed():
            found = self._run(list(self._arguments))
        self.outputs = {name: tensor.numpy() for name, tensor in zip(self._names, found, strict=True)}


def facts_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """A package's metadata: its inputs and outputs in order, with types and shapes."""
    lines = [
        f"{name} {dtype} {'x'.join(map(str, shape))}"
        for name, (shape, dtype) in tensors_of(manifest).items()
        if not name.startswith(NEXT)
    ]
    return {FACTS: "; ".join(lines)}


def opened(package: bytes, facts: Mapping[str, str]) -> Callable[[list[Tensor]], Sequence[Tensor]]:
    """The function of a package: a list of tensors, which it empties, to a list of tensors.

    It is loaded from a copy of its own, so that what is run is what was checked.

    Raises:
        RuntimeError: for what is not a package.
        ValueError: for one that says other things of itself.
    """
    from torch._inductor import aoti_load_package

    with tempfile.TemporaryDirectory(prefix="astrape-") as folder:
        path = Path(folder) / "model.pt2"
        path.write_bytes(package)
        loaded = aoti_load_package(str(path))
    found, wanted = (each.split("; ") for each in (loaded.get_metadata().get(FACTS, ""), facts[FACTS]))
    if found != wanted:
        first = next(pair for pair in zip_longest(found, wanted, fillvalue="nothing") if pair[0] != pair[1])
        raise ValueError(f"it was compiled for {first[0] or 'nothing'!r}, and the manifest has {first[1]!r}")
    # Not its __call__, which reads how its arguments nest out of JSON at every call.
    run: Callable[[list[Tensor]], Sequence[Tensor]] = loaded.loader.boxed_run
    return run


def check_family(folder: Path, steps: Mapping[str, Any]) -> None:
    """Refuse packages for other machines than this one, or for another PyTorch.

    Raises:
        ExportError: with the field that differs.
    """
    here = this_family()
    try:
        made = Family(**steps["family"])
    except (LookupError, TypeError) as error:
        raise ExportError(f"{folder}: is damaged ({error}): export anew") from error
    for field, wanted, found in zip(Family._fields, made, here, strict=True):
        if wanted != found:
            raise ExportError(
                f"{folder}: its package is for {_said(made)}, and this is {_said(here)} ({field} {found}, not "
                f"{wanted}); hint: export with --format aoti here, or run its ONNX where it has one"
            )


def _said(family: Family) -> str:
    return f"{family.system} on {family.machine} with {family.capability} and torch {family.torch}"


def _zeros(item: Mapping[str, Any]) -> Tensor:
    dtype: torch.dtype = getattr(torch, item["dtype"])
    return torch.zeros(math.prod(item["shape"]), dtype=dtype).reshape(item["shape"])


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}
