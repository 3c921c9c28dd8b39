"""jalv, which is a host for one LV2 plugin on JACK, as a program beside a client that talks into it and listens."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.live.conftest import Server
from tests.runtime.plugins import BUNDLES

OURS, AMPLIFIER = "urn:astrape:voice-mono", "http://lv2plug.in/plugins/eg-amp"


class Jalv:
    """A plugin of one channel as a JACK client."""

    def __init__(self, server: Server, folder: Path, *values: str, plugin: str = OURS, name: str = "voice") -> None:
        surroundings = os.environ | {
            "JACK_DEFAULT_SERVER": server.name,
            "LV2_PATH": f"{BUNDLES / 'lv2'}:/usr/lib/lv2",
            "ASTRAPE_PACKAGES": str(folder),
            "XDG_DATA_HOME": str(folder),
        }
        controls = [word for value in values for word in ("-c", value)]
        self.process = subprocess.Popen(
            ["jalv", "-n", name, *controls, plugin],
            env=surroundings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.server, self.name = server, name
        self.told = 0
        """Frames that JACK has heard of, from its input to its output."""
        self.memory: list[int] = []
        """KiB that it holds, about once a second of sound."""

    def through(self, x: np.ndarray) -> np.ndarray:
        """The output for ``x``, from its first sample to a second after its end."""
        return talk(self.server, [self], x)[0][0]

    def measure(self) -> None:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found, status
        self.memory.append(int(found[1]))

    def end(self) -> str:
        """End it, and return its log; last in that are the values of the plugin's outputs, one a line."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("monitors\n")
            self.process.stdin.flush()
            time.sleep(1)
        self.process.terminate()
        return self.process.communicate(timeout=60)[0]


def talk(server: Server, hosts: list[Jalv], x: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Send ``x`` into all of them at once. What comes out of each, and how many cycles the server calls late.

    The server runs freely, a cycle when all clients are through with the one before: a busy machine loses nothing.
    """
    import jack

    client = jack.Client("talker", no_start_server=True, servername=server.name)
    out = client.outports.register("out")
    heard = [client.inports.register(f"in_{host.name}") for host in hosts]
    parts: list[list[np.ndarray]] = [[] for _ in hosts]
    position, lost = -1, 0

    def process(frames: int) -> None:
        nonlocal position
        block = out.get_array()
        block[:] = 0
        if position >= 0:
            for port, kept in zip(heard, parts, strict=True):
                kept.append(port.get_array().copy())
            part = x[position : position + frames]
            block[: len(part)] = part
            position += frames

    def count(_: float) -> None:
        nonlocal lost
        lost += 0 <= position < len(x)

    client.set_process_callback(process)
    client.set_xrun_callback(count)
    with client:
        for host, port in zip(hosts, heard, strict=True):
            connect_when_there(client, host, out, port)
        for host in hosts:
            for _ in range(30):
                host.told = told_latency(server.name, host.name)
                if host.told:
                    break
                time.sleep(0.1)
        client.set_freewheel(True)
        position = 0
        while (at := position) < len(x) + server.rate:
            while position < min(at + server.rate, len(x) + server.rate):
                time.sleep(0.1)
            for host in hosts:
                host.measure()
        client.set_freewheel(False)
    return [np.concatenate(kept) for kept in parts], lost


def connect_when_there(client: Any, host: Jalv, out: Any, heard: Any) -> None:
    """To jalv's ports and from them; they are there a while before they can be connected."""
    import jack

    for _ in range(600):
        entries, exits = client.get_ports(f"{host.name}:.*in"), client.get_ports(f"{host.name}:.*out")
        with contextlib.suppress(jack.JackError):
            if entries and exits:
                client.connect(out, entries[0])
                client.connect(exits[0], heard)
                return
        time.sleep(0.1)
    raise AssertionError("jalv's ports do not appear")


def told_latency(server: str, name: str) -> int:
    """Frames from the plugin's input to its output, as JACK has heard of them; 0 while it has not.

    A server that is busy may turn jack_lsp away, which is asked again.
    """
    surroundings = os.environ | {"JACK_DEFAULT_SERVER": server}
    listed = subprocess.run(["jack_lsp", "-l"], env=surroundings, capture_output=True, text=True, check=False).stdout
    after = listed.partition(f"{name}:lv2_audio_in_1")[2]
    found = re.search(r"port capture latency = \[ (\d+) (\d+) \]", after)
    return int(found[1]) if found and found[1] == found[2] else 0
