"""``astrape live``: microphone to speakers, in another voice."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import RecipeName, command, json_option, parse_settings, print_json, warn
from astrape.errors import AstrapeError
from astrape.voice.names import RECIPE

if TYPE_CHECKING:
    from astrape.commands.live_devices import DevicePair
    from astrape.commands.live_view import Shown
    from astrape.runtime.card import Card
    from astrape.runtime.engine import Engine
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
    from astrape.commands.live_again import Before
    from astrape.commands.live_devices import choose_pair, measure_delay, print_devices
    from astrape.commands.live_run import LiveRun, ServerGone
    from astrape.runtime.devices import list_devices

    if listing:
        print_devices(list_devices(), as_json)
        return
    if seconds is not None and not seconds > 0:
        raise AstrapeError(f"--seconds {seconds:g}: must be above 0")
    before = Before.read()
    pair = choose_pair(wanted_in, wanted_out, monitor, rate, wait=before is not None)
    controls = parse_settings(settings)
    if before is not None:
        controls |= before.values
        voice, seconds, record = before.voice, before.seconds, before.next_files(record)
    from astrape.runtime.priority import lock_memory
    from astrape.runtime.process import settle
    from astrape.voice.live import LiveVoice

    speaking = LiveVoice(recipe, weights=weights, voice=voice, controls=controls, encoder=encoder)
    if speaking.random:
        warn(f"the weights of '{speaking.graph.name}' are random, and what comes out is noise: hint: --weights")
    size = _block(pair, block, speaking)
    engine = speaking.engine(pair.rate, size, overload=overload, hold=hold)
    if measuring:
        measure_delay(pair, size, channel, engine, as_json)
        return
    files = _files(record, engine)
    settle()
    show = LiveRun(speaking, engine, pair, size, channel, files)
    # What is loaded by now is what a step touches; sound's own buffers are small, and come later.
    show.memory = lock_memory()
    try:
        shown = show.run(seconds, quiet=as_json)
    except ServerGone:
        Before.write(speaking, None if seconds is None else seconds - engine.heard.written / pair.rate, before)
        os.execv(sys.executable, [sys.executable, "-m", "astrape", *sys.argv[1:]])
    if as_json:
        print_json({**_facts(shown, show.card, pair), "memory": show.memory})
    else:
        from astrape.commands.live_view import summary

        click.echo(summary(shown))


def _block(pair: DevicePair, block: int | None, speaking: LiveVoice) -> int:
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


def _facts(shown: Shown, card: Card, pair: DevicePair) -> dict[str, Any]:
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
