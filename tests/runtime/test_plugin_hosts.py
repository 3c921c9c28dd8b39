"""The plugin in hosts of its own kind: what LV2 asks of its files, jalv on JACK, and Ardour's delay compensation."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import astrape
from astrape.runtime.export import export
from tests.live.conftest import Server, missing
from tests.runtime.plugins import BUNDLES, WIRE, decibels, speech, spoken

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not BUNDLES.is_dir(), reason="no plugin is built: `make plugin` does, on Debian and as root"),
]


def test_lv2_files_are_valid() -> None:
    tool = shutil.which("lv2_validate")
    if tool is None or shutil.which("sord_validate") is None:
        pytest.skip("no lv2_validate: apt-get install lv2-dev sordi")
    for bundle in sorted((BUNDLES / "lv2").glob("*.lv2")):
        done = subprocess.run([tool, *map(str, bundle.glob("*.ttl"))], capture_output=True, text=True, check=False)
        assert "Found 0 errors" in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("block", [64, 1000])
def test_clap_gives_what_a_session_gives(tmp_path: Path, block: int) -> None:
    headers = Path("/usr/share/dpf/distrho/src")
    if shutil.which("g++") is None or not headers.is_dir():
        pytest.skip("no g++ or no dpf-source, whose headers of CLAP a host is built with")
    program = tmp_path / "clap_host"
    source = Path(__file__).with_name("clap_host.cpp")
    subprocess.run(["g++", "-std=c++17", "-w", f"-I{headers}", str(source), "-o", str(program), "-ldl"], check=True)
    x = speech(48000, 1.0)
    np.stack((x, x)).tofile(tmp_path / "in")
    command = [program, BUNDLES / "clap" / "astrape.clap" / "astrape.clap", "48000", str(block)]
    surroundings = os.environ | {"ASTRAPE_PACKAGES": "", "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(
        [*map(str, command), str(tmp_path / "in"), str(tmp_path / "out")],
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    late = int(done.stdout)
    # Blocks shorter than a step have a worker, and sound is a step later.
    assert late == astrape.load("astrape-mini").hosted(48000).host_samples + (480 if block < 480 else 0)
    got = np.fromfile(tmp_path / "out", np.float32).reshape(2, -1)
    assert np.array_equal(got[0], got[1])
    want = spoken(x, 48000, "emma")[: len(x) - late]
    assert decibels(got[0, late:], want) < -100


@pytest.fixture
def server() -> Iterator[Server]:
    reason = missing()
    lacking = [program for program in ("jalv", "jack_lsp") if shutil.which(program) is None]
    if reason is not None or lacking:
        pytest.skip(reason or f"{', '.join(lacking)} not installed (Debian: jalv jackd2)")
    # The server waits for its clients: nothing is lost on a busy machine.
    found = Server(44100, 1024, "-S")
    found.start()
    try:
        yield found
    finally:
        found.stop()


OURS, AMPLIFIER = "urn:astrape:voice-mono", "http://lv2plug.in/plugins/eg-amp"


class Jalv:
    """A plugin of one channel as a JACK client, and a client that sends ``x`` into it and records what comes out."""

    def __init__(self, server: Server, folder: Path, *values: str, plugin: str = OURS) -> None:
        surroundings = os.environ | {
            "JACK_DEFAULT_SERVER": server.name,
            "LV2_PATH": f"{BUNDLES / 'lv2'}:/usr/lib/lv2",
            "ASTRAPE_PACKAGES": str(folder),
            "XDG_DATA_HOME": str(folder),
        }
        controls = [word for value in values for word in ("-c", value)]
        self.process = subprocess.Popen(
            ["jalv", "-n", "voice", *controls, plugin],
            env=surroundings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.server = server
        self.told = 0

    def through(self, x: np.ndarray) -> np.ndarray:
        import jack

        client = jack.Client("talker", no_start_server=True, servername=self.server.name)
        out, heard = client.outports.register("out"), client.inports.register("in")
        parts: list[np.ndarray] = []
        position = -1

        def process(frames: int) -> None:
            nonlocal position
            block = out.get_array()
            block[:] = 0
            if position >= 0:
                parts.append(heard.get_array().copy())
                part = x[position : position + frames]
                block[: len(part)] = part
                position += frames

        client.set_process_callback(process)
        with client:
            connect_when_there(client, out, heard)
            for _ in range(30):
                self.told = told_latency(self.server.name)
                if self.told:
                    break
                time.sleep(0.1)
            position = 0
            while position < len(x) + self.server.rate:
                time.sleep(0.1)
        return np.concatenate(parts)

    def end(self) -> str:
        self.process.terminate()
        return self.process.communicate(timeout=60)[0]


def test_in_jalv_sound_comes_as_late_as_jack_is_told(server: Server, tmp_path: Path) -> None:
    """To the sample, beside an amplifier, which is not late at all, in the same loop."""
    if not Path("/usr/lib/lv2/eg-amp.lv2").is_dir():
        pytest.skip("no eg-amp: apt-get install lv2-examples")
    graph = astrape.compile(WIRE)
    export(graph, tmp_path / "wire")
    x = speech(server.rate, 2.0)
    loop = Jalv(server, tmp_path, plugin=AMPLIFIER)
    around = best_lag(loop.through(x), x)
    loop.end()
    host = Jalv(server, tmp_path, "package=1")
    y = host.through(x)
    log = host.end()
    late = best_lag(y, x) - around
    assert late == host.told == graph.host_samples, log
    assert decibels(y[late + around : late + around + len(x)], x) < -40


def test_in_jalv_the_voice_that_ships_speaks(server: Server, tmp_path: Path) -> None:
    host = Jalv(server, tmp_path, "voice=1")
    x = speech(server.rate, 2.0)
    y = host.through(x)
    log = host.end()
    assert host.told == astrape.load("astrape-mini").hosted(server.rate).host_samples, log
    assert np.abs(y).max() > 0.01
    assert np.isfinite(y).all()
    assert "astrape: " not in log


def connect_when_there(client: Any, out: Any, heard: Any) -> None:
    """To jalv's ports and from them; they are there a while before they can be connected."""
    import jack

    for _ in range(600):
        entries, exits = client.get_ports("voice:.*in"), client.get_ports("voice:.*out")
        with contextlib.suppress(jack.JackError):
            if entries and exits:
                client.connect(out, entries[0])
                client.connect(exits[0], heard)
                return
        time.sleep(0.1)
    raise AssertionError("jalv's ports do not appear")


def told_latency(server: str) -> int:
    """Frames from the plugin's input to its output, as JACK has heard of them."""
    surroundings = os.environ | {"JACK_DEFAULT_SERVER": server}
    listed = subprocess.run(["jack_lsp", "-l"], env=surroundings, capture_output=True, text=True, check=True).stdout
    after = listed.partition("voice:lv2_audio_in_1")[2]
    found = re.search(r"port capture latency = \[ (\d+) (\d+) \]", after)
    return int(found[1]) if found and found[1] == found[2] else 0


def best_lag(y: np.ndarray, x: np.ndarray) -> int:
    """By how many frames the one is behind the other."""
    size = 1 << int(np.ceil(np.log2(len(y) + len(x))))
    return int(np.argmax(np.fft.irfft(np.fft.rfft(y, size) * np.conj(np.fft.rfft(x, size)), size)))
