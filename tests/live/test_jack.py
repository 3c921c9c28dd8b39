"""Sound through a real JACK server: what comes out is the graph's, by the reported samples later."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import astrape
from tests.live.conftest import RATE, Server, Talker

pytestmark = pytest.mark.timeout(900)

FRAMED: dict[str, Any] = {
    "recipe": "framed",
    "inputs": {"mic": {"rate": 44100, "channels": 1}},
    "blocks": {
        "f": {"use": "framing", "size": 441, "hop": 441},
        "o": {"use": "overlap_add", "hop": 441},
        "half": {"use": "gain", "gain": 0.5},
    },
    "outputs": {"wav": "half"},
}


PHASES = 5
"""Blocks of 1024 frames after which the resamplers of 48 to 44.1 kHz are at the same phase: 5 x 1024 is 32 x 160."""
RING = 512
"""Frames of the longest filter at either end of a gap."""


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Below 15 kHz, so that a resampler changes nothing."""
    x = np.random.default_rng(seed).uniform(-0.6, 0.6, int(seconds * RATE))
    spectrum = np.fft.rfft(x)
    spectrum[int(15000 / RATE * len(x)) :] = 0
    return np.fft.irfft(spectrum, len(x)).astype(np.float32)


def lag_of(y: np.ndarray, x: np.ndarray) -> int:
    """Frames by which ``y`` is late against ``x``."""
    size = 1 << (len(x) + len(y)).bit_length()
    found = np.fft.irfft(np.fft.rfft(y, size) * np.conj(np.fft.rfft(x, size)), size)
    return int(np.abs(found[: len(y)]).argmax())


def through(graph: astrape.Graph, x: np.ndarray, lead: int = 0) -> np.ndarray:
    """The graph's output for ``x`` after ``lead`` frames of silence, without those."""
    x = np.pad(x, (lead, -(lead + len(x)) % graph.quantum))
    return graph(torch.from_numpy(x)[None, None])[0, 0].numpy()[lead:]


def carded(what: str, folder: Path, server: Server, x: np.ndarray, loop: bool = False) -> tuple[np.ndarray, dict]:
    """Send ``x`` through a card in a process of its own, and return what was heard, and what it has to say."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "tests.live.through_card", what, str(server.period)]
    run = subprocess.Popen(
        line,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with closing(Talker(server, x)) as talker:
        if loop:
            talker.loop()
            y = x
        else:
            talker.connect()
            talker.reach()
            y = talker.talk()
    told, errors = run.communicate("\n", timeout=600)
    assert run.returncode == 0, errors
    return y, {**json.loads(told), "xruns": talker.xruns}


@pytest.mark.parametrize("hold", [0, 2048])
def test_what_comes_out_is_the_graphs_by_the_latency_later(server, tmp_path, hold):
    x = noise(3.0)
    plain, _ = carded("copy", tmp_path, server, x)
    devices = lag_of(plain, x)
    y, facts = carded(f"hold {hold}", tmp_path, server, x)
    graph = astrape.compile(FRAMED).hosted(RATE)
    # The graph's own output is late by its algorithm already.
    shift = devices + facts["latency"] - math.ceil(graph.latency * RATE)
    assert lag_of(y, through(graph, x)) == shift
    if facts["dropouts"] == 0:
        # The resamplers' phase when the sound begins is that of a block, of which PHASES differ. A wrong phase is wrong
        # by -100 dB; the right one is exact.
        wholes = [through(graph, x, lead * server.period) for lead in range(PHASES)]
        expected = [np.pad(whole, (shift, 0))[: len(y)] for whole in wholes]
        wrong = min((np.abs(y[: len(e)] - e) > 1e-6 for e in expected), key=np.sum)
        # A cycle that the server lost is one in which nobody sends and nobody hears. All that is under way then, the
        # whole shift, comes a period out of step, and the resampler's filter joins it with what follows: a few hundred
        # frames. Without a lost cycle all is right.
        assert wrong.sum() <= facts["xruns"] * (shift + server.period + RING)


def test_a_cable_has_the_delay_that_the_devices_say(server, tmp_path):
    _, facts = carded("clicks", tmp_path, server, noise(0.1), loop=True)
    assert facts["heard"] >= 2
    assert facts["level"] == pytest.approx(1.0, abs=0.01)
    assert facts["frames"] == facts["computed"]


def command(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "astrape", "live", *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options)


def test_the_command_speaks_and_tells_the_latency_that_is_heard(server, tmp_path: Path):
    x = noise(6.0)
    files = f"{tmp_path / 'in.wav'},{tmp_path / 'out.wav'}"
    run = command(
        "--recipe", "voice-changer", "--block", str(server.period), "--seconds", "4", "--json", "--record", files
    )
    with closing(Talker(server, x)) as talker:
        talker.connect()
        threading.Thread(target=talker.talk, daemon=True).start()
        told, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors
    facts = json.loads(told)
    heard, rate = soundfile.read(tmp_path / "in.wav", dtype="float32")
    spoken, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert rate == facts["rate"] == RATE
    assert facts["total_frames"] == facts["device_in"] + facts["latency"] + facts["device_out"]
    graph = astrape.load("voice-changer").hosted(RATE)
    assert facts["latency"] >= graph.latency * RATE
    size = -(-len(heard) // graph.quantum) * graph.quantum
    whole = graph(torch.from_numpy(np.pad(heard, (0, size - len(heard))))[None, None])[0, 0].numpy()
    shift = facts["latency"] - int(-(-graph.latency * RATE // 1))
    assert np.abs(heard).max() > 0.1
    if facts["dropouts"] == 0:
        expected = np.concatenate((np.zeros(shift, np.float32), whole))[: len(spoken)]
        # 16 bits, and what float32 makes of other block sizes.
        np.testing.assert_allclose(spoken, np.clip(expected, -1, 1), atol=2e-4)
    else:
        assert lag_of(spoken, whole) == shift


@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_a_server_that_goes_away_is_waited_for(server, killed):
    run = command("--recipe", "voice-changer", "--block", str(server.period), "--seconds", "3", "--json")
    with closing(Talker(server, noise(0.1))) as talker:
        talker.connect()
        time.sleep(1.0)
    if killed:
        server.process.kill()
    server.stop()
    lines: list[str] = []
    while not any("waiting" in line for line in lines):
        line = run.stderr.readline()
        assert line, "".join(lines)
        lines.append(line)
    server.start()
    told, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors
    assert "it is back" in errors
    # What was left of the three seconds.
    assert 0.1 * RATE <= json.loads(told)["position"] < 3 * RATE


def test_a_rate_that_is_refused_is_resampled_instead(server):
    run = command("--recipe", "voice-changer", "--rate", "44100", "--seconds", "0.5", "--json")
    told, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors
    assert "44100 Hz is refused" in errors
    assert json.loads(told)["rate"] == RATE


def test_devices_are_listed(server):
    told, errors = command("--list-devices", "--json").communicate(timeout=300)
    assert not errors
    (device,) = json.loads(told)
    assert device["api"] == "JACK Audio Connection Kit"
    assert device["shares_clock_with"] == [0]
    assert device["rate"] == RATE


def test_the_measured_delay_is_told_beside_the_computed_one(server):
    run = command("--recipe", "robot-voice", "--block", str(server.period), "--measure-latency", "--json")
    with closing(Talker(server, noise(0.1))) as talker:
        talker.loop()
        told, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors
    facts = json.loads(told)
    assert facts["clicks_heard"] >= 2
    assert facts["measured_frames"] == facts["computed_frames"] > 0
    # The framing is that of blocks of this size, up to what the report says of any.
    assert facts["engine_frames"] >= astrape.load("robot-voice").hosted(RATE).latency * RATE
    assert facts["total_ms"] == pytest.approx(1000 * (facts["measured_frames"] + facts["engine_frames"]) / RATE)


WINDOW, AWAY = 480, 8192
"""Frames of which a monitor's delay is found, and the most that it is away from the output."""


