"""A JACK server that plays to nobody, started for the tests, and a client that sends sound in and records what comes.

The server is told to wait longer between its cycles than they last: everything happens as on a sound card, a few times
more slowly, so that a busy machine loses nothing. No test reads the time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

RATE = 48000
PERIOD = 1024
SLOWNESS = 3
PILOT = 0.25
"""Level that is sent until it is heard."""


def missing() -> str | None:
    """Why no JACK server can be used here."""
    if shutil.which("jackd") is None:
        return "jackd is not installed (Debian: jackd2)"
    try:
        import jack  # noqa: F401
    except (ImportError, OSError) as error:
        return f"JACK-Client cannot be used: {error}"
    try:
        import sounddevice as sound
    except (ImportError, OSError) as error:
        return f"sounddevice cannot be used: {error} (Debian: libportaudio2)"
    del sound
    return None


class Server:
    """``jackd -d dummy`` under a name of its own."""

    def __init__(self, rate: int = RATE, period: int = PERIOD, *options: str) -> None:
        self.name = f"astrape-{uuid.uuid4().hex[:8]}"
        self.rate, self.period, self.options = rate, period, options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        wait = SLOWNESS * 1_000_000 * self.period // self.rate
        arguments = ["-d", "dummy", "-r", str(self.rate), "-p", str(self.period), "-w", str(wait)]
        self.process = subprocess.Popen(
            ["jackd", "-r", "-t", "5000", *self.options, "-n", self.name, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        import jack

        for _ in range(150):
            with contextlib.suppress(jack.JackError):
                jack.Client("probe", no_start_server=True, servername=self.name).close()
                return
            time.sleep(0.2)
        self.stop()
        pytest.skip("jackd does not start here")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None


@pytest.fixture
def server() -> Iterator[Server]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    found = Server()
    before = os.environ.get("JACK_DEFAULT_SERVER")
    os.environ["JACK_DEFAULT_SERVER"] = found.name
    found.start()
    try:
        yield found
    finally:
        found.stop()
        if before is None:
            del os.environ["JACK_DEFAULT_SERVER"]
        else:
            os.environ["JACK_DEFAULT_SERVER"] = before


class Talker:
    """A JACK client that sends ``x`` into PortAudio's input, and keeps what its output gives."""

    def __init__(self, server: Server, x: np.ndarray) -> None:
        import jack

        self.client = jack.Client("talker", no_start_server=True, servername=server.name)
        self.x = x
        self.position = 0
        self.heard: list[np.ndarray] = []
        self.xruns = 0
        """Cycles that the server lost since it began to talk."""
        self._out = self.client.outports.register("out")
        self._in = self.client.inports.register("in")
        self._going = False
        self._pilot = 0.0
        self._last = np.zeros(0, np.float32)
        self.client.set_process_callback(self._process)
        self.client.set_xrun_callback(self._lost)
        self.client.activate()

    def _process(self, frames: int) -> None:
        out = self._out.get_array()
        if not self._going:
            out[:] = self._pilot
            self._last = self._in.get_array().copy()
            return
        self.heard.append(self._in.get_array().copy())
        part = self.x[self.position : self.position + frames]
        out[:] = 0
        out[: len(part)] = part
        self.position += frames

    def _lost(self, microseconds: float) -> None:
        self.xruns += self._going

    def connect(self, mine: Any = None) -> None:
        """To PortAudio's first ports, and those to nothing else; to each other for a loop."""
        client = self.client
        # It takes as long as a process takes to load PyTorch, which on a busy machine is a minute.
        for _ in range(3000):
            outs = list(client.get_ports("PortAudio", is_output=True))
            ins = list(client.get_ports("PortAudio", is_input=True))
            if outs and ins:
                break
            time.sleep(0.1)
        else:
            raise AssertionError("PortAudio's ports do not appear")
        for port in (*outs, *ins):
            for other in client.get_all_connections(port):
                client.disconnect(*((port, other) if port.is_output else (other, port)))
        client.connect(self._out, ins[0])
        client.connect(outs[0], self._in)

    def loop(self) -> None:
        """Connect PortAudio's output to its own input."""
        self.connect()
        outs = self.client.get_ports("PortAudio", is_output=True)
        ins = self.client.get_ports("PortAudio", is_input=True)
        self.client.disconnect(self._out, ins[0])
        self.client.connect(outs[0], ins[0])

    def reach(self) -> None:
        """Wait until what is sent is heard: connections are there some cycles after they have been made."""
        for self._pilot in (PILOT, 0.0):
            for _ in range(3000):
                level = np.abs(self._last)
                if len(level) and (level.min() > PILOT / 10 if self._pilot else level.max() < 1e-6):
                    break
                time.sleep(0.1)
            else:
                raise AssertionError(f"a level of {self._pilot} sent is not heard")

    def talk(self) -> np.ndarray:
        """Send all of it, and return what was heard meanwhile."""
        self._going = True
        for _ in range(3000):
            if self.position >= len(self.x):
                break
            time.sleep(0.1)
        self._going = False
        return np.concatenate(self.heard)

    def close(self) -> None:
        self.client.deactivate()
        self.client.close()
