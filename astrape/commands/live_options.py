"""Options of ``astrape live``: the devices, who speaks, and what is heard and kept."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import RecipeName
from astrape.commands.gathered import gathered
from astrape.commands.place_option import local_path, weights_option
from astrape.errors import AstrapeError
from astrape.voice.names import RECIPE

if TYPE_CHECKING:
    from astrape.audio.places import Place
    from astrape.runtime.engine import Engine

__all__ = ["Devices", "Playing", "Speaking", "device_options", "playing_options", "speaking_options"]


@dataclass(frozen=True)
class Devices:
    """The devices that are asked for: the values of the options of these names."""

    wanted_in: str | None
    wanted_out: str | None
    monitor: str | None
    channel: int
    rate: int | None
    block: int | None


@dataclass(frozen=True)
class Speaking:
    """The recipe, its weights and the voice of a live run: the values of the options of these names."""

    recipe: str
    weights: Path | Place | None
    voice: str | None
    encoder: str | None
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Playing:
    """Recording, length and overload sound of a live run: the values of the options of these names."""

    record: str | None
    seconds: float | None
    overload: str
    hold: int | None

    def check(self) -> None:
        """Look at what can be known to be wrong before a device is opened.

        Raises:
            AstrapeError: for a length that is not one, and for other than two files.
        """
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise AstrapeError(
                f"--seconds {self.seconds:g}: must be above 0, and finite: hint: left out, q or Ctrl-C ends"
            )
        if self.record is None:
            return
        names = self.record.split(",")
        if len(names) != 2 or not any(names):
            raise AstrapeError(f"--record {self.record}: write it as IN.wav,OUT.wav, or ,OUT.wav for one of them")
        for name in filter(None, names):
            local_path(name, "--record")
        if os.path.realpath(names[0]) == os.path.realpath(names[1]):
            raise AstrapeError(
                f"--record {self.record}: both are the same file, and one recording would replace the other"
            )

    def files(self, engine: Engine) -> list[tuple[Path, Any]]:
        """Files to record, each with the sound that it gets."""
        names = [] if self.record is None else self.record.split(",")
        rings = (engine.heard, engine.played)
        return [(Path(name), ring) for name, ring in zip(names, rings, strict=False) if name]


device_options = gathered(
    "wanted",
    Devices,
    click.option("--input", "wanted_in", metavar="NAME", help="Input device: its number, or a part of its name."),
    click.option("--output", "wanted_out", metavar="NAME", help="Output device, a virtual cable for instance."),
    click.option("--monitor", metavar="NAME", help="A further output to hear yourself on, headphones for instance."),
    click.option(
        "--channel",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="N",
        help="Channel of the input to listen to, from 1.",
    ),
    click.option(
        "--rate",
        type=click.IntRange(4000, 768000),
        metavar="HZ",
        help="Sample rate of the devices.  [default: the output's]",
    ),
    click.option(
        "--block", type=click.IntRange(16, 8192), metavar="FRAMES", help="Block of the devices.  [default: about 10 ms]"
    ),
)

speaking_options = gathered(
    "speaking",
    Speaking,
    click.option(
        "--recipe", type=RecipeName(), default=RECIPE, show_default=True, metavar="RECIPE", help="What to run."
    ),
    weights_option,
    click.option(
        "--voice",
        metavar="VOICE",
        help="A voicebank, a recording of 5 s or more, or the name of a voice that ships.  [default: emma]",
    ),
    click.option("--encoder", metavar="NAME", help="Speaker encoder for a recording.  [default: that of the weights]"),
    click.option(
        "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Value of a control to begin with. Repeatable."
    ),
)

playing_options = gathered(
    "playing",
    Playing,
    click.option(
        "--record", metavar="IN.wav,OUT.wav", help="Record what goes in and what comes out; either may be empty."
    ),
    click.option("--seconds", type=float, metavar="S", help="End after that much sound."),
    click.option(
        "--overload",
        type=click.Choice(["repeat", "silence", "bypass"]),
        default="repeat",
        show_default=True,
        help="What is heard where the computer is too slow: the last sound fading out, silence, or your own voice.",
    ),
    click.option(
        "--hold", type=int, metavar="FRAMES", help="Frames held for computing.  [default: measured at the start]"
    ),
)
