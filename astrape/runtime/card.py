"""A pair of sound devices that calls an engine: one stream where they share a clock, two and a bridge where not."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from astrape.errors import AstrapeError
from astrape.runtime.devices import SHARED, Device, DeviceError, Rates, gone, portaudio, share_clock, told
from astrape.runtime.rate_change import Crossing, whole_block
from astrape.runtime.rings import Frames

__all__ = ["Card", "Process", "block_of"]

Process = Callable[[Frames, Frames], None]
"""Takes ``(channels, frames)`` in, and fills as many out."""

LONGEST = 5.0
"""Seconds; a device that says that it is later than that, or early, says nothing. PipeWire's JACK does."""

GONE = 1.5
"""Seconds without a callback after which a device is taken to be gone."""

BEGINNING = 10.0
"""Seconds that a device of ALSA has to begin."""


class Card:
    """Sound in and out, block by block, through one callback.

    Devices that share a clock and a rate are opened as one stream. Others are two streams: the input's callback fills a
    :class:`~astrape.runtime.rate_change.Crossing`, and the output's calls ``process``. A monitor is a further output
    behind a crossing of its own, on which the same is heard.

    Args:
        source, sink: devices.
        rates: at which they run; that of the output is that of ``process`` too. What runs at another is resampled.
        block: frames of a block at the output's rate.
        process: what makes the output of the input.
        channels: of the graph, in and out.
        channel: of the input, from 1: the first that the graph hears.
        monitor: another device to hear the output on.

    Attributes:
        xruns: how often the system says that it lost or lacked sound, by what it says.
        assumed: whether the system says no latency that can be, and a block each way is taken.
        hangs: whether it did not begin: PortAudio still waits for it, and is not to be asked about it again.
    """

    def __init__(
        self,
        source: Device,
        sink: Device,
        rates: Rates,
        block: int,
        process: Process,
        *,
        channels: tuple[int, int] = (1, 1),
        channel: int = 1,
        monitor: Device | None = None,
    ) -> None:
        last = channel - 1 + channels[0]
        if last > source.channels_in:
            raise AstrapeError(
                f"'{source.name}' has {source.channels_in} channels, and channel {last} is asked for: hint: --channel"
            )
        rate = rates.sink
        self.source, self.sink, self.rate, self.block = source, sink, rate, block
        self.monitor = monitor
        self.xruns: dict[str, int] = {}
        self.assumed = False
        self.failure: BaseException | None = None
        self._process = process
        self._channel = channel - 1
        self._opened = last
        self._x = np.zeros((channels[0], block), np.float32)
        self._y = np.zeros((channels[1], block), np.float32)
        self._opening = time.monotonic()
        self._last = [self._opening] * 2
        self._streams: list[Any] = []
        self._rate_in, self._rate_monitor = rates.source, rates.monitor or rate
        self._duplex = share_clock(source, sink) and self._rate_in == rate
        self._block_in = whole_block(self._rate_in, rate, round(block * self._rate_in / rate))
        self._block_monitor = round(block * self._rate_monitor / rate)
        self.bridge = None if self._duplex else Crossing(channels[0], self._rate_in, rate, self._block_in, block)
        self._monitor_bridge = None
        if monitor is not None:
            self._monitor_bridge = Crossing(channels[1], rate, self._rate_monitor, block, self._block_monitor)
        self._monitored_y = np.zeros((channels[1], self._block_monitor), np.float32)
        self._flushed = threading.local()
        self.hangs = False

    @property
    def latency_in(self) -> int:
        """Frames from the air to the engine, as the system says, and through the bridge where there is one."""
        own = self._latency(0, 0)
        return own if self.bridge is None else max(0, own - self.bridge.entering) + self.bridge.late

    @property
    def latency_out(self) -> int:
        """Frames from the engine to the air, as the system says."""
        return self._latency(0 if self._duplex else 1, 1)

    @property
    def calling(self) -> bool:
        """Whether input and output have both called since they were opened."""
        return min(self._last) > self._opening

    @property
    def alive(self) -> bool:
        """Whether callbacks come, of input and of output."""
        return time.monotonic() - min(self._last) < GONE and all(stream.active for stream in self._streams[:2])

    def open(self) -> None:
        """Open the devices and begin.

        Raises:
            DeviceError: with the cause and what to do.
        """
        sound = portaudio()
        ins = {"device": self.source.index, "channels": self._opened, **_extra(sound, self.source)}
        outs = {"device": self.sink.index, "channels": min(2, self.sink.channels_out), **_extra(sound, self.sink)}
        outs["channels"] = max(outs["channels"], len(self._y))
        own = _timing(self.rate, self.block)
        try:
            if self._duplex:
                both = {key: (ins[key], outs[key]) for key in ins}
                self._streams = [sound.Stream(**own, **both, callback=self._both)]
            else:
                entering = _timing(self._rate_in, self._block_in)
                self._streams = [
                    sound.InputStream(**entering, **ins, callback=self._heard),
                    sound.OutputStream(**own, **outs, callback=self._played),
                ]
            if self.monitor is not None:
                more = {"device": self.monitor.index, "channels": min(2, self.monitor.channels_out)}
                leaving = _timing(self._rate_monitor, self._block_monitor)
                self._streams.append(sound.OutputStream(**leaving, **more, callback=self._monitored))
            self._opening = time.monotonic()
            self._last = [self._opening] * 2
            for stream in self._streams:
                self._start(stream)
        except sound.PortAudioError as error:
            self.close()
            raise told(error, self.source, self.sink) from error

    def close(self) -> None:
        """End all streams; it is not an error if a device is gone already."""
        sound = portaudio()
        for stream in self._streams:
            try:
                stream.close(ignore_errors=True)
            except sound.PortAudioError:
                continue
        self._streams = []

    @property
    def lost(self) -> bool:
        """Whether PortAudio cannot let go of the device: it ends the process, or hangs, when it is asked to close what
        stands on a JACK server that died, or a card that was pulled out as it began."""
        return self.hangs or (self.source.api in SHARED[:1] and not self.alive)

    def abandon(self) -> None:
        """Leave the streams as they are, without telling PortAudio, at the process's end neither."""
        self._streams = []
        atexit.unregister(portaudio()._exit_handler)

    def _start(self, stream: Any) -> None:
        """Start a stream; leave it where it does not begin.

        PortAudio waits for its thread of ALSA for ever when a card is pulled out between opening and starting (19.6:
        the thread ends and keeps the lock), so this is done in a thread that can be left behind. Elsewhere it is not:
        some systems tie a stream to the thread that opened it.
        """
        if self.source.api != "ALSA":
            stream.start()
            return
        ended = threading.Event()
        errors: list[Exception] = []

        def start() -> None:
            try:
                stream.start()
            except Exception as error:
                errors.append(error)
            ended.set()

        threading.Thread(target=start, daemon=True).start()
        if not ended.wait(BEGINNING):
            self.hangs = True
            self.abandon()
            raise gone(self.source, self.sink)
        if errors:
            raise errors[0]

    def _both(self, indata: Any, outdata: Any, frames: int, times: Any, status: Any) -> None:
        self._begin(status, 0, 1)
        x = self._x[:, :frames]
        x[:] = indata.T[self._channel :]
        self._fill(x, outdata, frames)

    def _heard(self, indata: Any, frames: int, times: Any, status: Any) -> None:
        self._begin(status, 0)
        assert self.bridge is not None
        try:
            self.bridge.write(indata.T[self._channel :], time.perf_counter())
        except BaseException as error:
            self.failure = self.failure or error

    def _played(self, outdata: Any, frames: int, times: Any, status: Any) -> None:
        self._begin(status, 1)
        assert self.bridge is not None
        x = self._x[:, :frames]
        self.bridge.read(x, time.perf_counter())
        self._fill(x, outdata, frames)

    def _fill(self, x: Frames, outdata: Any, frames: int) -> None:
        y = self._y[:, :frames]
        try:
            self._process(x, y)
        except BaseException as error:
            self.failure = self.failure or error
            y[:] = 0.0
        np.clip(y, -1.0, 1.0, out=y)
        outdata[:] = y.T if len(y) == outdata.shape[1] else y[:1].T
        if self._monitor_bridge is not None:
            self._monitor_bridge.write(y, time.perf_counter())

    def _monitored(self, outdata: Any, frames: int, times: Any, status: Any) -> None:
        assert self._monitor_bridge is not None
        y = self._monitored_y[:, :frames]
        self._monitor_bridge.read(y, time.perf_counter())
        outdata[:] = y.T if len(y) == outdata.shape[1] else y[:1].T

    def _begin(self, status: Any, *sides: int) -> None:
        for side in sides:
            self._last[side] = time.monotonic()
        if not hasattr(self._flushed, "done"):
            # For this thread: decaying sounds must not end in denormals, with which processors are slow.
            self._flushed.done = torch.set_flush_denormal(True)
        if status:
            for name in ("input_underflow", "input_overflow", "output_underflow", "output_overflow"):
                if getattr(status, name):
                    self.xruns[name] = self.xruns.get(name, 0) + 1

    def _latency(self, stream: int, side: int) -> int:
        if stream >= len(self._streams):
            return 0
        told_of = self._streams[stream].latency
        seconds = float(told_of[side] if isinstance(told_of, tuple) else told_of)
        if not 0 <= seconds <= LONGEST:
            # A block each way is the least there can be.
            self.assumed = True
            return self.block if side or self.bridge is None else self.bridge.entering
        return round(seconds * self.rate)


