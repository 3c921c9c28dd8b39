"""Sound through a card, for tests: PortAudio in a process that ends before the server does, which it would not survive.

Runs until a line comes on standard input, and prints what it has to say as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import astrape
from astrape.runtime.card import Card
from astrape.runtime.devices import Rates, choose, list_devices
from astrape.runtime.engine import Engine
from astrape.runtime.round_trip import RoundTrip
from tests.live.test_jack import FRAMED, RATE


def copy(x: Any, y: Any) -> None:
    y[:] = x


def main(what: str, period: int) -> None:
    devices = list_devices()
    ends = choose(devices, "system", "input"), choose(devices, "system", "output")
    engine, trip, process = None, None, copy
    if what.startswith("hold"):
        engine = Engine(astrape.compile(FRAMED), RATE, period, hold=int(what.split()[1]))
        process = engine.process
        engine.start()
    if what == "clicks":
        trip = RoundTrip(RATE, clicks=4, every=0.4)
        process = trip.process
    card = Card(*ends, Rates(RATE, RATE), period, process)
    card.open()
    if trip is None:
        sys.stdin.readline()
    else:
        while not trip.done:
            time.sleep(0.1)
    facts: dict[str, Any] = {"failure": repr(card.failure), "computed": card.latency_in + card.latency_out}
    card.close()
    if engine is not None:
        engine.stop()
        facts |= engine.status().to_dict()
    if trip is not None:
        facts |= trip.result().to_dict()
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
