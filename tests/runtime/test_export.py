"""Exports: what is in them, what is refused, and recipes beside their sessions."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

import astrape
from astrape.errors import ExportError
from astrape.portable.exported import Exported
from astrape.runtime.export import export
from astrape.runtime.portable import PortableSession
from tests.runtime.exports import SPEAKER, STATED_DB, decibels, small, streamed

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def folder(onnx_export: Path) -> Path:
    return onnx_export


def test_a_manifest_of_before_there_were_units_still_loads(folder: Path, tmp_path: Path) -> None:
    older = shutil.copytree(folder, tmp_path / "older")
    manifest = json.loads((older / "manifest.json").read_text())
    for control in manifest["controls"]:
        del control["unit"]
    (older / "manifest.json").write_text(json.dumps(manifest))
    assert {name: spec.unit for name, spec in Exported(folder).controls.items()} == {"level": "x", "speaker": ""}
    assert [spec.unit for spec in Exported(older).controls.values()] == ["", ""]
    assert set(PortableSession(older).export.controls) == {"level", "speaker"}


def noise(frames: int, seed: int = 0) -> np.ndarray:
    return 0.3 * np.random.default_rng(seed).standard_normal((2, 1, frames)).astype(np.float32)


def test_the_manifest_says_what_the_graph_says(folder: Path) -> None:
    graph, manifest = small(), json.loads((folder / "manifest.json").read_text())
    assert (manifest["recipe"], manifest["licence"], manifest["model_card"]) == ("small", "CC0", "card.md")
    assert manifest["inputs"] == [{"name": "mic", "rate": "8000", "channels": 1, "frames": graph.consumes["mic"]}]
    for port, (name, stream) in zip(manifest["outputs"], graph.outputs.items(), strict=True):
        assert (port["name"], Fraction(port["rate"]), port["frames"]) == (name, stream.rate, graph.produces[name])
        late = port["latency"]
        assert Fraction(late["algorithmic_seconds"]) == graph.latencies[name]
        # The first frame of a step waits for the last of its input.
        assert Fraction(late["framing_seconds"]) == graph.period - 1 / stream.rate
        aged = graph.latencies[name] + graph.period - 1 / stream.rate
        assert late["host_frames"] == math.ceil(aged * stream.rate)
    assert [(c["name"], c["channels"], c["default"], c["min"], c["max"], c["unit"]) for c in manifest["controls"]] == [
        ("level", 1, [0.5], 0.0, 2.0, "x"),
        ("speaker", 4, None, None, None, ""),
    ]
    assert "default 0.5, at least 0, at most 2, in x\n" in (folder / "README.md").read_text()
    state = onnxruntime.InferenceSession(folder / "model.onnx").get_inputs()
    shapes = {item.name.removeprefix("state."): item.shape for item in state if item.name.startswith("state.")}
    assert {item["name"]: item["shape"] for item in manifest["state"]} == shapes
    assert all(db < STATED_DB for db in manifest["onnx"]["difference_db"].values())
    # An export holds no more frames back than its steps take in.
    assert not any(path.name.startswith(".") for path in folder.iterdir())


def test_a_graph_for_a_host_at_another_rate_is_exported_like_any(tmp_path: Path) -> None:
    """Its resamplers are in the step, and its latency is the hosted graph's own, in frames of the host."""
    hosted = small().hosted(16000)
    made = export(hosted, tmp_path / "hosted")
    assert made.inputs["mic"].rate == 16000
    assert {name: port.algorithmic for name, port in made.outputs.items()} == hosted.latencies
    x = noise(9000)[:1]
    got = streamed(PortableSession(made), x, 700, speaker=SPEAKER)
    want = streamed(hosted.stream(), x, 500, speaker=torch.tensor(SPEAKER))
    assert got["wav"].shape[-1] > 8000
    assert decibels(got["wav"], want["wav"][..., : got["wav"].shape[-1]]) < STATED_DB


