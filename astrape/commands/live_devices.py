"""The devices of ``astrape live``: chosen, listed, and their delay measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from astrape.commands.console import note, print_json, print_table, warn
from astrape.errors import AstrapeError

if TYPE_CHECKING:
    from astrape.commands.live_options import Devices
    from astrape.runtime.card import Card
    from astrape.runtime.devices import Device, Rates
    from astrape.runtime.engine import Engine

__all__ = ["AGAIN", "LOOK", "DevicePair", "choose_pair", "measure_delay", "print_devices", "warn_of_assumed"]

LOOK = 0.1
"""Seconds between two looks at levels and keys."""

AGAIN = 1.0
"""Seconds between two tries to reach a device that is gone."""


class DevicePair:
    """The devices, and the rates at which they run: the output's is the engine's."""

    def __init__(self, source: Device, sink: Device, monitor: Device | None, rates: Rates) -> None:
        self.source, self.sink, self.monitor, self.rates = source, sink, monitor, rates

    @property
    def rate(self) -> int:
        return self.rates.sink

    @property
    def changes(self) -> list[str]:
        """Lines on what is resampled and on the devices' clocks."""
        from astrape.runtime.devices import share_clock

        into = f"resampled to the {self.rates.sink} Hz of '{self.sink.name}'"
        found = []
        if self.rates.source != self.rates.sink:
            found.append(f"'{self.source.name}' runs at {self.rates.source} Hz and is {into}")
        if self.monitor is not None and self.rates.monitor != self.rates.sink:
            found.append(f"what '{self.monitor.name}' plays is resampled to its {self.rates.monitor} Hz")
        if not share_clock(self.source, self.sink):
            both = f"'{self.source.name}' and '{self.sink.name}'"
            found.append(f"{both} have clocks of their own: their drift is measured and resampled away")
        return found


def choose_pair(wanted: Devices, wait: bool) -> DevicePair:
    """The devices that are asked for; ``wait``: until they are there."""
    from astrape.runtime.devices import DeviceError, choose, device_rates, list_devices, restart

    devices = list_devices()
    while wait:
        try:
            choose(devices, wanted.wanted_in, "input"), choose(devices, wanted.wanted_out, "output")
            note("it is back")
            break
        except DeviceError:
            time.sleep(AGAIN)
            restart()
            devices = list_devices()
    source, sink = choose(devices, wanted.wanted_in, "input"), choose(devices, wanted.wanted_out, "output")
    further = None if wanted.monitor is None else choose(devices, wanted.monitor, "output")
    rates, line = device_rates(source, sink, wanted.rate, further)
    if line is not None:
        warn(line)
    pair = DevicePair(source, sink, further, rates)
    for line in pair.changes:
        note(line)
    return pair


def print_devices(devices: list[Device], wanted: Devices, as_json: bool) -> None:
    """List the devices; below them what would run where ``wanted`` is asked for, and what of it is resampled."""
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
            " / ".join("-" if s is None else f"{1000 * s:.0f}" for s in (device.latency_in, device.latency_out)),
            ", ".join((["itself"] if both else []) + [str(other.index) for other in others]) or "-",
        )
    print_table(table, width=110)
    click.echo("i, o: the system's default for input and output")
    click.echo(_as_wanted(devices, wanted))


def _as_wanted(devices: list[Device], wanted: Devices) -> str:
    from astrape.runtime.devices import DeviceError, choose, device_rates

    try:
        source, sink = choose(devices, wanted.wanted_in, "input"), choose(devices, wanted.wanted_out, "output")
        further = None if wanted.monitor is None else choose(devices, wanted.monitor, "output")
        rates, refused = device_rates(source, sink, wanted.rate, further)
    except DeviceError as error:
        return str(error)
    ends = f"'{source.name}' at {rates.source} Hz to '{sink.name}' at {rates.sink} Hz"
    changes = DevicePair(source, sink, further, rates).changes
    return "\n".join([f"as asked for, {ends}", *([] if refused is None else [refused]), *changes])


def measure_delay(pair: DevicePair, block: int, channel: int, engine: Engine, as_json: bool) -> None:
    """The delay of the devices, measured and as they say."""
    from astrape.runtime.card import Card
    from astrape.runtime.round_trip import RoundTrip

    trip = RoundTrip(pair.rate)
    card = Card(pair.source, pair.sink, pair.rates, block, trip.process, channel=channel)
    card.open()
    try:
        while not trip.done:
            time.sleep(LOOK)
            if card.failure is not None:
                raise card.failure
            if not card.alive:
                raise AstrapeError(f"'{pair.source.name}' or '{pair.sink.name}' calls no more: hint: try again")
        computed = card.latency_in + card.latency_out
        warn_of_assumed(card)
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
        warn(f"the clicks came back up to {found.spread} frames apart: sound was lost in between, or is resampled")


def warn_of_assumed(card: Card) -> None:
    device_latency = card.latency_in + card.latency_out
    if device_latency and card.assumed:
        warn(
            "the devices do not say how late they are, and a block each way is taken for it: hint: --measure-latency "
            "measures it through a cable"
        )
