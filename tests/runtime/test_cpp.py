"""The C++ runner: built here, beside a session on real speech, and what it says to what it cannot run."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import astrape
from astrape.audio.whole import read_mono
from astrape.blocks import Stream
from astrape.blocks.resample import Resampler
from astrape.voice.shipped import shipped_voices
from astrape.voice.voicebank import read_voicebank
from tests.runtime.exports import decibels, minute_of_speech, streamed
from tests.runtime.runners import BUILD, MISSING, ROOT, build_runner, can_build

SECONDS = 5

pytestmark = [pytest.mark.timeout(900), pytest.mark.skipif(not can_build(), reason=MISSING)]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BUILD / "astrape-run"), *map(str, words)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """Build the runner from the source as it is now."""
    build_runner("onnx")


@pytest.fixture(scope="module")
def folder(mini_export: Path) -> Path:
    return mini_export


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    """A WAV whose length is not a whole number of steps."""
    with resources.as_file(resources.files("astrape.recipes") / "audio" / "sense-and-sensibility.flac") as path:
        samples, rate = read_mono(path)
    whole = Resampler(Stream(rate, 1), rate=44100)(torch.from_numpy(samples)[None, None])
    wav = tmp_path_factory.mktemp("speech") / "in.wav"
    soundfile.write(wav, whole[0, 0, : SECONDS * 44100 + 123].numpy(), 44100, subtype="FLOAT")
    return wav


def test_speech_comes_out_as_from_a_session(folder: Path, speech: Path, tmp_path: Path) -> None:
    """Whole, in step with the input, for blocks at random; the bounds are those of the runner in Python."""
    voice = shipped_voices()["michael"]
    session = astrape.load("astrape-mini").stream(chunk=441)
    x = soundfile.read(speech, dtype="float32")[0][None, None]
    controls = {"speaker": torch.tensor(read_voicebank(voice).embedding), "register": torch.tensor(110.0)}
    pushed, rest = streamed(session, x, 442, **controls), session.flush()
    late = {"wav": 1764, "content": 3, "f0": 2}
    got, want = {}, {}
    for name, frames in late.items():
        want[name] = np.concatenate((pushed[name], rest[name].numpy()), axis=-1)[0, :, frames:]
        out = tmp_path / f"{name}.wav"
        done = run(folder, speech, out, "--voice", voice, "--set", "register=110", "--block", 0, "--output", name)
        assert done.returncode == 0, done.stderr
        got[name] = soundfile.read(out, dtype="float32", always_2d=True)[0].T
        assert got[name].shape == want[name].shape
    assert got["wav"].shape[-1] == x.shape[-1]
    assert np.array_equal(got["f0"] > 0, want["f0"] > 0)
    assert decibels(got["content"], want["content"]) < -100
    assert decibels(got["f0"], want["f0"]) < -110
    assert decibels(got["wav"][..., :44100], want["wav"][..., :44100]) < -40


@pytest.mark.slow
def test_a_minute_of_speech_comes_out_as_from_a_session(folder: Path, tmp_path: Path) -> None:
    voice, x = shipped_voices()["michael"], minute_of_speech()
    soundfile.write(tmp_path / "in.wav", x[0, 0], 44100, subtype="FLOAT")
    session = astrape.load("astrape-mini").stream(chunk=441)
    controls = {"speaker": torch.tensor(read_voicebank(voice).embedding), "register": torch.tensor(110.0)}
    pushed, rest = streamed(session, x, 442, **controls), session.flush()
    found = {}
    for name, frames in {"wav": 1764, "content": 3, "f0": 2}.items():
        want = np.concatenate((pushed[name], rest[name].numpy()), axis=-1)[0, :, frames:]
        out = tmp_path / f"{name}.wav"
        words = ["--voice", voice, "--set", "register=110", "--block", 0, "--output", name]
        done = run(folder, tmp_path / "in.wav", out, *words)
        assert done.returncode == 0, done.stderr
        found[name] = soundfile.read(out, dtype="float32", always_2d=True)[0].T, want
        assert found[name][0].shape == want.shape
    got, want = found["f0"]
    assert np.mean((got > 0) != (want > 0)) < 1e-3
    assert decibels(*found["content"]) < -100
    # The phase of the pulses is a sum over time of F0, whose last bits differ: see docs/export.md.
    assert np.abs(np.cumsum(got.astype(float) - want.astype(float)) / 100).max() < 1e-2
    got, want = found["wav"]
    assert decibels(got[..., :44100], want[..., :44100]) < -40


def test_live_is_as_long_as_its_input_and_late_by_what_it_says(folder: Path, speech: Path, tmp_path: Path) -> None:
    voice = ("--voice", shipped_voices()["emma"])
    assert run(folder, speech, tmp_path / "whole.wav", *voice).returncode == 0
    for block in (0, 1, 100, 441):
        done = run(folder, speech, tmp_path / "live.wav", *voice, "--live", "--block", block)
        assert done.returncode == 0, done.stderr
        assert "2204 frames late" in done.stdout
        whole, live = (soundfile.read(tmp_path / name, dtype="float32")[0] for name in ("whole.wav", "live.wav"))
        assert live.shape == whole.shape
        # The first step's output is that of an age before the input began, and before it there is silence.
        assert not live[:440].any()
        assert np.array_equal(live[2204:], whole[: len(live) - 2204])


def test_a_voice_brings_its_register(folder: Path, speech: Path, tmp_path: Path) -> None:
    voice = shipped_voices()["michael"]
    register = read_voicebank(voice).metadata.median_f0_hz
    assert register is not None
    made = []
    for words in ([], ["--set", f"register={register!r}"], ["--set", "register=110"]):
        done = run(folder, speech, tmp_path / "out.wav", "--voice", voice, *words)
        assert done.returncode == 0, done.stderr
        made.append(soundfile.read(tmp_path / "out.wav")[0])
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_a_voice_that_was_changed_or_is_of_another_encoder_is_refused(
    folder: Path, speech: Path, tmp_path: Path
) -> None:
    whole = shipped_voices()["emma"].read_bytes()
    at = whole.index(b'"median_f0_hz":') + len(b'"median_f0_hz":')
    for place in (60, at):  # in the embedding, and in what is said of it
        content = bytearray(whole)
        content[place] ^= 1
        (tmp_path / "changed.astrape").write_bytes(content)
        done = run(folder, speech, tmp_path / "out.wav", "--voice", tmp_path / "changed.astrape")
        refused(done, "is not what was written, by its checksum", tmp_path)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["weights"]["speaker_encoder"] = "miocodec"
    (other / "manifest.json").write_text(json.dumps(manifest))
    done = run(other, speech, tmp_path / "out.wav", "--voice", shipped_voices()["emma"])
    refused(done, "and 'astrape-mini' takes voices of 'miocodec'", tmp_path)


@pytest.mark.skipif(not Path("/lib64/ld-linux-x86-64.so.2").exists(), reason="counts by glibc's own names")
@pytest.mark.parametrize("engine", ["SILENT", "ONNX"])
def test_a_push_takes_no_memory_after_warm_up(folder: Path, tmp_path: Path, engine: str) -> None:
    """None of the session's own; what ONNX Runtime takes for a call it gives back."""
    program, cpp = tmp_path / "count", ROOT / "runners" / "cpp"
    parts = [BUILD / "libastrape.a", BUILD / "libonnxruntime.so.1", "-lcrypto", f"-Wl,-rpath,{BUILD}"]
    source = Path(__file__).parent / "count_allocations.cpp"
    command = ["c++", "-std=c++17", "-O1", f"-D{engine}", f"-I{cpp}", source, *parts, "-o", program]
    subprocess.run(list(map(str, command)), check=True)
    done = subprocess.run([str(program), str(folder)], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["constant"] for row in rows] == [False, True]
    for row in rows:
        if engine == "SILENT":
            assert (row["allocations"], row["growth"]) == (0, 0)
        else:
            assert row["growth"] < 1 << 16


