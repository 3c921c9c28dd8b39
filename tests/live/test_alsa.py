"""Devices of ALSA through PortAudio's own code for it.

The card has no hardware and is compiled here. One program has it at a time, it runs at one rate, and a file that
appears pulls it out.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.live.test_card import ended

pytest.importorskip("sounddevice", reason="needs the extra 'live'", exc_type=(ImportError, OSError))

pytestmark = pytest.mark.timeout(600)

SLOWNESS = 4
"""Times that a second of the card lasts, so that a busy machine loses nothing."""


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
    """The folder of a card ``usb``, beside which there are another and a broken one."""
    lines = [f'pcm_type.astrape_card {{ lib "{library}" }}']
    # PortAudio ends the process where it finds every device that is configured: one has to be broken.
    for name in ("usb", "line", "broken"):
        if name != "broken":
            (tmp_path / name).mkdir()
        lines.append(f'pcm.{name} {{ type astrape_card folder "{tmp_path / name}" slowness {SLOWNESS} }}')
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


def test_what_another_program_has_is_not_listed_and_the_command_says_so(usb: Path) -> None:
    listed = json.loads(run("astrape", "live", "--list-devices", "--json").stdout)
    assert [device["name"] for device in listed] == ["usb", "line"]
    with (usb / "out").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        table = run("astrape", "live", "--list-devices").stdout
        refused = run("astrape", "live", "--output", "usb")
    (row,) = (line for line in table.splitlines() if " usb " in line)
    assert " / -" in row
    assert "-1000" not in row
    assert refused.returncode == 1
    assert (
        "there is no output device 'usb': hint: there is: 1 line; what another program has to itself" in refused.stderr
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
        while not (usb / "out").exists() or _free(usb / "out"):
            time.sleep(0.1)
        for _ in range(2):
            before = {words: errors.read_text().count(words) for words in before}
            (usb / "gone").touch()
            wait_for("is gone: waiting")
            before = {words: errors.read_text().count(words) for words in before}
            (usb / "gone").unlink()
            wait_for("it is back")
        process.send_signal(signal.SIGINT)
        assert process.wait(120) in (0, 130)


def _free(file: Path) -> bool:
    """Whether nobody has the card."""
    with file.open() as mine:
        try:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


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
    both, one = ["usb, ALSA", "line, ALSA"], ["line, ALSA"]
    assert done.stdout.splitlines() == [f"{names} {names}" for names in (both, one, both)]
