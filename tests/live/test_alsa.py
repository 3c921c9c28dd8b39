"""Devices of ALSA through PortAudio's own code for it.

The cards have no hardware and are compiled here. One program has each at a time, each runs at one rate, and a file that
appears pulls one out.
"""

from __future__ import annotations

import fcntl
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

import astrape
from tests.live.test_card import ended

pytest.importorskip("sounddevice", reason="needs the extra 'live'", exc_type=(ImportError, OSError))

pytestmark = pytest.mark.timeout(600)

SLOWNESS = 4
"""Times that a second of the card lasts, so that a busy machine loses nothing."""

RATES = {"usb": 48000, "line": 48000, "slow": 44100, "broken": 48000}
"""Hz, at which each card runs and no other."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None or not Path("/usr/include/alsa/pcm_ioplug.h").is_file():
        pytest.skip("no C compiler with ALSA's headers (Debian: libasound2-dev)")
    built = tmp_path_factory.mktemp("card") / "card.so"
    source = Path(__file__).with_name("card.c")
    subprocess.run(["cc", "-O2", "-fPIC", "-shared", "-DPIC", "-o", built, source, "-lasound"], check=True)
    return built


@pytest.fixture
def usb(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a card ``usb``, beside which there are others and a broken one."""
    lines = [f'pcm_type.astrape_card {{ lib "{library}" }}']
    # PortAudio ends the process where it finds every device that is configured: one has to be broken.
    for name, rate in RATES.items():
        if name != "broken":
            (tmp_path / name).mkdir()
        card = f'type astrape_card folder "{tmp_path / name}" slowness {SLOWNESS} rate {rate}'
        lines.append(f"pcm.{name} {{ {card} }}")
    (tmp_path / "alsa.conf").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "alsa.conf"))
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "usb"


def run(*line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *line], capture_output=True, text=True, check=False)


def said(usb: Path, what: str) -> dict[str, Any]:
    done = run("tests.live.through_alsa", str(usb), what)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("what", "kind", "words", "cause"),
    [
        ("busy", "busy", "'usb' is in use by another program: hint: close", "-9985"),
        ("denied", "gone", "'usb' cannot be opened: gone, or not yours to open: hint: .*group audio", "-9993"),
        ("gone", "gone", "'usb' cannot be opened: gone, or not yours", "-9993"),
    ],
)
def test_what_happens_to_a_device_after_it_was_listed_is_told(
    usb: Path, what: str, kind: str, words: str, cause: str
) -> None:
    told = said(usb, what)
    assert set(told) == {"checked", "opened"}
    for found, line, error in told.values():
        assert found == kind
        assert re.search(words, line), line
        # It is PortAudio's own error that was read.
        assert error.startswith("PortAudioError(")
        assert cause in error


def test_a_rate_that_is_refused_is_resampled_to_the_devices(usb: Path) -> None:
    told = said(usb, "rate")
    assert told["kind"] == "48000"
    assert "44100 Hz is refused by the devices: they run at 48000 Hz, and the graph is resampled" in told["line"]


def test_devices_without_a_common_rate_speak_and_the_input_is_resampled(usb: Path, tmp_path: Path) -> None:
    """The oracle is scipy's resampler on what the card of 44.1 kHz gives, and the graph on what the engine heard."""
    rng = np.random.default_rng(0)
    slow = RATES["slow"]
    x = scipy.signal.sosfilt(scipy.signal.butter(8, 2000, fs=slow, output="sos"), rng.uniform(-1, 1, 6 * slow))
    x.astype("<f4").tofile(tmp_path / "slow" / "sound")
    asked = ["--input", "slow", "--output", "usb"]
    listed = run("astrape", "live", "--list-devices", *asked).stdout
    resampled = "'slow' runs at 44100 Hz and is resampled to the 48000 Hz of 'usb'"
    assert f"as asked for, 'slow' at 44100 Hz to 'usb' at 48000 Hz\n{resampled}\n" in listed
    files = [tmp_path / "heard.wav", tmp_path / "spoken.wav"]
    options = ["--seconds", "5", "--json", "--record", ",".join(map(str, files))]
    done = run("astrape", "live", *asked, "--recipe", "robot-voice", *options)
    assert done.returncode == 0, done.stderr
    assert f"astrape: {resampled}\n" in done.stderr
    facts = json.loads(done.stdout)
    assert (facts["rate_in"], facts["rate"], facts["block"]) == (44100, 48000, 480)
    # Half the filter: 48 periods of the lower rate, in whole frames of the output's.
    assert facts["resampling_frames"] == math.ceil(Fraction(48 * 48000, 44100)) == 53
    # What is told holds the resampler, both devices' blocks and half the bridge's filter.
    assert facts["device_in"] > facts["resampling_frames"] + 2 * 480
    assert facts["total_frames"] == facts["device_in"] + facts["latency"] + facts["device_out"]
    (heard, _), (spoken, rate) = (soundfile.read(file, dtype="float32") for file in files)
    assert rate == 48000
    graph = astrape.load("robot-voice").hosted(rate)
    whole = graph(torch.from_numpy(np.pad(heard, (0, -len(heard) % graph.quantum)))[None, None])[0, 0].numpy()
    shift = facts["latency"] - math.ceil(graph.latency * rate)
    if facts["dropouts"] == 0:
        expected = np.concatenate((np.zeros(shift, np.float32), whole))[: len(spoken)]
        np.testing.assert_allclose(spoken, np.clip(expected, -1, 1), rtol=0, atol=2e-4)
    # Where clocks are looked for, and where a busy machine has lost some frames, the delay moves: 10 ms at a time.
    sound = scipy.signal.resample_poly(x, 160, 147)
    alike = []
    for begin in range(rate, len(heard) - 480, 4800):
        part = heard[begin : begin + 480]
        near = sound[max(0, begin - rate) : begin + 480]
        power = np.sqrt(np.convolve(near**2, np.ones(480), "valid")) * np.linalg.norm(part)
        alike.append(np.max(np.correlate(near, part, "valid") / np.maximum(power, 1e-9)))
    assert len(alike) > 20
    assert np.median(alike) > 0.98