def test_blocks_of_any_size_give_the_same_file(folder: Path, speech: Path, tmp_path: Path) -> None:
    made = []
    for block in (0, 1, 441, 100_000):
        out = tmp_path / f"{block}.wav"
        done = run(folder, speech, out, "--voice", shipped_voices()["emma"], "--block", block)
        assert done.returncode == 0, done.stderr
        made.append(soundfile.read(out)[0])
    assert np.abs(made[0]).max() > 0.01
    assert all(np.array_equal(made[0], other) for other in made[1:])


def test_from_a_nan_on_the_input_is_silence(folder: Path, speech: Path, tmp_path: Path) -> None:
    x = soundfile.read(speech, dtype="float32")[0]
    made = []
    for value in (np.nan, 0.0):
        x[44100:] = [value, *np.full(len(x) - 44101, 0.1 if np.isnan(value) else 0.0)]
        soundfile.write(tmp_path / "bad.wav", x, 44100, subtype="FLOAT")
        done = run(folder, tmp_path / "bad.wav", tmp_path / "out.wav", "--voice", shipped_voices()["emma"])
        assert done.returncode == 0, done.stderr
        assert ("warning" in done.stderr) == bool(np.isnan(value))
        made.append(soundfile.read(tmp_path / "out.wav")[0])
    assert np.array_equal(*made)


