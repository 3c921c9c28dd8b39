"""Ahead-of-time compiled exports: what is in them, who refuses them, and the voice that ships."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

import astrape
from astrape.cli import cli
from astrape.errors import ExportError
from astrape.graph.backends.aoti_packages import this_family
from astrape.portable.exported import Exported
from astrape.runtime.aoti import AotiSession
from astrape.runtime.export import export
from astrape.runtime.portable import PortableSession
from astrape.voice.shipped import shipped_voices
from astrape.voice.voicebank import read_voicebank
from tests.runtime.exports import STATED_DB, decibels, minute_of_speech, skip_without_compiler, small, streamed
from tests.runtime.runners import build_runner

pytestmark = pytest.mark.timeout(1800)
"""Compiling takes half a minute of computing, on a machine that may do ten other things."""


@pytest.fixture(scope="module")
def folder(aoti_export: Path) -> Path:
    return aoti_export


def test_the_manifest_names_the_machines(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["aoti"]["family"] == this_family()._asdict()
    assert set(manifest["files"]) == {"model.pt2", "controls.pt2", "README.md"}
    assert "onnx" not in manifest
    assert all(db < STATED_DB for db in manifest["aoti"]["difference_db"].values())
    with pytest.raises(ExportError, match="holds no step for 'onnx'; hint: export with --format onnx"):
        PortableSession(folder)


def copied(folder: Path, target: Path, **changes: str) -> Path:
    shutil.copytree(folder, target)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["aoti"]["family"] |= changes
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


@pytest.mark.parametrize("open_export", [str, lambda path: Exported(path, check=False)])
def test_a_package_with_another_checksum_is_not_loaded(folder: Path, tmp_path: Path, open_export: Callable) -> None:
    """This one could be loaded: it is a package, with something behind it."""
    other = copied(folder, tmp_path / "copy")
    for name in ("model.pt2", "controls.pt2"):
        whole = (folder / name).read_bytes()
        (other / name).write_bytes((folder / "model.pt2").read_bytes() if name == "controls.pt2" else whole + b"x")
        with pytest.raises(ExportError, match=f"{name}: is not what was written, by its checksum"):
            AotiSession(open_export(other))
        (other / name).write_bytes(whole)
    AotiSession(open_export(other))


def renamed(manifest: dict[str, Any]) -> None:
    manifest["outputs"][0]["name"] = "sound"


def shorter(manifest: dict[str, Any]) -> None:
    manifest["inputs"][0]["frames"] = 1


def fewer(manifest: dict[str, Any]) -> None:
    manifest["controls"][1]["channels"] = 3


def without(manifest: dict[str, Any]) -> None:
    manifest["state"].pop()


def homeless(manifest: dict[str, Any]) -> None:
    del manifest["aoti"]["family"]["torch"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (renamed, r"'output.wav float32 2x\d+x\d+', and the manifest has 'output.sound float32"),
        (shorter, "it was compiled for 'input.mic float32 2x1x8', and the manifest has 'input.mic float32 2x1x1'"),
        (fewer, "it was compiled for 'control.speaker float32 2x4', and the manifest has 'control.speaker .* 2x3'"),
        (without, "it was compiled for 'state.*, and the manifest has 'output.wav"),
        (homeless, "is damaged .*torch"),
    ],
)
def test_a_package_of_another_step_than_the_manifest_tells_of_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    """It would read and write beyond what it is handed."""
    other = copied(folder, tmp_path / "copy")
    manifest = json.loads((other / "manifest.json").read_text())
    change(manifest)
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match=said) as told:
        AotiSession(other)
    assert "\n" not in str(told.value)


def test_half_a_package_is_refused_in_a_line(folder: Path, tmp_path: Path) -> None:
    """With a checksum that fits."""
    other = copied(folder, tmp_path / "copy")
    half = (folder / "model.pt2").read_bytes()[: (folder / "model.pt2").stat().st_size // 2]
    (other / "model.pt2").write_bytes(half)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["files"]["model.pt2"]["sha256"] = hashlib.sha256(half).hexdigest()
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match=r"its package cannot be loaded \(.*\); hint: export anew") as told:
        AotiSession(other)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("torch", "2.12.1"), ("capability", "AVX9"), ("machine", "aarch64"), ("system", "Darwin")],
)
def test_another_machine_or_torch_is_refused_with_the_reason(
    folder: Path, tmp_path: Path, field: str, value: str
) -> None:
    found = getattr(this_family(), field)
    with pytest.raises(ExportError, match=rf"its package is for .*\({field} {found}, not {value}\); hint: export with"):
        AotiSession(copied(folder, tmp_path / "copy", **{field: value}))


def test_a_machine_that_can_do_less_refuses(folder: Path) -> None:
    """PyTorch is told that it runs on a processor without AVX."""
    code = f"from astrape.runtime.aoti import AotiSession; AotiSession({str(folder)!r})"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"(capability DEFAULT, not {this_family().capability})" in done.stderr


def test_without_a_compiler_one_line_says_what_to_do(tmp_path: Path) -> None:
    skip_without_compiler()
    with torch._inductor.config.patch({"cpp.cxx": (None, str(tmp_path / "no-such-compiler"))}):
        done = CliRunner().invoke(cli, ["export", "echo", "--format", "onnx,aoti", "-o", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "needs a C++ compiler, and there is none that runs; hint: apt install g++" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_unknown_format_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["export", "echo", "--format", "onnx,tflite", "-o", str(tmp_path / "out")])
    assert done.exit_code != 0
    assert "'tflite'" in done.stderr
    with pytest.raises(ExportError, match="formats are onnx, aoti, not none"):
        export(small(), tmp_path / "out", formats=[])


@pytest.fixture(scope="module")
def mini(tmp_path_factory) -> Path:
    skip_without_compiler()
    path = tmp_path_factory.mktemp("exports") / "astrape-mini"
    export(astrape.load("astrape-mini"), path, formats=["onnx", "aoti"])
    return path


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return minute_of_speech()


@pytest.mark.slow
def test_a_minute_of_speech_comes_out_as_from_a_session(mini: Path, speech: np.ndarray) -> None:
    """Another voice half way. Its noise makes words of 64 bits, which wrap around: see ``aoti_packages``."""
    session, compiled = astrape.load("astrape-mini").stream(chunk=441), AotiSession(mini)
    halves = np.split(speech, 2, axis=-1)
    got: dict[str, list[np.ndarray]] = {}
    want: dict[str, list[np.ndarray]] = {}
    for seed, (half, name) in enumerate(zip(halves, ("emma", "michael"), strict=True)):
        controls = {"speaker": read_voicebank(shipped_voices()[name]).embedding, "register": 110.0 + 90 * seed}
        found = streamed(compiled, half, 3000, seed, **controls)
        wanted = streamed(session, half, 442, seed, **{key: torch.as_tensor(v) for key, v in controls.items()})
        for key in found:
            got.setdefault(key, []).append(found[key])
            want.setdefault(key, []).append(wanted[key])
    whole, others = ({key: np.concatenate(parts, axis=-1) for key, parts in each.items()} for each in (got, want))
    assert whole["wav"].shape == others["wav"].shape
    assert np.mean((whole["f0"] > 0) != (others["f0"] > 0)) < 1e-3
    assert decibels(whole["content"], others["content"]) < -100
    # The phase of the pulses is a sum over time of F0, whose last bits differ: see docs/export.md.
    turns = np.cumsum(whole["f0"].astype(float) - others["f0"].astype(float)) / 100
    assert np.abs(turns).max() < 1e-2
    assert decibels(whole["wav"][..., :44100], others["wav"][..., :44100]) < -40


@pytest.mark.slow
def test_the_runner_in_cpp_gives_what_the_loader_in_python_gives(
    mini: Path, speech: np.ndarray, tmp_path: Path
) -> None:
    """To the last bit, in blocks at random, by both engines of one command."""
    runner = build_runner("onnx aoti")
    x = speech[..., : 20 * 44100 + 123]
    soundfile.write(tmp_path / "in.wav", x[0, 0], 44100, subtype="FLOAT")
    voice = shipped_voices()["michael"]
    controls = {"speaker": read_voicebank(voice).embedding, "register": 110.0}
    for engine, made in (("aoti", AotiSession(mini)), ("onnx", PortableSession(mini))):
        pushed, rest = streamed(made, x, 442, **controls), made.flush()
        want = np.concatenate((pushed["wav"], rest["wav"]), axis=-1)[0, 0, 1764:]
        out = tmp_path / f"{engine}.wav"
        words = [mini, tmp_path / "in.wav", out, "--voice", voice, "--set", "register=110", "--block", "0"]
        subprocess.run([str(runner), *map(str, words), "--engine", engine], check=True)
        got = soundfile.read(out, dtype="float32")[0]
        assert got.shape == want.shape == x[0, 0].shape
        assert np.array_equal(got, want) if engine == "aoti" else decibels(got, want) < -100


@pytest.mark.slow
def test_the_runner_in_cpp_refuses_other_machines_and_changed_packages(
    mini: Path, speech: np.ndarray, tmp_path: Path
) -> None:
    runner = build_runner("onnx aoti")
    soundfile.write(tmp_path / "in.wav", speech[0, 0, :4410], 44100, subtype="FLOAT")

    def refusal(folder: Path) -> str:
        words = [folder, tmp_path / "in.wav", tmp_path / "out.wav", "--voice", shipped_voices()["emma"]]
        command = [str(runner), *map(str, words), "--engine", "aoti"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "hint: " in done.stderr
        return done.stderr

    for field, value in (("torch", "2.12.1"), ("capability", "AVX9"), ("machine", "aarch64"), ("system", "Darwin")):
        told = refusal(copied(mini, tmp_path / field, **{field: value}))
        assert f"({field} {value}, and here it is {getattr(this_family(), field)})" in told
    shorter = copied(mini, tmp_path / "shorter")
    manifest = json.loads((shorter / "manifest.json").read_text())
    manifest["inputs"][0]["frames"] = 100
    (shorter / "manifest.json").write_text(json.dumps(manifest))
    assert "its package was compiled for another step than this manifest tells of" in refusal(shorter)
    changed = copied(mini, tmp_path / "changed")
    (changed / "model.pt2").write_bytes((mini / "model.pt2").read_bytes() + b"x")
    assert "model.pt2: is not what was written, by its checksum" in refusal(changed)
