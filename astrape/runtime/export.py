"""Exports: a graph's step as files that run without astrape's code, and without PyTorch."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import astrape
from astrape.audio.atomic import write_whole
from astrape.blocks.policy import COMPILER, PORTABLE
from astrape.errors import ExportError, StreamError
from astrape.graph.backends.aoti_packages import aoti_packages, need_compiler, this_family
from astrape.graph.backends.onnx_models import OPSET, onnx_models
from astrape.graph.backends.precision import with_halves
from astrape.graph.graph import Graph
from astrape.graph.quantum import Leaf, Quantum
from astrape.portable.engine import StepEngine
from astrape.portable.exported import FORMAT, MANIFEST, VERSION, Exported
from astrape.progress import Progress
from astrape.runtime.aoti import AotiEngine, facts_of
from astrape.wording import lacking

__all__ = ["FORMATS", "export"]

FORMATS = {"onnx": ("model.onnx", "controls.onnx"), "aoti": ("model.pt2", "controls.pt2")}
"""Formats of a step, and the files of the step and of what prepares it."""

CHECKED_SECONDS = 0.5
"""Length of the sound on which every export is compared with its graph before it is written."""

WORST_DB = -60.0
"""Distance from the graph's own step beyond which an export is taken for broken. Sound ones are at -100 dB and less."""

WORST_ROUNDED_DB = -40.0
"""The same where weights were rounded: defaults that ship must be at least this near."""

UNKNOWN = "unknown"


