"""``astrape live``: microphone to speakers, in another voice."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import command, json_option, parse_settings, print_json, warn
from astrape.commands.live_options import (
    Devices,
    Playing,
    Speaking,
    device_options,
    playing_options,
    speaking_options,
)

if TYPE_CHECKING:
    from astrape.commands.live_devices import DevicePair
    from astrape.commands.live_view import Shown
    from astrape.runtime.card import Card
    from astrape.voice.live import LiveVoice

__all__ = ["live"]


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
@device_options
@speaking_options
@playing_options
@click.option("--measure-latency", "measuring", is_flag=True, help="Measure the devices' delay with a cable, and end.")
@json_option
def live(listing: bool, wanted: Devices, speaking: Speaking, playing: Playing, measuring: bool, as_json: bool) -> None:
    """Speak through the sound card in another voice: what the microphone hears comes out converted.

    Into a call, a stream or a game it goes through a virtual cable: name it as --output, and choose it as the
    microphone there. --monitor plays the same on a further device.

    The latency is shown as a sum: what the devices say of themselves, what the graph takes by its report, and what is
    held so that the computer has time. --measure-latency plays clicks, hears them through a cable or a loopback, and
    prints the delay that was measured beside the computed one.

    Where two devices have no rate in common, the output's is that of the engine, and what the input hears is resampled
    to it; --list-devices with --input and --output says what would be.

    Keys while it runs: q ends, b lets your own voice through (as late as the other, so that nothing jumps), v and V go
    through the voices, arrows move controls. A device that is unplugged is waited for.

    Speak in voices whose owners agree, and tell who listens that the voice is synthetic.
    """
    from astrape.commands.live_again import Before
    from astrape.commands.live_devices import choose_pair, measure_delay, print_devices
    from astrape.commands.live_run import DeviceLost, LiveRun
    from astrape.runtime.devices import list_devices

    if listing:
        print_devices(list_devices(), wanted, as_json)
        return
    playing.check()
    before = Before.read()
    pair = choose_pair(wanted, wait=before is not None)
    controls, name = parse_settings(speaking.settings), speaking.voice
    if before is not None:
        controls, name = controls | before.values, before.voice
        playing = replace(playing, seconds=before.seconds, record=before.next_files(playing.record))
    from astrape.runtime.priority import lock_memory
    from astrape.runtime.process import settle
    from astrape.voice.live import LiveVoice

    voice = LiveVoice(
        speaking.recipe, weights=speaking.weights, voice=name, controls=controls, encoder=speaking.encoder
    )
    if voice.random:
        warn(f"the weights of '{voice.graph.name}' are random, and what comes out is noise: hint: --weights")
    size = _block(pair, wanted.block, voice)
    engine = voice.engine(pair.rate, size, overload=playing.overload, hold=playing.hold)
    if measuring:
        measure_delay(pair, size, wanted.channel, engine, as_json)
        return
    files = playing.files(engine)
    settle()
    show = LiveRun(voice, engine, pair, size, wanted.channel, files)
    # All that a step touches is loaded by now; sound's own buffers are small, and come later.
    show.memory = lock_memory()
    seconds = playing.seconds
    try:
        shown = show.run(seconds, quiet=as_json)
    except DeviceLost:
        Before.write(voice, None if seconds is None else seconds - engine.heard.written / pair.rate, before)
        os.execv(sys.executable, [sys.executable, "-m", "astrape", *sys.argv[1:]])
    if as_json:
        print_json({**_facts(shown, show.card, pair), "memory": show.memory})
    else:
        from astrape.commands.live_view import summary

        click.echo(summary(shown))


def _block(pair: DevicePair, block: int | None, voice: LiveVoice) -> int:
    from astrape.runtime.card import block_of

    return block_of(pair.source, pair.sink, pair.rate, block, voice.quantum(pair.rate))


def _facts(shown: Shown, card: Card, pair: DevicePair) -> dict[str, Any]:
    rate = float(shown.status.rate)
    return {
        "recipe": shown.recipe,
        "voice": shown.voice,
        "input": pair.source.name,
        "output": pair.sink.name,
        "block": shown.block,
        "rate_in": pair.rates.source,
        "resampling_frames": 0 if card.bridge is None else card.bridge.resampled,
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
