"""The machine's own sound card for the page: the live engine between two devices, and what the page is told of it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

from astrape.errors import AstrapeError
from astrape.runtime.card import Card, block_of
from astrape.runtime.devices import Device, DeviceError, choose, device_rates, list_devices, restart
from astrape.runtime.taps import Meter
from astrape.studio.speaker import Changing
from astrape.voice.live import LiveVoice

__all__ = ["CardSpeaker", "device_names"]


class _Abandoned:
    """The process's note that streams of a dead device were left as they are: PortAudio must not be asked to end."""

    ever = False


LOST = (
    "the sound server died, or the card was pulled out as it began, and this process cannot reach another: hint: end "
    "`astrape studio` and start it again; the browser's microphone goes on"
)

_looking = threading.Lock()
"""One thread at a time has PortAudio look anew."""


def _devices_now(speaking: Callable[[], bool] = lambda: False) -> list[Device]:
    """The devices that are plugged in now; while a stream is open, those found when PortAudio began."""
    with _looking:
        if not _Abandoned.ever and not speaking():
            restart()
        return list_devices()


def device_names(speaking: Callable[[], bool]) -> dict[str, list[list[str]]]:
    """Inputs and outputs as the page lists them: number and name.

    Args:
        speaking: whether the sound card is open; then what came since is not listed.

    Raises:
        DeviceError: where PortAudio is missing.
    """
    devices = _devices_now(speaking)
    return {
        "inputs": [[str(d.index), f"{d.name}, {d.api}"] for d in devices if d.channels_in],
        "outputs": [[str(d.index), f"{d.name}, {d.api}"] for d in devices if d.channels_out],
    }


class CardSpeaker(Changing):
    """Microphone to speakers on this machine, as ``astrape live`` does it, by the same engine.

    Args:
        live: the recipe and its voices.
        wanted_in, wanted_out: number or name of a device; the system's own when left out.

    Attributes:
        rate: of the devices in Hz; block: their frames.

    Raises:
        AstrapeError: for devices that are not there or do not fit, and for a recipe of other channels.
    """

    def __init__(self, live: LiveVoice, wanted_in: str | None, wanted_out: str | None) -> None:
        super().__init__(live)
        if _Abandoned.ever:
            raise DeviceError("gone", LOST)
        devices = _devices_now()
        source, sink = choose(devices, wanted_in, "input"), choose(devices, wanted_out, "output")
        rates, _ = device_rates(source, sink, None)
        self.rate, self._rate_in = rates.sink, rates.source
        self.block = block_of(source, sink, self.rate, None, live.quantum(self.rate))
        self.engine = live.engine(self.rate, self.block)
        channels = self.engine.heard.channels, self.engine.made.channels
        self.card = Card(source, sink, rates, self.block, self.engine.process, channels=channels)
        self._meters = Meter(self.engine.heard), Meter(self.engine.played)

    @property
    def dry(self) -> bool:
        """Whether one's own sound comes out, as late as the other."""
        return self.engine.bypass

    @dry.setter
    def dry(self, on: bool) -> None:
        self.engine.bypass = on

    def open(self) -> None:
        """Begin to sound.

        Raises:
            DeviceError: with the cause and what to do.
        """
        self.engine.start()
        try:
            self.card.open()
        except DeviceError as error:
            self.engine.stop()
            if self.card.hangs:
                _Abandoned.ever = True
                raise DeviceError("gone", LOST) from error
            raise

    def close(self) -> None:
        """End; the device may be gone already."""
        if self.card.lost:
            _Abandoned.ever = True
            self.card.abandon()
        else:
            self.card.close()
        self.engine.stop()

    def facts(self) -> dict[str, Any]:
        """Levels, load, what is lost, and the latency as the sum of its parts in seconds.

        Raises:
            AstrapeError: when the device is gone.
        """
        failure = self.engine.failure or self.card.failure
        if failure is not None:
            raise AstrapeError(f"the sound has ended: {failure}") from failure
        if not self.card.alive:
            gone = f"'{self.card.source.name}' or '{self.card.sink.name}' is gone"
            raise DeviceError("gone", LOST if self.card.lost else f"{gone}: hint: press Start again")
        for meter in self._meters:
            meter.look()
        status = self.engine.status()
        frames = [
            ("device in", self.card.latency_in),
            ("graph", status.graph),
            ("worker", status.worker),
            ("device out", self.card.latency_out),
        ]
        return {
            "card": f"{self.rate} Hz, blocks of {self.block}"
            + ("" if self._rate_in == self.rate else f", of {self._rate_in} Hz resampled"),
            "levels": [20 * math.log10(max(meter.peak, 1e-6)) for meter in self._meters],
            "parts": [[name, count / self.rate] for name, count in frames],
            "load": status.load,
            "worst": status.worst,
            "dropouts": status.dropouts,
            "xruns": sum(self.card.xruns.values()),
        }
