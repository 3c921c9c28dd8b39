"""The page in a real browser: Chromium hears a file as its microphone, and what comes back is heard and told."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import soundfile

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"),
    pytest.mark.timeout(240),
]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser takes for its microphone."""
    path = tmp_path_factory.mktemp("studio") / "speech.wav"
    with resources.as_file(resources.files("astrape.recipes") / "audio" / "sense-and-sensibility.flac") as source:
        samples, rate = soundfile.read(source)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [sys.executable, "-m", "astrape", "studio", "--no-browser", "--recipe", "robot-voice"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130)


def test_a_page_speaks_and_tells_its_latency(address: str, speech: Path) -> None:
    flags = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    flags += [f"--use-file-for-fake-audio-capture={speech}", "--autoplay-policy=no-user-gesture-required"]
    complaints: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_context(permissions=["microphone"], viewport={"width": 390, "height": 844}).new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        # Nothing lies beyond a phone's edge.
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.click("#start")
        page.locator("#status:has-text('You are heard')").wait_for(timeout=120_000)
        page.locator("#db-out:has-text('dB')").wait_for(timeout=120_000)
        assert page.inner_text("#graph").endswith(" ms")
        page.keyboard.press("d")
        assert page.get_attribute("#dry", "aria-pressed") == "true"
        page.keyboard.press("r")
        page.wait_for_timeout(3000)
        page.keyboard.press("r")
        with page.expect_download() as saved:
            page.click("#saved")
        heard, _ = soundfile.read(io.BytesIO(Path(saved.value.path()).read_bytes()))
        page.evaluate("document.querySelector('[data-control=drive]').value = 30")
        page.dispatch_event("[data-control=drive]", "input")
        page.click("#start")
        assert page.inner_text("#start") == "Start"
        browser.close()
    assert len(heard) > 0
    assert np.abs(heard).max() > 0.01
    assert not complaints
