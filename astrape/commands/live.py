"""``astrape live``: microphone to speakers, in another voice."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import RecipeName, command, json_option, parse_settings, print_json, print_table
from astrape.errors import AstrapeError
from astrape.voice.names import RECIPE

if TYPE_CHECKING:
    from astrape.commands.live_view import Shown
    from astrape.runtime.card import Card
    from astrape.runtime.devices import Device
    from astrape.runtime.engine import Engine
    from astrape.runtime.taps import Meter
    from astrape.voice.live import LiveVoice

__all__ = ["live"]

LOOK = 0.1
"""Seconds between two looks at levels and keys."""

AGAIN = 1.0
"""Seconds between two tries to reach a device that is gone."""

AGAIN_IN = "ASTRAPE_LIVE_AGAIN"
"""Environment variable in which a run hands itself on to another process."""

STEPS = 48
"""Of a control's range that keys go in; semitones for a pitch of two octaves up and down."""


@command(
    "live",
    "astrape live --list-devices\n"
    "astrape live --voice george\n"
    "astrape live --input microphone --output 'cable input' --set pitch=-3\n"
    "astrape live --measure-latency\n"
    "astrape live --recipe robot-voice --record mine.wav,robot.wav --seconds 20",
    interrupted="recordings are there",
    short="Speak through the sound card in another voice.",
)
@click.option("--list-devices", "listing", is_flag=True, help="List the sound devices, and end.")
@click.option("--input", "wanted_in", metavar="NAME", help="Input device: its number, or a part of its name.")
@click.option("--output", "wanted_out", metavar="NAME", help="Output device, a virtual cable for instance.")
@click.option("--monitor", metavar="NAME", help="A further output to hear yourself on, headphones for instance.")
@click.option("--channel", default=1, show_default=True, metavar="N", help="Channel of the input to listen to, from 1.")
@click.option("--rate", type=int, metavar="HZ", help="Sample rate of the devices.  [default: the output's]")
@click.option(
    "--block", type=click.IntRange(16, 8192), metavar="FRAMES", help="Block of the devices.  [default: about 10 ms]"
)
@click.option("--recipe", type=RecipeName(), default=RECIPE, show_default=True, metavar="RECIPE", help="What to run.")
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="Weights, a safetensors file.")
@click.option(
    "--voice",
    metavar="VOICE",
    help="A voicebank, a recording of 5 s or more, or the name of a voice that ships.  [default: emma]",
)
@click.option("--encoder", metavar="NAME", help="Speaker encoder for a recording.  [default: that of the weights]")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Value of a control to begin with. Repeatable."
)
@click.option("--record", metavar="IN.wav,OUT.wav", help="Record what goes in and what comes out; either may be empty.")
@click.option("--seconds", type=float, metavar="S", help="End after so much sound.")
@click.option(
    "--overload",
    type=click.Choice(["repeat", "silence", "bypass"]),
    default="repeat",
    show_default=True,
    help="What is heard where the computer is too slow: the last sound fading out, silence, or your own voice.",
)
@click.option("--hold", type=int, metavar="FRAMES", help="Frames held for computing.  [default: measured at the start]")
@click.option("--measure-latency", "measuring", is_flag=True, help="Measure the devices' delay with a cable, and end.")
@json_option
def live(
    listing: bool,
    wanted_in: str | None,
    wanted_out: str | None,
    monitor: str | None,
    channel: int,
    rate: int | None,
    block: int | None,
    recipe: str,
    weights: Path | None,
    voice: str | None,
    encoder: str | None,
    settings: tuple[str, ...],
    record: str | None,
    seconds: float | None,
    overload: str,
    hold: int | None,
    measuring: bool,
    as_json: bool,
) -> None:
    """Speak through the sound card in another voice: what the microphone hears comes out converted.

    Into a call, a stream or a game it goes through a virtual cable: name it as --output, and choose it as the
    microphone there. --monitor plays the same on a further device.

    The latency is shown as a sum: what the devices say of themselves, what the graph takes by its report, and what is
    held so that the computer has time. --measure-latency plays clicks, hears them through a cable or a loopback, and
    prints the delay that was measured beside the computed one.

    Keys while it runs: q ends, b lets your own voice through (as late as the other, so that nothing jumps), v and V go
    through the voices, arrows move controls. A device that is unplugged is waited for.

    Speak in voices whose owners agree, and tell who listens that the voice is synthetic.
    """
    from astrape.runtime.devices import list_devices

    if listing:
        _list(list_devices(), as_json)
        return
    if seconds is not None and not seconds > 0:
        raise AstrapeError(f"--seconds {seconds:g}: must be above 0")
    before = _Before.read()
    pair = _pair(wanted_in, wanted_out, monitor, rate, wait=before is not None)
    controls = {name: value if value.numel() > 1 else float(value) for name, value in parse_settings(settings).items()}
    if before is not None:
        controls |= before.values
        voice, seconds, record = before.voice, before.seconds, before.next_files(record)
    from astrape.runtime.process import settle
    from astrape.voice.live import LiveVoice

    speaking = LiveVoice(recipe, weights=weights, voice=voice, controls=controls, encoder=encoder)
    if speaking.random:
        _warn(f"the weights of '{speaking.graph.name}' are random, and what comes out is noise: hint: --weights")
    size = _block(pair, block, speaking)
    engine = speaking.engine(pair.rate, size, overload=overload, hold=hold)
    if measuring:
        _measure(pair, size, channel, engine, as_json)
        return
    files = _files(record, engine)
    settle()
    show = _Show(speaking, engine, pair, size, channel, files)
    try:
        shown = show.run(seconds, quiet=as_json)
    except _ServerGone:
        _Before.write(speaking, None if seconds is None else seconds - engine.heard.written / pair.rate, before)
        os.execv(sys.executable, [sys.executable, "-m", "astrape", *sys.argv[1:]])
    if as_json:
        print_json(_facts(shown, show.card, pair))
    else:
        from astrape.commands.live_view import summary

        click.echo(summary(shown))


