"""The page in a real browser: Chromium hears a file as its microphone, and what comes back is heard and told."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording that the browser plays as its microphone."""
    path = tmp_path_factory.mktemp("studio") / "speech.wav"
    with resources.as_file(resources.files("astrape.recipes") / "audio" / "sense-and-sensibility.flac") as source:
        samples, rate = soundfile.read(source)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("config"))}
    command = [sys.executable, "-m", "astrape", "studio", "--no-browser", "--recipe", "robot-voice"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        # Two seconds for the way: a busy machine loses nothing, and the delay is told.
        yield f"{process.stdout.readline().strip()}&wait=2000"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130)


@pytest.fixture
def context(speech: Path) -> Iterator[Any]:
    """A browser at the width of a phone, in the dark."""
    flags = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    flags += [f"--use-file-for-fake-audio-capture={speech}", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        made = browser.new_context(
            permissions=["microphone"], viewport={"width": 390, "height": 844}, color_scheme="dark"
        )
        yield made
        browser.close()


def speaking(context: Any, address: str, complaints: list[str]) -> Any:
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.click("#start")
    is_heard(page)
    return page


def is_heard(page: Any) -> None:
    # Where the machine is busy, blocks are lost, and that is said instead.
    for _ in range(1200):
        if page.evaluate("hello !== null && context !== null && context.state === 'running'"):
            break
        page.wait_for_timeout(100)
    page.locator("#db-out:has-text('dB')").wait_for(timeout=120_000)


def test_a_preset_sets_the_sliders_and_is_kept(address: str, context: Any) -> None:
    page = context.new_page()
    page.goto(address)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 23, 29)"
    slider = "document.querySelector('[data-control=drive]').value"
    page.evaluate(f"{slider} = 30")
    page.fill("#preset-name", "loud")
    page.click("#preset-save")
    page.locator("#preset option[value=loud]").wait_for(state="attached", timeout=60_000)
    page.goto(address)
    assert page.evaluate(slider) != "30"
    page.select_option("#preset", "loud")
    assert abs(float(page.evaluate(slider)) - 30) < 0.5
    page.click("#preset-remove")
    page.locator("#preset option[value=loud]").wait_for(state="detached", timeout=60_000)


@pytest.mark.parametrize("hertz", [70.0, 123.0, 240.0, 511.0])
def test_the_pitch_that_is_drawn_is_the_one_that_sounds(address: str, context: Any, hertz: float) -> None:
    page = context.new_page()
    page.goto(address)
    wave = """(hertz) => pitchOf(Float32Array.from({ length: 2048 }, (_, i) =>
      0.1 * Math.sin(2 * Math.PI * hertz * i / 48000) + 0.1 * Math.sin(4 * Math.PI * hertz * i / 48000 + 1)), 48000)"""
    assert page.evaluate(wave, hertz) == pytest.approx(hertz, rel=0.01)
    # A hum as if of noise, and silence, have none.
    assert page.evaluate("pitchOf(new Float32Array(2048), 48000)") == 0


def test_what_was_played_is_recorded(address: str, context: Any) -> None:
    complaints: list[str] = []
    page = speaking(context, address, complaints)
    # Nothing lies beyond a phone's edge.
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.inner_text("#graph").endswith(" ms")
    # The keys are there on a slider too, and its value is said.
    page.focus("[data-control=drive]")
    before = float(page.evaluate("document.activeElement.value"))
    page.keyboard.press("ArrowRight")
    moved = page.evaluate("document.activeElement.value")
    assert float(moved) > before
    assert page.get_attribute("[data-control=drive]", "aria-valuetext") == f"{moved} dB"
    page.keyboard.press("d")
    assert page.get_attribute("#dry", "aria-pressed") == "true"
    page.keyboard.press("r")
    # What was played is silence where a busy machine is too late: until something is heard.
    for _ in range(1800):
        if page.evaluate("recording.some((part) => part.some((x) => Math.abs(x) > 0.02))"):
            break
        page.wait_for_timeout(100)
    page.keyboard.press("r")
    # The latency's picture ends with the sum that stands in the table.
    assert page.inner_text("#waterfall > :last-child").split("\n")[-1] == page.inner_text("#sum")
    with page.expect_download() as saved:
        page.click("#saved")
    heard, _ = soundfile.read(io.BytesIO(Path(saved.value.path()).read_bytes()))
    page.evaluate("document.querySelector('[data-control=drive]').value = 30")
    page.dispatch_event("[data-control=drive]", "input")
    page.click("#start")
    assert page.inner_text("#start") == "Start"
    # The sound card's devices are asked for, and that there are none is said.
    page.select_option("#through", "card")
    assert page.is_visible("#card-in")
    assert page.is_hidden("#spectrogram")
    assert len(heard) > 0
    assert np.abs(heard).max() > 0.01
    assert not complaints
