"""The plugin in two hosts, offline: what comes out is what a session of the same package gives, as late as it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import astrape
from astrape.portable.session import PortableSession
from astrape.runtime.export import export
from astrape.voice.shipped import shipped_voices
from astrape.voice.voicebank import read_voicebank
from tests.runtime.plugins import BUNDLES, WIRE, decibels, host, package, speech, spoken

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not BUNDLES.is_dir(), reason="no plugin is built: `make plugin` does, on Debian and as root"),
]

RATES = (44100, 48000, 88200, 96000)
NEAR_DB = -100.0
"""Distance of the plugin from a session: both run the same model on the same version of ONNX Runtime."""


@pytest.mark.parametrize("rate", RATES)
def test_speech_comes_out_as_from_a_session_as_late_as_the_report_says(rate: int) -> None:
    """At every rate, in step with what went in once the host has taken off what the plugin reports."""
    x = speech(rate, 2.0)
    got = host("process", rate=rate, sound=np.stack((x, x)), block=1024, parameters={"voice": "michael"})
    assert got["latency"] == astrape.load("astrape-mini").hosted(rate).host_samples
    assert np.array_equal(got["sound"][0], got["sound"][1])
    assert decibels(got["sound"][0], spoken(x, rate, "michael")) < NEAR_DB


@pytest.mark.parametrize(("worker", "steps"), [("off", 0), ("on", 1), ("when needed", 1)])
def test_a_worker_makes_it_one_step_later_and_nothing_else(worker: str, steps: int) -> None:
    x = speech(48000, 1.0)
    got = host("process", rate=48000, sound=np.stack((x, x)), block=64, parameters={"worker": worker})
    assert got["latency"] == astrape.load("astrape-mini").hosted(48000).host_samples + steps * 480
    assert decibels(got["sound"][0], spoken(x, 48000, "emma")) < NEAR_DB


@pytest.mark.parametrize("worker", ["off", "on"])
def test_blocks_of_any_size_give_the_same_bits(worker: str) -> None:
    """Blocks of 3 to 8192 frames, drawn anew each; of one frame, of a prime number, and the largest."""
    x = speech(44100, 1.0)
    sound = np.stack((x, 0.5 * x))
    values = {"worker": worker, "seed": 0}
    raw = host("raw", rate=44100, sound=sound, parameters=values)
    made = raw["sound"][:, raw["latency"] :]
    assert np.abs(made).max() > 0.01
    for block in (1, 443, 8192):
        part = sound[:, :12000] if block == 1 else sound
        other = host("process", rate=44100, sound=part, block=block, parameters=values)["sound"]
        # Where one host has the sound's end, the other goes on.
        length = min(other.shape[1] - raw["latency"], made.shape[1])
        assert np.array_equal(made[:, :length], other[:, :length])


def test_sides_are_summed_or_each_speaks() -> None:
    left, right = speech(44100, 1.0), np.roll(speech(44100, 1.0), 7000)
    sound = np.stack((left, right))
    summed = host("process", rate=44100, sound=sound, block=1024)["sound"]
    each = host("process", rate=44100, sound=sound, block=1024, parameters={"sides": "each"})["sound"]
    assert np.array_equal(summed[0], summed[1])
    assert decibels(summed[0], spoken(0.5 * (left + right), 44100, "emma")) < NEAR_DB
    assert decibels(each[0], spoken(left, 44100, "emma")) < NEAR_DB
    assert decibels(each[1], spoken(right, 44100, "emma")) < NEAR_DB


def test_one_channel_has_a_plugin_of_its_own() -> None:
    x = speech(44100, 1.0)
    got = host("process", plugin="astrape-mono", rate=44100, sound=x[None], block=1024)
    assert decibels(got["sound"][0], spoken(x, 44100, "emma")) < NEAR_DB


def test_parameters_reach_the_recipe_and_mix_and_gain_are_exact() -> None:
    x = speech(44100, 1.0)
    sound = np.stack((x, x))
    values = {"pitch_semitones": -12.0, "register_hz": 200.0, "seed": 0}
    got = host("process", rate=44100, sound=sound, block=1024, parameters=values)
    # A host holds parameters as numbers from 0 to 1.
    real = {name: got["parameters"][name] for name in values}
    wanted = spoken(x, 44100, "emma", pitch=real["pitch_semitones"], register=real["register_hz"])
    assert decibels(got["sound"][0], wanted) < -40
    assert decibels(got["sound"][0], spoken(x, 44100, "emma")) > -10
    dry = host("process", rate=44100, sound=sound, block=1024, parameters={"mix": 0.0})["sound"]
    assert np.array_equal(dry, sound)
    bypassed = host("process", rate=44100, sound=sound, block=1024, parameters={"bypass": True, "output_gain_db": 12.0})
    assert np.array_equal(bypassed["sound"], sound)
    louder = host("process", rate=44100, sound=sound, block=1024, parameters={"mix": 0.0, "output_gain_db": 6.0})
    gain = 10 ** (louder["parameters"]["output_gain_db"] / 20)
    assert np.allclose(louder["sound"], gain * sound, rtol=1e-3)


def test_names_of_parameters_stay() -> None:
    """Sessions of hosts and their automation hold on to them: a change here is a change for users."""
    assert host("list")["names"] == [
        "latency_frames", "bypass", "voice", "pitch_semitones", "mix", "output_gain_db", "sides", "worker", "package",
        *(f"control_{number}" for number in range(1, 9)), "register_hz", "seed", "status", "late_steps", "load",
    ]  # fmt: skip


def test_automation_is_heard_from_the_next_step_on() -> None:
    """Pitch jumps in the middle: a session whose pitch jumps at that step gives the same."""
    x = speech(44100, 1.0)
    jump, step = 44100 // 2, 441
    got = host("automated", rate=44100, sound=np.stack((x, x)), block=441, jump=jump)
    session = PortableSession(package(44100), constant_latency=True)
    bank = read_voicebank(shipped_voices()["emma"])
    session.push(np.zeros((1, 1, 0), np.float32), speaker=bank.embedding, register=bank.metadata.median_f0_hz)
    at = jump // step * step
    first = session.push(x[None, None, :at], pitch=0.0)["wav"]
    rest = session.push(x[None, None, at:], pitch=12.0)["wav"]
    want = np.concatenate((first, rest), axis=-1)[0, 0]
    assert decibels(got["sound"][0][: len(want)], want) < -60


def test_bypass_fades_from_the_voice_to_the_sound_as_it_came() -> None:
    """In a straight line over 10 ms, beginning with the block, and both equally late."""
    x = speech(44100, 1.0)
    sound, begins = np.stack((x, x)), 22016
    request = {"rate": 44100, "sound": sound, "block": 64, "jump": begins, "what_moves": "Bypass"}
    wet = host("automated", **request, values=[0.0, 0.0])
    got = host("automated", **request, values=[0.0, 1.0])["sound"][0]
    late = wet["latency"]
    dry = np.concatenate((np.zeros(late, np.float32), x))[: len(got)]
    spoken_so = wet["sound"][0][: len(got)]
    ramp = np.clip(1 - (np.arange(len(got)) - begins + 1) / 441, 0, 1)
    assert np.abs(spoken_so - dry)[begins : begins + 441].max() > 0.01
    assert np.allclose(got, dry + ramp * (spoken_so - dry), atol=1e-5)
    assert np.array_equal(got[begins + 441 :], dry[begins + 441 :])


def test_state_comes_back_where_files_lie_elsewhere(tmp_path: Path) -> None:
    """A voice of one's own keeps its number when another comes before it, and a missing one is told."""
    folder, moved, other = (tmp_path / name for name in ("first", "second", "third"))
    for path in (folder, moved / "deep", other):
        path.mkdir(parents=True)
    voices = shipped_voices()
    shutil.copy(voices["george"], folder / "mine.astrape")
    shutil.copy(voices["george"], moved / "deep" / "mine.astrape")
    shutil.copy(voices["heart"], moved / "deep" / "another.astrape")
    x = speech(44100, 1.0)
    sound = np.stack((x, x))
    values = {"voice": "mine", "pitch_semitones": 3.0}
    saved = host("process", rate=44100, sound=sound, block=1024, parameters=values, folders=folder, save=True)
    again = host("process", rate=44100, sound=sound, block=1024, state=saved["state"], folders=moved)
    assert np.array_equal(again["sound"], saved["sound"])
    gone = host("process", rate=44100, sound=sound, block=1024, state=saved["state"], folders=other)
    assert "voice 'mine' is not there, sound passes through; hint: copy mine.astrape to " in gone["told"]
    assert np.array_equal(gone["sound"], sound)


