"""A run of ``astrape live``: the card open, levels looked at, keys taken, devices waited for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astrape.commands.console import note, warn
from astrape.commands.live_devices import AGAIN, LOOK, DevicePair, warn_of_assumed

if TYPE_CHECKING:
    from astrape.commands.live_view import Shown
    from astrape.runtime.card import Card
    from astrape.runtime.devices import Device
    from astrape.runtime.engine import Engine
    from astrape.runtime.taps import Meter
    from astrape.voice.live import LiveVoice

__all__ = ["DeviceLost", "LiveRun"]

STEPS = 48
"""Steps into which keys divide a control's range; semitones for a pitch of two octaves up and down."""


class DeviceLost(Exception):
    """A device is gone, and PortAudio cannot let go of it: another process has to go on."""


class LiveRun:
    """A run: the card open, levels looked at, keys taken, devices waited for."""

    def __init__(
        self,
        speaking: LiveVoice,
        engine: Engine,
        pair: DevicePair,
        block: int,
        channel: int,
        files: list[tuple[Path, Any]],
    ) -> None:
        from astrape.runtime.taps import Meter

        self.speaking, self.engine, self.pair, self.block, self.channel = speaking, engine, pair, block, channel
        self.files = files
        self.card = self._card(pair.source, pair.sink, pair.monitor)
        self.meters: tuple[Meter, Meter] = (Meter(engine.heard), Meter(engine.played))
        self.chosen = 0
        self.notice = ""
        self.xruns = 0
        self.memory: str | None = None
        """The reason why memory may be taken from it while it plays; ``None`` where it is locked."""
        self._told = self._asked = False

    def run(self, seconds: float | None, quiet: bool) -> Shown:
        """Run until interrupted, or until ``seconds`` of sound are over."""
        from astrape.commands.keys import keys
        from astrape.runtime.taps import LiveRecorder

        most = None if seconds is None else int(seconds * self.pair.rate)
        with ExitStack() as stack:
            recorder = stack.enter_context(LiveRecorder(self.files, self.pair.rate))
            show = stack.enter_context(_display(quiet))
            key = stack.enter_context(keys())
            self.engine.start()
            stack.callback(self.engine.stop)
            self.card.open()
            stack.callback(lambda: self.card.close())
            warn_of_assumed(self.card)
            try:
                while most is None or self.engine.heard.written < most:
                    pressed = key(LOOK)
                    if pressed == "q":
                        break
                    self._key(pressed)
                    recorder.poll()
                    self._look()
                    show(self.shown())
            except KeyboardInterrupt:
                # How a run ends that nobody gave a length.
                pass
            shown = self.shown()
        if recorder.lost:
            warn(f"{recorder.lost} frames were not recorded: the disk was too slow")
        return shown

    def shown(self) -> Shown:
        from astrape.commands.live_view import Shown

        for meter in self.meters:
            meter.look()
        return Shown(
            recipe=self.speaking.graph.name,
            voice=self.speaking.voice,
            block=self.block,
            status=self.engine.status(),
            peak_in=self.meters[0].peak,
            peak_out=self.meters[1].peak,
            clipped_in=self.meters[0].clipped,
            clipped_out=self.meters[1].clipped,
            device_in=self.card.latency_in,
            device_out=self.card.latency_out,
            bridge=None if self.card.bridge is None else (self.card.bridge.ratio - 1) * 1e6,
            xruns=self.xruns + sum(self.card.xruns.values()),
            bypass=self.engine.bypass,
            sliders=[
                (name, self.speaking.value(name), control.unit, place == self.chosen)
                for place, (name, control) in enumerate(self.speaking.sliders.items())
            ],
            notice=self.notice,
        )

    def _look(self) -> None:
        """Check for faults since the last look."""
        failure = self.engine.failure or self.card.failure
        if failure is not None:
            raise failure
        status = self.engine.status()
        if status.dropouts and not self._told:
            self._told = True
            warn(
                f"the computer is too slow now and then, and {status.missing} frames were missing (counted from here "
                "on): hint: a greater --block or --hold, or fewer other programs"
            )
        self._tell_refusals(status.priority)
        if not self.card.alive:
            self._wait()

    def _tell_refusals(self, priority: str | None) -> None:
        """Tell once what the system did not allow: it matters where dropouts are heard."""
        if self._asked:
            return
        self._asked = True
        for what, reason in (("memory is not locked", self.memory), ("no real-time priority", priority)):
            if reason is not None:
                note(f"{what}: {reason}")

    def _wait(self) -> None:
        """The device is gone: try again until it is back."""
        from astrape.runtime.devices import DeviceError, list_devices, once_more, restart

        gone = f"'{self.pair.source.name}' or '{self.pair.sink.name}' is gone"
        self.notice = f"{gone}: waiting for it"
        warn(f"{gone}: waiting until it is there again (Ctrl-C ends)")
        if self.card.lost:
            self.card.abandon()
            raise DeviceLost
        while True:
            self.xruns += sum(self.card.xruns.values())
            self.card.close()
            time.sleep(AGAIN)
            try:
                restart()
                devices = list_devices()
                source = once_more(devices, self.pair.source, "input")
                sink = once_more(devices, self.pair.sink, "output")
                further = None if self.pair.monitor is None else once_more(devices, self.pair.monitor, "output")
                self.card = self._card(source, sink, further)
                self.card.open()
                # One that opens and does not call is not back: no more is said of it.
                while self.card.alive and not self.card.calling:
                    time.sleep(LOOK)
                if self.card.calling:
                    break
            except DeviceError as error:
                if self.card.hangs:
                    raise DeviceLost from error
                if error.kind in ("permission", "library"):
                    raise
        self.notice = ""
        note("it is back")

    def _card(self, source: Device, sink: Device, monitor: Device | None) -> Card:
        from astrape.runtime.card import Card

        channels = (self.engine.heard.channels, self.engine.made.channels)
        return Card(
            source,
            sink,
            self.pair.rates,
            self.block,
            self.engine.process,
            channels=channels,
            channel=self.channel,
            monitor=monitor,
        )

    def _key(self, key: str | None) -> None:
        speaking = self.speaking
        if key == "b":
            self.engine.bypass = not self.engine.bypass
        elif key in ("v", "V") and speaking.voice is not None:
            place = speaking.voices.index(speaking.voice) + (1 if key == "v" else -1)
            speaking.speak_as(speaking.voices[place % len(speaking.voices)])
        elif key in ("up", "down") and speaking.sliders:
            self.chosen = (self.chosen + (1 if key == "down" else -1)) % len(speaking.sliders)
        elif key in ("left", "right") and speaking.sliders:
            name = list(speaking.sliders)[self.chosen]
            control = speaking.sliders[name]
            low = -1.0 if control.minimum is None else control.minimum
            high = 1.0 if control.maximum is None else control.maximum
            moved = speaking.value(name) + (high - low) / STEPS * (1 if key == "right" else -1)
            speaking.set(name, min(high, max(low, moved)))


@contextmanager
def _display(quiet: bool) -> Iterator[Any]:
    """Shows lines on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from astrape.commands.live_view import lines

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda shown: None
        return
    with Live(console=console, refresh_per_second=10, transient=True) as view:
        yield lambda shown: view.update(Text("\n".join(lines(shown, max(40, console.width - 1)))))