def without_model(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def flipped(folder: Path) -> None:
    content = bytearray((folder / "controls.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "controls.onnx").write_bytes(content)


def edited(**changes: object):
    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | changes))

    return edit


def cut(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (without_model, "model.onnx: cannot be read"),
        (flipped, "controls.onnx: is not what was written, by its checksum"),
        (edited(version=9), "is of version 9, and this reads version 1"),
        (edited(format="other"), "is not the manifest of an export"),
        (edited(batch=2), "has 2 rows"),
        (edited(state=[]), "is damaged"),
        (edited(onnx={"step": "README.md", "controls": None}), "is damaged"),
        (cut, "is damaged"),
        (shutil.rmtree, "manifest.json: cannot be read"),
    ],
)
def test_a_broken_export_is_told_in_one_line(folder: Path, speech: Path, tmp_path: Path, harm, message: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    harm(broken)
    refused(run(broken, speech, tmp_path / "out.wav", "--voice", shipped_voices()["emma"]), message, tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "control 'speaker' (128 channels) has no value"),
        (["--set", "speaker=1,2"], "control 'speaker' has 2 values; hint: give 128"),
        (["--set", "speaker=1", "--set", "register=5"], "control 'register' is 5.0; hint: give at least 40.0"),
        (["--set", "speaker=1", "--set", "pitch=nan"], "control 'pitch' is not finite"),
        (["--set", "speaker=1", "--set", "volume=1"], "unknown control 'volume'"),
        (["--set", "speaker=1x"], "'1x' is not a number"),
        (["--voice", __file__], "is not a whole voice"),
        (["--output", "video"], "has no output 'video'"),
        (["--block", "-3"], "--block is -3"),
    ],
)
def test_wrong_use_is_told_in_one_line(folder: Path, speech: Path, tmp_path: Path, words: list[str], message) -> None:
    refused(run(folder, speech, tmp_path / "out.wav", *words), message, tmp_path)


@pytest.mark.parametrize("kind", ["rate", "stereo", "cut", "none", "open"])
def test_a_wrong_wav_is_told_in_one_line(folder: Path, speech: Path, tmp_path: Path, kind: str) -> None:
    wav, noise = tmp_path / "wrong.wav", np.zeros((4410, 2), np.float32)
    if kind == "rate":
        soundfile.write(wav, noise[:, 0], 48000)
    elif kind == "stereo":
        soundfile.write(wav, noise, 44100)
    elif kind == "open":
        content = bytearray(speech.read_bytes())
        at = content.index(b"data") + 4
        content[at : at + 4] = bytes(4)
        wav.write_bytes(content)
    else:
        wav.write_bytes(speech.read_bytes()[: 100_000 if kind == "cut" else 5])
    told = {"rate": "has 48000 Hz, and 'astrape-mini' takes 44100 Hz", "stereo": "has 2 channels", "cut": "is cut off"}
    told["open"] = "does not say how long it is"
    done = run(folder, wav, tmp_path / "out.wav", "--voice", shipped_voices()["emma"])
    refused(done, told.get(kind, "wrong.wav: "), tmp_path)


def refused(done: subprocess.CompletedProcess[str], message: str, folder: Path) -> None:
    assert done.returncode == 1
    assert message in done.stderr
    assert "hint: " in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(folder.glob("out.wav*"))