def broken(tmp_path: Path, harm: str) -> Path:
    """A copy of the bundle whose package is harmed."""
    bundle = tmp_path / "astrape.vst3"
    shutil.copytree(BUNDLES / "vst3" / "astrape.vst3", bundle)
    folder = bundle / "Contents" / "Resources" / "packages" / "astrape-mini-44100"
    if harm == "gone":
        shutil.rmtree(folder.parent)
    elif harm == "flipped":
        content = bytearray((folder / "model.onnx").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "model.onnx").unlink()
        (folder / "model.onnx").write_bytes(content)
    elif harm == "foreign":
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(json.dumps(json.loads(text) | {"batch": 2}))
    elif harm == "cut":
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(text[:1000])
    return bundle


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("gone", "no package of 'astrape-mini' is there"),
        ("flipped", "model.onnx: is not what was written, by its checksum"),
        ("foreign", "has 2 rows and 1 inputs"),
        ("cut", "is damaged or none of ours"),
    ],
)
def test_a_broken_package_lets_sound_through_and_says_why(tmp_path: Path, harm: str, message: str) -> None:
    x = speech(44100, 0.5)
    sound = np.stack((x, x))
    got = host("process", plugin=broken(tmp_path, harm), rate=44100, sound=sound, block=1024)
    assert np.array_equal(got["sound"], sound)
    assert got["latency"] == 0
    assert message in got["told"]
    assert "hint: " in got["told"]


