"""ALSA devices that are listed, then changed, then opened: the errors of each change."""

from __future__ import annotations

import fcntl
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from astrape.runtime.card import Card
from astrape.runtime.devices import DeviceError, Rates, choose, device_rates, list_devices


def main(folder: Path, what: str) -> dict[str, Any]:
    devices = list_devices()
    source, sink = choose(devices, "usb", "input"), choose(devices, "usb", "output")
    with ExitStack() as held:
        rate = 48000
        if what == "busy":
            fcntl.flock(held.enter_context((folder / "out").open("w")), fcntl.LOCK_EX)
        elif what == "rate":
            found, line = device_rates(source, sink, 44100)
            return {"kind": str(found.sink), "line": str(line)}
        else:
            (folder / what).touch()
        told = {}
        for step, attempt in (
            ("checked", lambda: device_rates(source, sink, rate)),
            ("opened", Card(source, sink, Rates(rate, rate), 480, lambda x, y: None).open),
        ):
            try:
                attempt()
            except DeviceError as error:
                told[step] = [error.kind, str(error), repr(error.__cause__)]
        return told


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