def test_an_output_that_stops_calling_is_noticed_though_the_input_goes_on(usb: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "astrape", "live", "--input", "slow", "--output", "usb", "--recipe", "robot-voice"]
    errors = tmp_path / "errors"
    with errors.open("w") as writing, ended(subprocess.Popen(line, stderr=writing, text=True)) as process:
        while not (usb / "began_out").exists():
            assert process.poll() is None, errors.read_text()
            time.sleep(0.1)
        (usb / "gone").touch()
        while "is gone: waiting" not in errors.read_text():
            assert process.poll() is None, errors.read_text()
            time.sleep(0.1)
        (usb / "gone").unlink()
        while "it is back" not in errors.read_text():
            assert process.poll() is None, errors.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) in (0, 130)


def test_what_another_program_has_is_not_listed_and_the_command_says_so(usb: Path) -> None:
    listed = json.loads(run("astrape", "live", "--list-devices", "--json").stdout)
    assert [device["name"] for device in listed] == ["usb", "line", "slow"]
    with (usb / "out").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        table = run("astrape", "live", "--list-devices").stdout
        refused = run("astrape", "live", "--output", "usb")
    (row,) = (line for line in table.splitlines() if " usb " in line)
    assert " / -" in row
    assert "-1000" not in row
    assert refused.returncode == 1
    assert (
        "there is no output device 'usb': hint: choose from: 1 line; 2 slow; what another program has to itself"
        in refused.stderr
    )


def test_a_card_that_is_pulled_out_is_waited_for(usb: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "astrape", "live", "--input", "usb", "--output", "usb", "--recipe", "robot-voice"]
    errors = tmp_path / "errors"
    with errors.open("w") as writing, ended(subprocess.Popen(line, stderr=writing, text=True)) as process:

        def wait_for(words: str) -> None:
            """Until it is said once more than before."""
            while errors.read_text().count(words) <= before[words]:
                assert process.poll() is None, errors.read_text()
                time.sleep(0.1)

        before = {"is gone: waiting": 0, "it is back": 0}
        while not (usb / "began_out").exists():
            assert process.poll() is None, errors.read_text()
            time.sleep(0.1)
        for weak in (False, False, True, False):
            before = {words: errors.read_text().count(words) for words in before}
            (usb / "gone").touch()
            wait_for("is gone: waiting")
            before = {words: errors.read_text().count(words) for words in before}
            if weak:
                # Back, and out again as it starts.
                (usb / "weak").touch()
                (usb / "gone").unlink()
                while not (usb / "gone").exists():
                    assert process.poll() is None, errors.read_text()
                    time.sleep(0.1)
                (usb / "weak").unlink()
            (usb / "gone").unlink()
            wait_for("it is back")
        process.send_signal(signal.SIGINT)
        assert process.wait(120) in (0, 130)


def test_a_card_that_is_pulled_out_as_it_starts_ends_the_command_and_not_the_page(usb: Path) -> None:
    (usb / "weak").touch()
    done = run("astrape", "live", "--input", "usb", "--output", "usb", "--recipe", "robot-voice")
    assert done.returncode == 1
    assert "astrape: 'usb' is gone: hint: plug it in again" in done.stderr
    (usb / "gone").unlink()
    script = """
from astrape.errors import AstrapeError
from astrape.studio.card import CardSpeaker
from astrape.voice.live import LiveVoice
for _ in range(2):
    try:
        CardSpeaker(LiveVoice("robot-voice"), "usb", "usb").open()
    except AstrapeError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pulled out as it began, and this process cannot reach another: hint: end") == 2


def test_the_page_lists_what_is_there_now(usb: Path) -> None:
    script = """
import pathlib, sys
from starlette.testclient import TestClient
from astrape.studio.server import Studio
from astrape.voice.live import LiveVoice
gone = pathlib.Path(sys.argv[1]) / "gone"
page = TestClient(Studio(lambda: LiveVoice("robot-voice"), token="t").app, base_url="http://127.0.0.1:1")
for there in (True, False, True):
    gone.unlink(missing_ok=True) if there else gone.touch()
    told = page.get("/devices?token=t").json()
    print([name for _, name in told["inputs"]], [name for _, name in told["outputs"]])
"""
    done = subprocess.run([sys.executable, "-c", script, usb], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    both, one = ["usb, ALSA", "line, ALSA", "slow, ALSA"], ["line, ALSA", "slow, ALSA"]
    assert done.stdout.splitlines() == [f"{names} {names}" for names in (both, one, both)]