def export(
    graph: Graph[Any],
    folder: str | os.PathLike[str],
    *,
    quanta: int = 1,
    batch_size: int = 1,
    formats: Sequence[str] = ("onnx",),
    precision: str = "float32",
    about: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write a graph's streaming step to a folder, for ONNX Runtime anywhere, or as machine code for machines like this.

    ``manifest.json`` lists rates, frames of a step, latencies, state, controls, checksums. ``model.onnx``
    is one step with explicit state, and ``controls.onnx`` what the controls come to, run once per change; so a speaker
    changes without a new export. ``model.pt2`` and ``controls.pt2`` are the same, compiled ahead of time by
    AOTInductor, for the family of machines and the PyTorch that the manifest names. ``README.md`` says all that to
    people.

    Every step is held against the graph's own before anything is written.

    Args:
        graph: to export, in float32 on the CPU; its ``deploy()`` where it holds training-only nodes.
        folder: where to, made if it is missing. Another export in it is replaced.
        quanta: of the graph, in a step. Default 1: the least delay. More take less time each.
        batch_size: rows of a step.
        formats: ``"onnx"``, ``"aoti"`` or both. Default ONNX, which runs everywhere.
        precision: of weights in ONNX files: ``"float32"``, or ``"float16"``, which rounds parameters to it and takes
            half of the room. A runtime makes them float32 again as it loads them, and computes as before.
        about: what the weights say of themselves (:func:`astrape.graph.weights.weights_metadata`).
        progress: told seconds of work done, as far as that is known.

    Returns:
        The export, read back.

    Raises:
        ExportError: for a graph that a format cannot hold, one whose export differs from it, ``"aoti"`` without a C++
            compiler, and a precision that a format does not have.
        WriteError: for a folder that cannot be written.
    """
    target = Path(folder)
    _refuse_strangers(target)
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise ExportError(f"formats are {', '.join(FORMATS)}, not {', '.join(map(repr, unknown)) or 'none'}")
    _check_precision(precision, formats)
    if "aoti" in formats:
        need_compiler()
    tell = progress or (lambda done, whole: None)
    tell(0, None)
    own = Quantum(graph, batch_size, quanta)
    manifest = described(own, dict(about or {})) | {"precision": precision}
    files: dict[str, bytes] = {}
    for form in (name for name in FORMATS if name in formats):
        files |= _MADE_AS[form](own, manifest)
    files["README.md"] = _readme(manifest).encode()
    manifest["files"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    }
    # The manifest last: where it is, everything is.
    (target / MANIFEST).unlink(missing_ok=True)
    for name in {name for names in FORMATS.values() for name in names} - set(files):
        (target / name).unlink(missing_ok=True)
    for name, content in files.items():
        write_whole(target / name, content)
    write_whole(target / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return Exported(target)


def _as_onnx(own: Quantum, manifest: dict[str, Any]) -> dict[str, bytes]:
    """The files of ONNX by name; the manifest is told of them."""
    try:
        import onnx
        import onnxruntime

        from astrape.portable.step import OnnxEngine
    except ImportError as error:
        raise ExportError(lacking("format 'onnx'", str(error.name), "export")) from error
    halves = manifest["precision"] == "float16"
    try:
        graph = with_halves(own.graph) if halves else own.graph
    except StreamError as error:
        raise ExportError(str(error)) from error
    models = onnx_models(Quantum(graph, own.batch_size, own.quanta, PORTABLE), halves=halves)
    quantum = Quantum(own.graph, own.batch_size, own.quanta, PORTABLE)
    differences = _checked(quantum, OnnxEngine(models.step, models.controls), "onnx", rounded=halves)
    manifest["made_by"] |= {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    return _told(manifest, "onnx", models.step, models.controls, {"opset": OPSET, "difference_db": differences})


def _as_aoti(own: Quantum, manifest: dict[str, Any]) -> dict[str, bytes]:
    """The packages of AOTInductor by name; the manifest is told of them."""
    quantum = Quantum(own.graph, own.batch_size, own.quanta, COMPILER)
    packages = aoti_packages(quantum, facts_of(manifest))
    differences = _checked(quantum, AotiEngine(manifest, packages.step, packages.controls), "aoti")
    manifest["made_by"] |= {"compiler": need_compiler()}
    told = {"family": this_family()._asdict(), "difference_db": differences}
    return _told(manifest, "aoti", packages.step, packages.controls, told)


_MADE_AS = {"onnx": _as_onnx, "aoti": _as_aoti}


def _told(
    manifest: dict[str, Any], form: str, step: bytes, controls: bytes | None, told: dict[str, Any]
) -> dict[str, bytes]:
    names = FORMATS[form]
    manifest[form] = {"step": names[0], "controls": None if controls is None else names[1], **told}
    files = {names[0]: step}
    return files if controls is None else {**files, names[1]: controls}


def _check_precision(precision: str, formats: Sequence[str]) -> None:
    if precision == "int8":
        raise ExportError(
            "precision 'int8' is not there: it saves too little for what it costs, by the figures in docs/speed.md; "
            "hint: --precision float16"
        )
    if precision not in ("float32", "float16"):
        raise ExportError(f"precision must be float32 or float16, not {precision!r}")
    if precision == "float16" and "aoti" in formats:
        raise ExportError(
            "format 'aoti' has its weights as float32 alone; hint: --precision float16 with --format onnx"
        )


def _checked(quantum: Quantum, engine: StepEngine, form: str, rounded: bool = False) -> dict[str, float]:
    """Distances from the graph by output, none of them beyond what is sound."""
    differences = compared(quantum, engine)
    port, worst = max(differences.items(), key=lambda item: item[1])
    if rounded and not worst <= WORST_ROUNDED_DB:
        raise ExportError(
            f"'{quantum.graph.name}' with weights rounded to float16 differs too much: '{port}' by {worst:.0f} dB (at "
            f"most {WORST_ROUNDED_DB:g}); hint: --precision float32"
        )
    if not rounded and not worst <= WORST_DB:
        raise ExportError(
            f"'{quantum.graph.name}' exported as {form} differs from the graph: '{port}' by {worst:.0f} dB (at most "
            f"{WORST_DB:g}). This is a fault of astrape: please report the recipe"
        )
    return {name: round(db, 1) for name, db in differences.items()}


def compared(quantum: Quantum, engine: StepEngine) -> dict[str, float]:
    """The distance of an exported step from the graph's, by output, in dB of the output's power.

    Both begin each step from the same state: phases that are summed up over time would drift apart on any two
    machines. The graph steps as in ``graph.step``, so that the policy of the export is measured too.
    """
    own = Quantum(quantum.graph, quantum.batch_size, quantum.quanta)
    generator = torch.Generator().manual_seed(0)
    names = [leaf.name for leaf in own.outputs]
    noise, power = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    with torch.no_grad():
        values = own.some_controls()
        prepared, state = own.prepare(values), own.first_state()
        engine.prepare({name: value.numpy() for name, value in values.items()})
        for inputs in _sounds(own, generator):
            engine.state = {name: tensor.numpy() for name, tensor in state.items()}
            for name, tensor in inputs.items():
                engine.inputs[name][...] = tensor.numpy()
            engine.run()
            outputs, state = own(inputs, prepared, state)
            for name, tensor in outputs.items():
                wanted = tensor.double().numpy()
                noise[name] += float(np.square(wanted - engine.outputs[name]).sum())
                power[name] += float(np.square(wanted).sum())
    # Where an output is silent throughout, against a full scale of 1.
    return {name: 10 * math.log10(noise[name] / (power[name] or 1.0) + 1e-30) for name in noise}


def described(quantum: Quantum, about: dict[str, str]) -> dict[str, Any]:
    """The manifest, without its files and formats."""
    graph = quantum.graph
    framings, hosts = quantum.framings, quantum.host_latencies
    late = {
        name: {
            "algorithmic_seconds": str(graph.latencies[name]),
            "framing_seconds": str(framings[name]),
            "host_seconds": str(Fraction(hosts[name]) / stream.rate),
            "host_frames": hosts[name],
            "host_ms": round(float(hosts[name] / stream.rate * 1000), 3),
        }
        for name, stream in graph.outputs.items()
    }
    first = quantum.first_state()
    return {
        "format": FORMAT,
        "version": VERSION,
        "recipe": graph.name,
        "made_by": {"astrape": astrape.__version__, "torch": torch.__version__},
        "licence": about.get("licence", UNKNOWN),
        "model_card": about.get("card", UNKNOWN),
        "weights": about,
        "precision": "float32",
        "batch": quantum.batch_size,
        "step_seconds": str(quantum.period),
        "inputs": [
            {"name": name, "rate": str(stream.rate), "channels": stream.channels, "frames": leaf.shape[-1]}
            for (name, stream), leaf in zip(graph.inputs.items(), quantum.inputs, strict=True)
        ],
        "outputs": [
            {
                "name": name,
                "rate": str(stream.rate),
                "channels": stream.channels,
                "frames": leaf.shape[-1],
                "latency": late[name],
            }
            for (name, stream), leaf in zip(graph.outputs.items(), quantum.outputs, strict=True)
        ],
        "controls": [
            {
                "name": name,
                "channels": spec.channels,
                "default": None if spec.default is None else list(spec.default),
                "min": spec.minimum,
                "max": spec.maximum,
                "unit": spec.unit,
            }
            for name, spec in graph.control_specs.items()
        ],
        "prepared": [_leaf(leaf) for leaf in quantum.prepared],
        "state": [{**_leaf(leaf), "first": _first(first[leaf.name])} for leaf in quantum.state],
    }


def _sounds(quantum: Quantum, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
    """Inputs of half a second: a voice-like hum with noise where there is one channel, noise elsewhere."""
    steps = max(3, min(200, math.ceil(CHECKED_SECONDS / quantum.period)))
    for step in range(steps):
        inputs = {}
        for leaf, stream in zip(quantum.inputs, quantum.graph.inputs.values(), strict=True):
            sound = 0.05 * torch.randn(leaf.shape, generator=generator)
            if stream.channels == 1 and stream.rate >= 4000:
                time = (step * leaf.shape[-1] + torch.arange(leaf.shape[-1], dtype=torch.float64)) / float(stream.rate)
                turns = 120 * time - torch.cos(2 * math.pi * time)
                sound = 0.01 * sound + (0.4 * (turns % 1 - 0.5)).float()
            inputs[leaf.name] = sound
        yield inputs


def _leaf(leaf: Leaf) -> dict[str, Any]:
    return {"name": leaf.name, "shape": list(leaf.shape), "dtype": str(leaf.dtype).removeprefix("torch.")}


def _first(tensor: Tensor) -> Any:
    """First values: one number where all are alike, else those of a row, as rows all begin alike."""
    if bool((tensor == tensor.flatten()[0]).all()):
        return tensor.flatten()[0].item()
    return tensor[0].tolist()


def _refuse_strangers(target: Path) -> None:
    """Nothing of anybody else is replaced."""
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise ExportError(f"{target}: is a folder with other things in it: name a new one, or one of an older export")
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target}: is not a folder: name a new one")


def _readme(manifest: Mapping[str, Any]) -> str:
    formats = [form for form in FORMATS if form in manifest]
    rows = [
        f"| `{port['name']}` | {port['rate']} Hz | {port['channels']} | {port['frames']} | "
        f"{port['latency']['host_ms']:g} ms ({port['latency']['host_frames']} frames) | "
        + " | ".join(f"{manifest[form]['difference_db'][port['name']]:g} dB" for form in formats)
        + " |"
        for port in manifest["outputs"]
    ]
    inputs = ", ".join(
        f"`{port['name']}` ({port['channels']} at {port['rate']} Hz, {port['frames']} frames a step)"
        for port in manifest["inputs"]
    )
    controls = [
        f"- `{control['name']}`: {control['channels']} channels, "
        + ("must be given" if control["default"] is None else f"default {control['default'][0]:g}")
        + ("" if control["min"] is None else f", at least {control['min']:g}")
        + ("" if control["max"] is None else f", at most {control['max']:g}")
        + (f", in {control['unit']}" if control["unit"] else "")
        for control in manifest["controls"]
    ]
    lines = [
        f"# {manifest['recipe']}, exported",
        "",
        f"Made by astrape {manifest['made_by']['astrape']}. Licence of the weights: {manifest['licence']}. "
        f"Model card: {manifest['model_card']}.",
        "",
        f"Input: {inputs}.",
        "",
        "| output | rate | channels | frames a step | latency | "
        + " | ".join(f"differs from the graph by, {form}" for form in formats)
        + " |",
        "|---" * (5 + len(formats)) + "|",
        *rows,
        "",
        "Controls:" if controls else "It listens to no controls.",
        *controls,
        "",
    ]
    if "onnx" in manifest:
        lines += [
            "```python",
            "from astrape.runtime.portable import PortableSession      # numpy and onnxruntime alone",
            "",
            'session = PortableSession("this folder", constant_latency=True)',
            "y = session.push(block)                                    # (batch, channels, any number of frames)",
            "```",
            "",
            "Without astrape: `manifest.json` has everything. Fill `prepared.*` of `model.onnx` with what "
            "`controls.onnx` gives for `control.*`, once per change; then run `model.onnx` per step, `next.*` of one "
            "being `state.*` of the one after it.",
            "",
        ]
    if "aoti" in manifest:
        family = manifest["aoti"]["family"]
        lines += [
            f"`model.pt2` is machine code, for {family['system']} on {family['machine']} with {family['capability']} "
            f"and torch {family['torch']}: load it only if this folder is your own. "
            "`astrape.runtime.aoti.AotiSession` takes the folder as `PortableSession` does.",
            "",
        ]
    return "\n".join(lines)