def block_of(source: Device, sink: Device, rate: int, wanted: int | None, quantum: int) -> int:
    """Frames of a block: what is wanted, JACK's own where it decides, and else whole quanta of about 10 ms.

    Blocks that are whole quanta of the graph wait for no framing.
    """
    if wanted is not None:
        return wanted
    if source.api in SHARED[:1] and share_clock(source, sink):
        return _period(source, sink, rate)
    near = round(0.01 * rate)
    return quantum * max(1, near // quantum) if quantum <= 2 * near else near


def _period(source: Device, sink: Device, rate: int) -> int:
    """The period of a server that has its own: frames that the first callback brings."""
    sound = portaudio()
    found: list[int] = []
    came = threading.Event()

    def callback(indata: Any, outdata: Any, frames: int, times: Any, status: Any) -> None:
        outdata[:] = 0
        found.append(frames)
        came.set()

    try:
        with sound.Stream(
            samplerate=rate,
            blocksize=0,
            dtype="float32",
            device=(source.index, sink.index),
            channels=1,
            callback=callback,
        ):
            came.wait(5.0)
    except sound.PortAudioError as error:
        raise told(error, source, sink) from error
    if not found:
        raise DeviceError("gone", f"'{source.name}' does not call within 5 s: hint: look whether its server runs")
    return found[0]


def _timing(rate: int, block: int) -> dict[str, Any]:
    return {"samplerate": rate, "blocksize": block, "dtype": "float32", "latency": "low"}


def _extra(sound: Any, device: Device) -> dict[str, Any]:
    """Further settings that a host API needs: WASAPI is to convert rates itself."""
    if "WASAPI" in device.api:
        return {"extra_settings": sound.WasapiSettings(auto_convert=True)}
    return {"extra_settings": None}