class _ServerGone(Exception):
    """A server of sound died, and PortAudio cannot let go of it."""


@dataclass(frozen=True)
class _Before:
    """What a run hands to the process that takes its place.

    PortAudio cannot let go of a JACK server that died: it ends the process, or hangs. So the command begins anew in
    another process, which waits for the server, with the voice, the controls and the time that is left.
    """

    voice: str | None
    values: dict[str, float]
    seconds: float | None
    runs: int

    @classmethod
    def read(cls) -> _Before | None:
        given = os.environ.pop(AGAIN_IN, None)
        return None if given is None else cls(**json.loads(given))

    @staticmethod
    def write(speaking: LiveVoice, seconds: float | None, before: _Before | None) -> None:
        values = {name: float(value) for name, value in speaking.values.items() if name in speaking.sliders}
        left = None if seconds is None else max(0.1, seconds)
        now = _Before(speaking.voice, values, left, 2 if before is None else before.runs + 1)
        os.environ[AGAIN_IN] = json.dumps(asdict(now))

    def next_files(self, record: str | None) -> str | None:
        """What was recorded is whole, and is not written over: it goes on in IN.2.wav and OUT.2.wav."""
        if record is None:
            return None
        names = [Path(name) for name in record.split(",")]
        return ",".join(str(path.with_suffix(f".{self.runs}{path.suffix}")) if path.name else "" for path in names)


class _Pair:
    """The devices, and the rate that they take."""

    def __init__(self, source: Device, sink: Device, monitor: Device | None, rate: int) -> None:
        self.source, self.sink, self.monitor, self.rate = source, sink, monitor, rate


def _pair(wanted_in: str | None, wanted_out: str | None, monitor: str | None, rate: int | None, wait: bool) -> _Pair:
    from astrape.runtime.devices import DeviceError, choose, common_rate, list_devices, restart, share_clock

    devices = list_devices()
    while wait:
        try:
            choose(devices, wanted_in, "input"), choose(devices, wanted_out, "output")
            _note("it is back")
            break
        except DeviceError:
            time.sleep(AGAIN)
            restart()
            devices = list_devices()
    source, sink = choose(devices, wanted_in, "input"), choose(devices, wanted_out, "output")
    further = None if monitor is None else choose(devices, monitor, "output")
    found, line = common_rate(source, sink, rate)
    if line is not None:
        _warn(line)
    if not share_clock(source, sink):
        _note(f"'{source.name}' and '{sink.name}' have clocks of their own: their drift is measured and resampled away")
    return _Pair(source, sink, further, found)