def test_halves_take_half_of_the_room_and_are_the_rounded_graph(folder: Path, tmp_path: Path) -> None:
    """The graph has weights that float16 holds and others; what it does not hold is rounded, and tables stay whole."""
    graph = small()
    whole = Exported(folder)
    made = export(graph, tmp_path / "halves", precision="float16")
    assert (whole.manifest["precision"], made.manifest["precision"]) == ("float32", "float16")
    types = [
        {TensorProto.DataType.Name(held.data_type): np.prod(held.dims) for held in onnx.load(path).graph.initializer}
        for path in (folder / "model.onnx", tmp_path / "halves" / "model.onnx")
    ]
    assert "FLOAT16" not in types[0]
    assert "FLOAT16" in types[1]
    for parameter in graph.parameters():
        parameter.data = parameter.data.half().float()
    x = noise(900)[:1]
    got = streamed(PortableSession(tmp_path / "halves"), x, 77, speaker=SPEAKER)
    want = streamed(graph.stream(), x, 77, speaker=torch.tensor(SPEAKER))
    for name, y in got.items():
        assert decibels(y, want[name][..., : y.shape[-1]]) < STATED_DB
    # What the manifest states is measured against the weights as they were.
    assert max(made.manifest["onnx"]["difference_db"].values()) > max(whole.manifest["onnx"]["difference_db"].values())


