"""Sound through a card on PipeWire, for tests: PipeWire's JACK is another library, which a process begins with.

Sends noise into the card's input, compares what the null sink's monitor gives with the graph's output, and prints what
was found as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

import astrape
from astrape.runtime.card import Card
from astrape.runtime.devices import Rates, choose, list_devices
from astrape.runtime.engine import Engine
from tests.live.test_jack import FRAMED, PHASES, RATE, noise, through

TRIES = 60
"""Times that sound is sent until no cycle is lost on the way, which on a busy machine happens."""

SECONDS = 0.25
"""Length of the noise: some twelve cycles."""


class End:
    """A JACK client with one port, which keeps what passes there, by the server's count of frames."""

    def __init__(self, name: str, x: np.ndarray | None = None) -> None:
        import jack

        self.client = jack.Client(name, no_start_server=True)
        self.port = (self.client.inports if x is None else self.client.outports).register("port")
        self.x, self.going = x, False
        self.begin()
        self.client.set_process_callback(self._process)
        self.client.activate()

    def begin(self) -> None:
        self.position = 0
        self.kept: list[np.ndarray] = []
        self.times: list[int] = []

    def _process(self, frames: int) -> None:
        block = self.port.get_array()
        if self.x is not None:
            block[:] = 0.0
            if self.going:
                part = self.x[self.position : self.position + frames]
                block[: len(part)] = part
        if self.going:
            self.position += frames
            self.times.append(self.client.last_frame_time)
            self.kept.append(block.copy())

    def sound(self) -> np.ndarray:
        return np.concatenate(self.kept)

    def whole(self, block: int) -> bool:
        """Whether no cycle was lost here."""
        return bool(np.all(np.diff(self.times) == block))


def wait_for(connected: Any) -> None:
    for _ in range(3000):
        if connected():
            return
        time.sleep(0.1)
    raise AssertionError("PipeWire's ports are not connected, or its cycles stand still")


def off(x: np.ndarray, y: np.ndarray, late: int, block: int) -> tuple[float, float]:
    """Distance of ``y`` from the graph's output ``late`` frames after its input, and from that a frame later.

    The resamplers' phase when the sound begins is that of a block, of which PHASES differ: the nearest is taken.
    """
    graph = astrape.compile(FRAMED).hosted(RATE)
    # The graph's own output is late by its algorithm already.
    shift = late - int(graph.latency * RATE)
    found = []
    for lead in range(PHASES):
        made = through(graph, x, lead * block)
        far = [float(np.abs(y - np.pad(made, (shift + more, 0))[: len(y)]).max()) for more in (0, 1)]
        found.append((far[0], far[1]))
    return min(found)


def main(block: int) -> None:
    devices = list_devices()
    ends = choose(devices, "astrape null", "input"), choose(devices, "astrape null", "output")
    engine = Engine(astrape.compile(FRAMED), RATE, block, hold=0)
    card = Card(*ends, Rates(RATE, RATE), block, engine.process)
    card.open()
    # Two clients: one that sends and hears would be a loop, and what goes round is a period later.
    talker, listener = End("talker", noise(SECONDS)), End("listener")
    client = talker.client
    wait_for(lambda: client.get_ports("PortAudio", is_input=True) and client.get_ports("PortAudio", is_output=True))
    heard = client.get_ports("PortAudio", is_input=True)[0]
    played = client.get_ports("PortAudio", is_output=True)[0]
    wait_for(lambda: client.get_all_connections(played))
    for other in client.get_all_connections(heard):
        client.disconnect(other, heard)
    client.connect(talker.port, heard)
    client.connect("astrape null:monitor_FL", "listener:port")
    facts: dict[str, Any] = {"tries": 0}
    while facts["tries"] < TRIES:
        facts["tries"] += 1
        talker.begin(), listener.begin()
        listener.going = True
        talker.going = True
        wait_for(lambda: min(talker.position, listener.position) > SECONDS * RATE + 8 * block)
        talker.going = listener.going = False
        time.sleep(0.2)
        if not (talker.whole(block) and listener.whole(block)):
            continue
        # Frames from what is sent to what is heard in the same cycle of the server, and what the card says of both.
        late = card.latency_in + engine.latency + card.latency_out
        x = talker.sound()
        y = listener.sound()[talker.times[0] - listener.times[0] :]
        facts |= {"late": late, "level": float(np.abs(y).max())}
        facts["off"], facts["off_by_one"] = off(x, y[: len(x)], late, block)
        print(facts, file=sys.stderr)
        # What the card itself loses, nobody counts. But that all is right at the told delay does not happen by chance.
        if facts["off"] < 1e-6:
            break
    for end in (talker, listener):
        end.client.deactivate()
    facts["failure"] = repr(card.failure)
    card.close()
    print(json.dumps({**engine.status().to_dict(), **facts}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
