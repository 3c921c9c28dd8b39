"""Sound through PipeWire: a sink that plays to nobody, whose monitor is the microphone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)

RATE, QUANTUM = 48000, 1024
PROGRAMS = ("pipewire", "wireplumber", "pw-jack", "jack_lsp", "dbus-run-session")

CONFIGURATION = f"""
context.properties = {{
  default.clock.rate = {RATE} default.clock.quantum = {QUANTUM}
  default.clock.min-quantum = {QUANTUM} default.clock.max-quantum = {QUANTUM}
  core.daemon = true core.name = pipewire-0
}}
context.spa-libs = {{ support.* = support/libspa-support audio.convert.* = audioconvert/libspa-audioconvert }}
context.modules = [
  {{ name = libpipewire-module-protocol-native }} {{ name = libpipewire-module-spa-node-factory }}
  {{ name = libpipewire-module-client-node }} {{ name = libpipewire-module-adapter }}
  {{ name = libpipewire-module-link-factory }} {{ name = libpipewire-module-metadata }}
  {{ name = libpipewire-module-access }}
]
context.objects = [ {{ factory = adapter args = {{
  factory.name = support.null-audio-sink node.name = astrape-null node.description = "astrape null"
  media.class = Audio/Sink object.linger = true audio.position = "FL,FR" audio.rate = {RATE}
  node.driver = true priority.driver = 8000
}} }} ]
"""


# The sink is driven by a clock that goes on when all have finished: nothing is lost on a busy machine.
FREE = CONFIGURATION.replace("node.driver = true priority.driver = 8000", "node.group = pipewire.freewheel").replace(
    "context.objects = [",
    """context.objects = [ { factory = spa-node-factory args = {
  factory.name = support.node.driver node.name = Freewheel-Driver
  priority.driver = 19000 node.group = pipewire.freewheel node.freewheel = true
} }""",
)


@pytest.fixture
def pipewire(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment in which ``pw-jack`` finds the sink."""
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} not installed (Debian: pipewire pipewire-jack wireplumber jackd2 dbus)")
    pytest.importorskip("sounddevice", exc_type=(ImportError, OSError))
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    (tmp_path / "null.conf").write_text(getattr(request, "param", CONFIGURATION))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "OMP_NUM_THREADS": "1"}
    environment.pop("JACK_DEFAULT_SERVER", None)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment, "start_new_session": True}
    started = [subprocess.Popen(["pipewire", "-c", str(tmp_path / "null.conf")], **quiet)]
    time.sleep(1.0)
    started.append(subprocess.Popen(["dbus-run-session", "--", "wireplumber"], **quiet))
    try:
        for _ in range(60):
            found = subprocess.run(["pw-jack", "jack_lsp"], env=environment, capture_output=True, text=True, timeout=60)
            if "monitor_FR" in found.stdout:
                break
            time.sleep(0.5)
        else:
            pytest.skip("PipeWire does not start here")
        yield environment
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)


def live(environment: dict[str, str], *arguments: str) -> tuple[dict, str]:
    line = ["pw-jack", sys.executable, "-m", "astrape", "live", "--json", *arguments]
    run = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout), run.stderr


def test_the_measured_round_trip_is_the_computed_one(pipewire):
    facts, warned = live(pipewire, "--recipe", "robot-voice", "--measure-latency")
    assert facts["clicks_heard"] >= 3
    assert facts["block"] == QUANTUM
    assert facts["spread_frames"] == 0
    # PipeWire's JACK says 2^32 frames. A block each way is taken, which is so.
    assert "do not say how late they are" in warned
    assert facts["measured_frames"] == facts["computed_frames"] == 2 * QUANTUM


@pytest.mark.parametrize("pipewire", [FREE], indirect=True, ids=["free"])
def test_what_a_null_sink_gives_is_the_graphs_by_the_reported_latency_later(pipewire):
    line = ["pw-jack", sys.executable, "-m", "tests.live.through_pipewire", str(QUANTUM)]
    root = Path(__file__).parents[2]
    run = subprocess.run(line, env=pipewire, capture_output=True, text=True, timeout=800, cwd=root)
    assert run.returncode == 0, run.stderr
    facts = json.loads(run.stdout)
    assert facts["failure"] == "None"
    assert facts["late"] == 2 * QUANTUM + facts["latency"]
    assert facts["level"] > 0.2
    assert facts["off"] < 1e-6, run.stderr
    # A frame sooner or later is another sound.
    assert facts["off_by_one"] > 0.1
