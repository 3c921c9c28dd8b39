"""The plugin in hosts that are small: what LV2 asks of its files, a host for CLAP of our own, and jalv on JACK."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import astrape
from astrape.runtime.export import export
from tests.live.conftest import Server, missing
from tests.runtime.jalv import AMPLIFIER, Jalv, talk
from tests.runtime.plugins import BUNDLES, WIRE, best_lag, decibels, speech, spoken

SECONDS = int(os.environ.get("PLUGIN_SECONDS", "20"))
"""Length of the sound that goes through jalv."""

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


PARAMETERS = (
    ("dpf_bypass", 0, 1), ("voice", 0, 63), ("pitch", -24, 24), ("mix", 0, 100), ("gain", -24, 24), ("sides", 0, 1),
    ("worker", 0, 2), ("package", 0, 15), *((f"control_{number}", 0, 1) for number in range(1, 9)),
    ("register", 0, 1000), ("seed", 0, 16777215), ("status", 0, 4), ("late", 0, 1000000), ("load", 0, 1000),
)  # fmt: skip
"""Sessions and automation hold on to numbers (CLAP, VST3) and symbols (LV2): a change here is a change for users."""


@pytest.fixture(scope="module")
def clap_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    headers = Path("/usr/share/dpf/distrho/src")
    if shutil.which("g++") is None or not headers.is_dir():
        pytest.skip("no g++ or no dpf-source, whose headers of CLAP a host is built with")
    program = tmp_path_factory.mktemp("clap") / "clap_host"
    source = Path(__file__).with_name("clap_host.cpp")
    subprocess.run(["g++", "-std=c++17", "-w", f"-I{headers}", str(source), "-o", str(program), "-ldl"], check=True)
    return program


def in_clap(program: Path, nowhere: Path, *words: str | Path, plugin: str = "astrape") -> str:
    surroundings = os.environ | {"ASTRAPE_PACKAGES": "", "XDG_DATA_HOME": str(nowhere)}
    command = [program, BUNDLES / "clap" / f"{plugin}.clap" / f"{plugin}.clap", *words]
    done = subprocess.run(list(map(str, command)), env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "assertion failure" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("plugin", ["astrape", "astrape-mono"])
def test_numbers_symbols_and_ranges_of_parameters_stay(clap_host: Path, tmp_path: Path, plugin: str) -> None:
    lines = [line.split() for line in in_clap(clap_host, tmp_path, plugin=plugin).splitlines()]
    told = [(int(number), symbol, float(least), float(most)) for number, symbol, least, most in lines]
    assert told == [(number, *one) for number, one in enumerate(PARAMETERS)]
    text = (BUNDLES / "lv2" / f"{plugin}.lv2" / f"{plugin}.ttl").read_text()
    symbols = re.findall(r'lv2:index \d+ ;\s+lv2:name "[^"]+" ;\s+lv2:symbol "([^"]+)"', text)
    assert symbols[symbols.index("lv2_enabled") + 1 :] == [symbol for symbol, _, _ in PARAMETERS[1:]]


@pytest.mark.parametrize("block", [64, 1000])
def test_clap_gives_what_a_session_gives(clap_host: Path, tmp_path: Path, block: int) -> None:
    x = speech(48000, 1.0)
    np.stack((x, x)).tofile(tmp_path / "in")
    late = int(in_clap(clap_host, tmp_path, "48000", str(block), tmp_path / "in", tmp_path / "out"))
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


@pytest.mark.timeout(900 + 20 * SECONDS)
def test_in_jalv_minutes_go_by_and_nothing_is_lost(server: Server, tmp_path: Path) -> None:
    """Two plugins at once: one gives back what it hears, so that what is left out would be seen; the other speaks."""
    graph = astrape.compile(WIRE)
    export(graph, tmp_path / "wire")
    part = speech(server.rate, 2.0)
    x = np.tile(part, -(-SECONDS * server.rate // len(part)))[: SECONDS * server.rate]
    hosts = [Jalv(server, tmp_path, "package=1", name="wire"), Jalv(server, tmp_path, "voice=1")]
    (same, voice), lost = talk(server, hosts, x)
    logs = [host.end() for host in hosts]
    print(f"{SECONDS} s in jalv: {lost} cycles late, KiB {[host.memory[::30] for host in hosts]}")
    assert hosts[0].told == graph.host_samples
    # A loop of JACK is some cycles late, which is what the test above measures beside an amplifier.
    delay = best_lag(same[: 10 * server.rate], x[: 10 * server.rate])
    assert (delay - graph.host_samples) % server.period == 0
    assert decibels(same[delay : delay + len(x)], x) < -100
    # The speech comes again and again, and so does its loudness, but for what noise makes of it.
    assert np.isfinite(voice).all()
    again = voice[len(part) : len(x) // len(part) * len(part)].reshape(-1, len(part))
    loud = np.sqrt(np.square(again).mean(axis=1))
    assert loud.min() > 0.7 * loud.max() > 0.01
    for host, log in zip(hosts, logs, strict=True):
        assert "astrape: " not in log
        # After the first seconds nothing grows: 1 MiB is what pages of threads' stacks may still come to.
        assert max(host.memory[5:]) - host.memory[5] < 1024, host.memory