class Listener(Talker):
    """A talker who hears the monitor too."""

    def __init__(self, server: Server, x: np.ndarray) -> None:
        self.monitored: list[np.ndarray] = []
        self._monitor: Any = None
        super().__init__(server, x)
        self._monitor = self.client.inports.register("monitor")

    def _process(self, frames: int) -> None:
        super()._process(frames)
        if self._going and self._monitor is not None:
            self.monitored.append(self._monitor.get_array().copy())

    def connect(self, mine: Any = None) -> None:
        # Two streams of two channels: the second is the monitor's.
        for _ in range(3000):
            outs = list(self.client.get_ports("PortAudio", is_output=True))
            if len(outs) == 4:
                break
            time.sleep(0.1)
        super().connect()
        self.client.connect(outs[2], self._monitor)


def test_a_monitor_plays_what_the_output_plays(server):
    run = command("--recipe", "robot-voice", "--block", str(server.period), "--monitor", "system", "--json")
    # Some cycles of it are lost while the ports are connected.
    x = noise(4.0)
    with closing(Listener(server, x)) as talker:
        talker.connect()
        y = talker.talk()
        monitored = np.concatenate(talker.monitored)[: len(y)]
        run.send_signal(signal.SIGINT)
        told, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors
    assert json.loads(told)["output"] == "system"
    # The monitor's clock is measured, and where callbacks come late it moves by some frames: 10 ms at a time, to 2 kHz.
    y, monitored = (np.fft.irfft(np.fft.rfft(z)[: 2000 * len(y) // RATE], len(y)) for z in (y, monitored))
    alike, late = [], []
    for at in range(2 * AWAY, len(y) - 2 * AWAY, 10 * WINDOW):
        part, near = y[at : at + WINDOW], monitored[at - AWAY : at + AWAY]
        if np.abs(part).max() > 0.05:
            power = np.sqrt(np.convolve(near**2, np.ones(WINDOW), "valid")) * np.linalg.norm(part)
            match = np.correlate(near, part, "valid") / power
            alike.append(match.max())
            late.append(int(match.argmax()) - AWAY)
    # Both devices are JACK's, and PortAudio holds more for the one or the other. Where a busy machine has left out some
    # frames, the nearest likeness is chance.
    assert len(alike) > 10
    assert np.median(alike) > 0.95
    assert max(abs(frames) for frames, match in zip(late, alike, strict=True) if match > 0.95) < 4 * server.period