def test_a_rate_that_no_package_has_is_told() -> None:
    x = speech(32000, 0.5)
    got = host("process", rate=32000, sound=np.stack((x, x)), block=1024)
    assert np.array_equal(got["sound"], np.stack((x, x)))
    assert "the host runs at 32000 Hz" in got["told"]
    assert "astrape export astrape-mini --rate 32000 -o " in got["told"]


def test_another_recipe_runs_from_a_folder_and_its_latency_is_told(tmp_path: Path) -> None:
    """One without voices, with controls that the plugin has no names for."""
    folder = tmp_path / "robot"
    command = [sys.executable, "-m", "astrape", "export", "robot-voice", "--rate", "44100", "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    x = speech(44100, 1.0)
    values = {"package": "robot-voice"}
    got = host("process", rate=44100, sound=np.stack((x, x)), block=1024, parameters=values, folders=tmp_path)
    session = PortableSession(folder, constant_latency=True)
    late = session.export.outputs["wav"].host
    want = session.push(np.concatenate((x, np.zeros(late, np.float32)))[None, None])["wav"][0, 0, late:]
    assert decibels(got["sound"][0], want) < NEAR_DB
    assert got["latency"] == late


def test_a_package_that_is_chosen_amid_sound_is_faded_over_to_and_is_as_late_as_it_says(tmp_path: Path) -> None:
    """It is loaded by a thread: when it comes is not told here, but what is heard in the end is."""
    graph = astrape.compile(WIRE)
    export(graph, tmp_path / "wire")
    x = speech(44100, 1.0)
    request = {"parameter": "package", "value": "wire", "rounds": 12, "folders": tmp_path}
    got = host("switched", rate=44100, sound=np.stack((x, x)), **request)
    assert np.isfinite(got["sound"]).all()
    end, length = got["sound"][0][-got["size"] :], got["size"]
    around = np.concatenate((x[:length], x[:length]))
    want = around[length - graph.host_samples : 2 * length - graph.host_samples]
    assert decibels(end, want) < -40
    assert got["latency"] == graph.host_samples


def test_two_plugins_do_not_hear_each_other_and_another_rate_starts_anew() -> None:
    """In one process, in turns; silence stays quiet; and the rate of the host changes while a plugin is active."""
    x = speech(44100, 1.0)
    request = {"sound": np.stack((x, x)), "rates": (44100, 48000), "block": 1050, "voices": ("emma", "michael")}
    got = host("together", **request)
    late = got["latency"]
    assert late == [astrape.load("astrape-mini").hosted(rate).host_samples for rate in (44100, 48000)]
    # This host takes off what the plugin reports from what comes first.
    for heard, voice in zip(got["turns"], ("emma", "michael"), strict=True):
        assert decibels(heard[0, -(len(x) - late[0]) :], spoken(x, 44100, voice)[: len(x) - late[0]]) < NEAR_DB
    # What was said last is still on its way; after that the noise of a voice that says nothing.
    assert np.isfinite(got["silence"]).all()
    assert np.abs(got["silence"][0, 22050:]).max() < 0.01 < np.abs(x).max()
    # The same samples, as if they were of the other rate.
    assert decibels(got["sound"][0, -(len(x) - late[1]) :], spoken(x, 48000, "emma")[: len(x) - late[1]]) < NEAR_DB


def test_something_not_finite_is_silent_and_does_no_harm() -> None:
    x = speech(44100, 1.0)
    x[22050] = np.nan
    got = host("process", rate=44100, sound=np.stack((x, x)), block=512)
    assert np.isfinite(got["sound"]).all()
    assert "the input was not finite and is silent from there on; hint: " in got["told"]