@pytest.mark.parametrize(
    ("precision", "formats", "message"),
    [
        ("int8", ["onnx"], "saves too little .* hint: --precision float16"),
        ("float16", ["onnx", "aoti"], "float32 alone; hint: --precision float16 with --format onnx"),
        ("half", ["onnx"], "precision must be float32 or float16, not 'half'"),
    ],
)
def test_precisions_that_are_not_there_are_told(
    tmp_path: Path, precision: str, formats: list[str], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export(small(), tmp_path / "out", precision=precision, formats=formats)
    assert not (tmp_path / "out").exists()


def test_a_weight_beyond_float16_is_named(tmp_path: Path) -> None:
    graph = small()
    name, parameter = next(iter(graph.named_parameters()))
    parameter.data.view(-1)[0] = 1e6
    with pytest.raises(ExportError, match=f"'{name}' has a weight of 1e\\+06, and float16 ends at 65504"):
        export(graph, tmp_path / "out", precision="float16")


def damaged(folder: Path, target: Path, change) -> Path:
    shutil.copytree(folder, target)
    change(target)
    return target


def edited(change):
    """The manifest changed by a function, and all checksums made to fit what is there."""

    def edit(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        made = change(manifest)
        manifest = made if isinstance(made, list) else manifest
        for name in list(manifest["files"]) if isinstance(manifest, dict) else ():
            if (path / name).is_file():
                manifest["files"][name]["sha256"] = hashlib.sha256((path / name).read_bytes()).hexdigest()
        (path / "manifest.json").write_text(json.dumps(manifest))

    return edit


def swapped(path: Path) -> None:
    """Two models that are sound, each in the place of the other."""
    one, other = (path / name for name in ("model.onnx", "controls.onnx"))
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)
    edited(lambda m: None)(path)


def cut(path: Path) -> None:
    model = path / "model.onnx"
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    edited(lambda m: None)(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "manifest.json").unlink(), "No such file"),
        (lambda p: (p / "manifest.json").write_text("{"), "is damaged"),
        (lambda p: (p / "manifest.json").write_text('{"format": "zip", "version": 1}'), "not the manifest of an exp"),
        (lambda p: (p / "manifest.json").write_text('{"format": "astrape-export", "version": 9}'), "is of version 9"),
        (lambda p: (p / "controls.onnx").unlink(), "controls.onnx: No such file"),
        (lambda p: (p / "model.onnx").write_bytes((p / "model.onnx").read_bytes()[:-1] + b"x"), "by its checksum"),
        (cut, "its models cannot be loaded"),
        (swapped, "its models cannot be loaded|is not what the manifest tells of"),
        (edited(lambda m: [m]), "is damaged"),
        (edited(lambda m: m["inputs"][0].update(rate="8000/0")), "is damaged"),
        (edited(lambda m: m["inputs"][0].update(channels=1.5)), "is damaged"),
        (edited(lambda m: m["outputs"][0]["latency"].update(host_frames=-1)), "is damaged .*'wav'"),
        (edited(lambda m: m["files"].update({"../model.onnx": m["files"]["model.onnx"]})), "not a file of this folder"),
        (edited(lambda m: m["onnx"].update(step="other.onnx")), "'other.onnx' is not among its files"),
        (edited(lambda m: m["state"][0].update(first=float("nan"))), "state '.*' begins with what is not finite"),
        (edited(lambda m: m["state"][0].update(first=[1, 2, 3])), "is damaged"),
        (edited(lambda m: m["state"].pop()), "model.onnx: is not what the manifest tells of, which has no 'next"),
        (edited(lambda m: m["inputs"][0].update(frames=7)), r"'input.mic' is float32 \(2, 1, 8\), not .*\(2, 1, 7\)"),
        (edited(lambda m: m["controls"][1].update(channels=9)), r"'control.speaker' is float32 \(2, 4\), not"),
        (edited(lambda m: m["outputs"][0].update(name="sound")), "'output.sound' is not there"),
    ],
)
def test_a_damaged_export_is_refused(folder: Path, tmp_path: Path, change, message: str) -> None:
    with pytest.raises(ExportError, match=message) as told:
        PortableSession(damaged(folder, tmp_path / "copy", change))
    assert "\n" not in str(told.value)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match="other things in it"):
        export(small(), tmp_path)
    with pytest.raises(ExportError, match="takes float32"):
        export(small().double(), tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


HIDDEN = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        allowed = {"numpy", "onnxruntime", "astrape"}
        first = name.partition(".")[0]
        if first not in allowed and first not in sys.stdlib_module_names and first not in STARTED:
            raise ModuleNotFoundError(f"{name} is hidden", name=name)

STARTED = {name.partition(".")[0] for name in sys.modules} - {"torch"}
sys.meta_path.insert(0, Hidden())
import numpy as np
from astrape.runtime.portable import PortableSession
session = PortableSession(sys.argv[1], constant_latency=True)
x = np.load(sys.argv[2])
parts = [session.push(x[..., at:at + 64], speaker=[0.3, -0.2, 0.1, 0.9])["wav"] for at in range(0, x.shape[-1], 64)]
np.save(sys.argv[3], np.concatenate(parts, axis=-1))
assert "torch" not in sys.modules and "click" not in sys.modules
"""


def test_it_runs_where_there_is_nothing_but_numpy_and_onnxruntime(folder: Path, tmp_path: Path) -> None:
    x = noise(640)
    np.save(tmp_path / "x.npy", x)
    arguments = [sys.executable, "-c", HIDDEN, str(folder), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    subprocess.run(arguments, check=True, timeout=120)
    want = streamed(PortableSession(folder, constant_latency=True), x, 100, speaker=SPEAKER)
    assert np.array_equal(np.load(tmp_path / "y.npy"), want["wav"])


MADE = ["de-esser", "denoiser", "echo", "multirate", "robot-voice", "room", "voice-changer"]
"""Recipes whose blocks have all kinds of operators: running maxima, bounds, powers of matrices, delays, spectra."""


def test_recipes_that_are_left_out_have_no_other_blocks() -> None:
    def kinds(name: str) -> set[str]:
        return {node.use for node in astrape.load(name).nodes.values()}

    tried = set().union(*map(kinds, MADE))
    assert kinds("dry-wet") | kinds("nested-voice") <= tried


@pytest.mark.parametrize("name", MADE)
def test_recipes_without_weights_sound_as_their_sessions(tmp_path: Path, name: str) -> None:
    graph = astrape.load(name)
    export(graph, tmp_path / name, quanta=max(1, round(Fraction(1, 100) / graph.period)))
    portable, session = PortableSession(tmp_path / name), graph.stream()
    port = next(iter(graph.inputs))
    rate = graph.inputs[port].rate
    x = 0.3 * np.random.default_rng(1).standard_normal((1, graph.inputs[port].channels, int(rate))).astype(np.float32)
    x[..., x.shape[-1] // 3 : x.shape[-1] // 2] = 0
    got, want = streamed(portable, x, 3000, 5), streamed(session, x, 3000, 5)
    # An oscillator's phase is a sum, whose last bits differ: see docs/export.md.
    stated = -100.0 if name == "robot-voice" else STATED_DB
    for y, wanted in zip(got.values(), want.values(), strict=True):
        assert y.shape[-1] > 0
        assert decibels(y, wanted[..., : y.shape[-1]]) < stated