def _block(pair: _Pair, block: int | None, speaking: LiveVoice) -> int:
    from astrape.runtime.card import block_of

    return block_of(pair.source, pair.sink, pair.rate, block, speaking.quantum(pair.rate))


def _files(record: str | None, engine: Engine) -> list[tuple[Path, Any]]:
    if record is None:
        return []
    names = record.split(",")
    if len(names) != 2 or not any(names):
        raise AstrapeError(f"--record {record}: write it as IN.wav,OUT.wav, or ,OUT.wav for one of them")
    rings = (engine.heard, engine.played)
    return [(Path(name), ring) for name, ring in zip(names, rings, strict=True) if name]


class _Show:
    """A run: the card open, levels looked at, keys taken, devices waited for."""

    def __init__(
        self, speaking: LiveVoice, engine: Engine, pair: _Pair, block: int, channel: int, files: list[tuple[Path, Any]]
    ) -> None:
        from astrape.runtime.taps import Meter

        self.speaking, self.engine, self.pair, self.block, self.channel = speaking, engine, pair, block, channel
        self.files = files
        self.card = self._card(pair.source, pair.sink, pair.monitor)
        self.meters: tuple[Meter, Meter] = (Meter(engine.heard), Meter(engine.played))
        self.chosen = 0
        self.notice = ""
        self.xruns = 0
        self._told = False

    def run(self, seconds: float | None, quiet: bool) -> Shown:
        """Until somebody ends it, or ``seconds`` of sound are over."""
        from astrape.commands.keys import keys
        from astrape.runtime.taps import Recorder

        most = None if seconds is None else int(seconds * self.pair.rate)
        with ExitStack() as stack:
            recorder = stack.enter_context(Recorder(self.files, self.pair.rate))
            show = stack.enter_context(_display(quiet))
            key = stack.enter_context(keys())
            self.engine.start()
            stack.callback(self.engine.stop)
            self.card.open()
            stack.callback(lambda: self.card.close())
            _warn_of_assumed(self.card)
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
            _warn(f"{recorder.lost} frames were not recorded: the disk was too slow")
        return shown

    def shown(self) -> Shown:
        from astrape.commands.live_view import Shown

        for meter in self.meters:
            meter.look()
        sliders = list(self.speaking.sliders)
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
            sliders=[(n, self.speaking.value(n), i == self.chosen) for i, n in enumerate(sliders)],
            notice=self.notice,
        )

    def _look(self) -> None:
        """What may have gone wrong since the last look."""
        failure = self.engine.failure or self.card.failure
        if failure is not None:
            raise failure
        status = self.engine.status()
        if status.dropouts and not self._told:
            self._told = True
            _warn(
                f"the computer is too slow now and then, and {status.missing} frames were missing (counted from here "
                "on): hint: a greater --block or --hold, or fewer other programs"
            )
        if not self.card.alive:
            self._wait()

    def _wait(self) -> None:
        """The device is gone: try again until it is back."""
        from astrape.runtime.devices import DeviceError, choose, list_devices, restart

        gone = f"'{self.pair.source.name}' or '{self.pair.sink.name}' is gone"
        self.notice = f"{gone}: waiting for it"
        _warn(f"{gone}: waiting until it is there again (Ctrl-C ends)")
        if self.card.served:
            self.card.abandon()
            raise _ServerGone
        while True:
            self.xruns += sum(self.card.xruns.values())
            self.card.close()
            time.sleep(AGAIN)
            try:
                restart()
                devices = list_devices()
                source = choose(devices, self.pair.source.name, "input")
                sink = choose(devices, self.pair.sink.name, "output")
                further = None if self.pair.monitor is None else choose(devices, self.pair.monitor.name, "output")
                self.card = self._card(source, sink, further)
                self.card.open()
                break
            except DeviceError as error:
                if error.kind in ("permission", "library"):
                    raise
        self.notice = ""
        _note("it is back")

    def _card(self, source: Device, sink: Device, monitor: Device | None) -> Card:
        from astrape.runtime.card import Card

        channels = (self.engine.heard.channels, self.engine.made.channels)
        return Card(
            source,
            sink,
            self.pair.rate,
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


def _measure(pair: _Pair, block: int, channel: int, engine: Engine, as_json: bool) -> None:
    """The delay of the devices, measured and as they say."""
    from astrape.runtime.card import Card
    from astrape.runtime.round_trip import RoundTrip

    trip = RoundTrip(pair.rate)
    card = Card(pair.source, pair.sink, pair.rate, block, trip.process, channel=channel)
    card.open()
    try:
        while not trip.done:
            time.sleep(LOOK)
            if card.failure is not None:
                raise card.failure
            if not card.alive:
                raise AstrapeError(f"'{pair.source.name}' or '{pair.sink.name}' calls no more: hint: try again")
        computed = card.latency_in + card.latency_out
        _warn_of_assumed(card)
    finally:
        card.close()
    found = trip.result()
    latency, rate = engine.latency, pair.rate
    facts = {
        "rate": rate,
        "block": block,
        "measured_frames": found.frames,
        "computed_frames": computed,
        "spread_frames": found.spread,
        "clicks_heard": found.heard,
        "clicks": found.sent,
        "engine_frames": latency,
        "total_ms": 1000 * (found.frames + latency) / rate,
    }
    if as_json:
        print_json(facts)
        return
    click.echo(f"devices, out and in again: measured {found.frames} frames, {1000 * found.frames / rate:.1f} ms")
    click.echo(f"as the devices say:        computed {computed} frames, {1000 * computed / rate:.1f} ms")
    click.echo(f"graph and worker:          {latency} frames, {1000 * latency / rate:.1f} ms, exact")
    click.echo(f"from mouth to ear:         {1000 * (found.frames + latency) / rate:.1f} ms")
    if found.spread:
        _warn(f"the clicks came back up to {found.spread} frames apart: sound was lost in between, or is resampled")


def _list(devices: list[Device], as_json: bool) -> None:
    from rich.table import Table

    from astrape.runtime.devices import NONE, share_clock

    if as_json:
        clocks = {d.index: [o.index for o in devices if share_clock(d, o)] for d in devices}
        print_json([{**device.to_dict(), "shares_clock_with": clocks[device.index]} for device in devices])
        return
    if not devices:
        click.echo(f"no sound devices: hint: {NONE['linux']}")
        return
    table = Table(box=None)
    for head in ("", "name", "host API", "in", "out", "Hz", "latency ms", "one clock with"):
        table.add_column(head, no_wrap=head in ("", "in", "out", "Hz"))
    for device in devices:
        default = ("i" if device.default_in else "") + ("o" if device.default_out else "")
        others = [other for other in devices if other.index != device.index and share_clock(device, other)]
        both = device.channels_in and device.channels_out
        table.add_row(
            f"{device.index}{' ' + default if default else ''}",
            device.name,
            device.api,
            str(device.channels_in or "-"),
            str(device.channels_out or "-"),
            f"{device.rate:g}",
            f"{1000 * device.latency_in:.0f} / {1000 * device.latency_out:.0f}",
            ", ".join((["itself"] if both else []) + [str(other.index) for other in others]) or "-",
        )
    print_table(table, width=110)
    click.echo("i, o: the system's default for input and output")


def _facts(shown: Shown, card: Card, pair: _Pair) -> dict[str, Any]:
    rate = float(shown.status.rate)
    return {
        "recipe": shown.recipe,
        "voice": shown.voice,
        "input": pair.source.name,
        "output": pair.sink.name,
        "block": shown.block,
        **shown.status.to_dict(),
        "device_in": shown.device_in,
        "device_out": shown.device_out,
        "devices_assumed": card.assumed,
        "total_frames": shown.total,
        "total_ms": 1000 * shown.total / rate,
        "clipped_in": shown.clipped_in,
        "clipped_out": shown.clipped_out,
        "xruns": shown.xruns,
        "drift_ppm": shown.bridge,
    }


def _warn_of_assumed(card: Card) -> None:
    device_latency = card.latency_in + card.latency_out
    if device_latency and card.assumed:
        _warn(
            "the devices do not say how late they are, and a block each way is taken for it: hint: --measure-latency "
            "measures it through a cable"
        )


def _warn(line: str) -> None:
    click.echo(f"astrape: warning: {line}", err=True)


def _note(line: str) -> None:
    click.echo(f"astrape: {line}", err=True)
