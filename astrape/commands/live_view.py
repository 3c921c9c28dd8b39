"""The display of ``astrape live``: some lines that fit 60 columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from astrape.runtime.status import Status

__all__ = ["Shown", "lines", "summary"]

FLOOR = -60.0
"""dB at the left end of a meter."""

HELP = "q quit  b bypass  v voice  up/down control  left/right value"


@dataclass(frozen=True)
class Shown:
    """The values on display.

    Attributes:
        peak_in, peak_out: since the last look; 1 is full scale.
        clipped_in, clipped_out: samples at full scale since the start.
        device_in, device_out: frames of the devices' own latencies.
        bridge: parts in a million by which the input's clock is fast; ``None`` where both share one.
        xruns: times that the system lost sound.
        sliders: name, value, unit, and whether it is the one that keys move.
        notice: what is to be known now: a device that is gone.
    """

    recipe: str
    voice: str | None
    block: int
    status: Status
    peak_in: float
    peak_out: float
    clipped_in: int
    clipped_out: int
    device_in: int
    device_out: int
    bridge: float | None
    xruns: int
    bypass: bool
    sliders: list[tuple[str, float, str, bool]]
    notice: str = ""

    @property
    def total(self) -> int:
        """Frames from air to air."""
        return self.device_in + self.status.latency + self.device_out


def lines(shown: Shown, width: int = 60) -> list[str]:
    """The display, no line longer than ``width`` columns (40 or more)."""
    status = shown.status
    rate = float(status.rate)
    voice = "" if shown.voice is None else f" as {shown.voice}"
    head = f"{shown.recipe}{voice}, {rate:g} Hz, blocks of {shown.block}"
    parts = [
        head,
        _meter("in ", shown.peak_in, shown.clipped_in, width),
        _meter("out", shown.peak_out, shown.clipped_out, width),
        f"load     {status.load * 100:3.0f} % median, {status.worst * 100:3.0f} % worst"
        + (" (in the callback)" if status.inline else ""),
        f"latency  {1000 * shown.total / rate:.1f} ms",
        f"         {latency_sum(shown)}",
        f"dropouts {status.dropouts} ({1000 * status.missing / rate:.0f} ms), of the system {shown.xruns}",
    ]
    if shown.bridge is not None:
        parts.append(f"clocks   {shown.bridge:+.0f} parts in a million apart, resampled away")
    for name, value, unit, chosen in shown.sliders:
        parts.append(f"{'>' if chosen else ' '} {name:<12} {value:+.2f} {unit}".rstrip())
    if shown.bypass:
        parts.append("BYPASS: this is your own voice")
    if shown.notice:
        parts.append(shown.notice)
    parts.append(HELP)
    return [part if len(part) <= width else part[: width - 3] + "..." for part in parts]


def latency_sum(shown: Shown) -> str:
    """The latency as a sum, milliseconds."""
    rate = float(shown.status.rate)
    parts = {
        "in": shown.device_in,
        "graph": shown.status.graph,
        "worker": shown.status.worker,
        "out": shown.device_out,
    }
    return " + ".join(f"{name} {1000 * frames / rate:.1f}" for name, frames in parts.items())


def summary(shown: Shown) -> str:
    """One line at the end."""
    status = shown.status
    rate = float(status.rate)
    return (
        f"{status.position / rate:.1f} s, latency {1000 * shown.total / rate:.1f} ms ({latency_sum(shown)}), "
        f"{status.dropouts} dropouts ({1000 * status.missing / rate:.0f} ms), load {status.load * 100:.0f} % median, "
        f"{status.worst * 100:.0f} % worst"
    )


def _meter(name: str, peak: float, clipped: int, width: int) -> str:
    level = 20 * math.log10(peak) if peak > 0 else -math.inf
    room = max(8, width - 32)
    filled = round(room * min(1.0, max(0.0, 1 - level / FLOOR))) if level > FLOOR else 0
    told = f"{level:5.1f} dB" if level > -100 else " -inf dB"
    return f"{name}      {'█' * filled}{'·' * (room - filled)} {told}" + (f" clip {clipped}" if clipped else "")
