"""Sound devices through PortAudio: which there are, which pair to take, and what is wrong with them in plain words."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from astrape.errors import AstrapeError
from astrape.wording import lacking

__all__ = [
    "Device",
    "DeviceError",
    "Rates",
    "choose",
    "device_rates",
    "list_devices",
    "once_more",
    "portaudio",
    "restart",
    "share_clock",
    "told",
]

SHARED = ("JACK Audio Connection Kit", "ASIO")
"""Host APIs in which all devices run by one clock."""

RATES = (48000, 44100, 96000, 88200, 32000, 24000, 22050, 16000, 8000)
"""Hz, tried in this order where devices refuse what is wanted and what they have by default."""

NONE = {
    "linux": "start PipeWire, JACK or PulseAudio (`jackd -d dummy` is a sound card that plays to nobody), or let your "
    "user reach the cards with `sudo usermod -aG audio $USER` and a new login; a container sees no card of its host",
    "darwin": "look in Audio MIDI Setup, and allow the terminal to use the microphone in System Settings, Privacy",
    "win32": "look in Settings, Sound, and allow desktop apps to use the microphone in Settings, Privacy",
}

CARD = re.compile(r"\(hw:(\d+),(\d+)\)")
"""The card and the device of it in a name that PortAudio makes for ALSA."""

# Of PortAudio's portaudio.h.
UNANTICIPATED, BAD_CHANNELS, BAD_RATE, BAD_DEVICE, BAD_COMBINATION = -9999, -9998, -9997, -9996, -9993
NO_MEMORY, BUFFER_TOO_SMALL, UNAVAILABLE, TIMED_OUT = -9992, -9990, -9985, -9987


class DeviceError(AstrapeError):
    """A sound device that does not work.

    Attributes:
        kind: ``library``, ``none``, ``unknown``, ``busy``, ``rate``, ``permission``, ``gone`` or ``other``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Device:
    """A sound device.

    Attributes:
        index: PortAudio's, which changes when devices come and go.
        api: the host API that it is reached through, such as ALSA or Core Audio.
        channels_in, channels_out: the most it has.
        rate: its default, Hz.
        latency_in, latency_out: its default for live use, seconds; ``None`` for a side that it has not.
        default_in, default_out: whether it is the system's default.
    """

    index: int
    name: str
    api: str
    channels_in: int
    channels_out: int
    rate: float
    latency_in: float | None
    latency_out: float | None
    default_in: bool
    default_out: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def portaudio() -> Any:
    """The package ``sounddevice``.

    Raises:
        DeviceError: where it or PortAudio itself is missing.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise DeviceError("library", lacking("live sound", "sounddevice", "live")) from error
    except OSError as error:
        raise DeviceError(
            "library",
            f"PortAudio is not there ({error}): hint: on Debian `apt install libportaudio2`, on macOS and Windows "
            "sounddevice brings it",
        ) from error
    return sounddevice


def restart() -> None:
    """Look for devices anew: PortAudio looks only when it starts. All streams must be closed."""
    sound = portaudio()
    sound._terminate()
    sound._initialize()


def list_devices() -> list[Device]:
    """All devices.

    Raises:
        DeviceError: where PortAudio is missing.
    """
    sound = portaudio()
    apis = sound.query_hostapis()
    inputs, outputs = (_default(sound, kind) for kind in ("input", "output"))
    return [
        Device(
            index=index,
            name=str(found["name"]),
            api=str(apis[found["hostapi"]]["name"]),
            channels_in=int(found["max_input_channels"]),
            channels_out=int(found["max_output_channels"]),
            rate=float(found["default_samplerate"]),
            latency_in=_low_latency(found, "input"),
            latency_out=_low_latency(found, "output"),
            default_in=index == inputs,
            default_out=index == outputs,
        )
        for index, found in enumerate(sound.query_devices())
    ]


def _low_latency(found: Any, kind: str) -> float | None:
    return float(found[f"default_low_{kind}_latency"]) if found[f"max_{kind}_channels"] else None


def _default(sound: Any, kind: str) -> int:
    try:
        return int(sound.query_devices(kind=kind)["index"])
    except (sound.PortAudioError, ValueError):
        return -1


def choose(devices: Sequence[Device], wanted: str | None, kind: str) -> Device:
    """The device that is meant.

    Args:
        devices: as listed.
        wanted: its number, its name or a part of it, with a part of its host API where that is not enough (``hda
            alsa``); ``None`` for the system's default.
        kind: ``input`` or ``output``.

    Raises:
        DeviceError: where there is none, or several are meant.
    """
    fitting = [device for device in devices if _channels(device, kind)]
    if not fitting:
        others = f", of {len(devices)} devices" if devices else ""
        hint = NONE.get("linux" if sys.platform.startswith("linux") else sys.platform, NONE["linux"])
        raise DeviceError("none", f"there is no {kind} device{others}: hint: {hint}")
    if wanted is None:
        defaults = [device for device in fitting if (device.default_in if kind == "input" else device.default_out)]
        return (defaults or fitting)[0]
    if wanted.isdecimal():
        found = [device for device in fitting if device.index == int(wanted)]
    else:
        exact = [device for device in fitting if device.name.lower() == wanted.lower()]
        words = wanted.lower().split()
        partly = [d for d in fitting if all(word in f"{d.name} {d.api}".lower() for word in words)]
        found = exact or partly
    if not found:
        listed = "; ".join(f"{device.index} {device.name}" for device in fitting[:8])
        hint = f"choose from: {listed}; what another program has to itself, or your user may not open, is not listed"
        raise DeviceError("unknown", f"there is no {kind} device '{wanted}': hint: {hint}")
    apis = {device.api for device in found}
    if len(found) > 1 and len(apis) == len(found):
        # The same device through several doors: the system's own is as good as any.
        return next((device for device in found if device.default_in or device.default_out), found[0])
    if len(found) > 1:
        listed = "; ".join(f"{device.index} {device.name} ({device.api})" for device in found[:8])
        raise DeviceError("unknown", f"several {kind} devices are '{wanted}': hint: take the number of one: {listed}")
    return found[0]


def once_more(devices: Sequence[Device], before: Device, kind: str) -> Device:
    """The same device among those that are listed now; the number of its card may be another.

    Raises:
        DeviceError: where it is not there. Another whose name is like it is not taken for it.
    """
    there = [device for device in devices if device.api == before.api and _channels(device, kind)]
    for name in (lambda device: device.name, lambda device: CARD.sub("", device.name)):
        for device in there:
            if name(device) == name(before):
                return device
    raise DeviceError("gone", f"'{before.name}' is gone: hint: plug it in again")


def share_clock(one: Device, other: Device) -> bool:
    """Whether two devices are known to run by one clock: the same device, or all of JACK's and of an ASIO driver's."""
    if one.api != other.api:
        return False
    return one.index == other.index or one.name == other.name or one.api in SHARED


@dataclass(frozen=True)
class Rates:
    """The rates at which devices run, Hz. The output's is the engine's, and what runs at another is resampled."""

    source: int
    sink: int
    monitor: int | None = None


def device_rates(
    source: Device, sink: Device, wanted: int | None, monitor: Device | None = None
) -> tuple[Rates, str | None]:
    """The rate that input and output both take, or where there is none, one for each.

    Args:
        wanted: Hz, tried first; the sink's default when left out.
        monitor: a further output, which takes part in no choice.

    Returns:
        The rates, and where the output's is not the wanted one, a line that says so. The graph is resampled to it.

    Raises:
        DeviceError: for a device that takes no rate, or does not work.
    """
    first = [] if wanted is None else [wanted]
    tried = [*first, round(sink.rate), round(source.rate), *RATES]
    common = _first_taken(tried, source, sink)
    if isinstance(common, int):
        rate = taken = common
    else:
        rate, taken = _own_rate(tried, None, sink), _own_rate(tried, source, None)
    further = None if monitor is None else _own_rate([rate, round(monitor.rate), *RATES], None, monitor)
    rates = Rates(taken, rate, further)
    if wanted in (None, rate):
        return rates, None
    by = "the devices: they run" if rate == taken else f"'{sink.name}': it runs"
    return rates, f"{wanted} Hz is refused by {by} at {rate} Hz, and the graph is resampled to it"


def _own_rate(rates: Sequence[int], source: Device | None, sink: Device | None) -> int:
    """The first rate that one device takes.

    Raises:
        DeviceError: where it takes none.
    """
    found = _first_taken(rates, source, sink)
    if isinstance(found, int):
        return found
    device = source or sink
    assert device is not None
    raise told(found, device, device) from found


def _first_taken(rates: Sequence[int], source: Device | None, sink: Device | None) -> int | Exception:
    """The first rate that both devices take, or what PortAudio said to the first of all.

    Raises:
        DeviceError: for a device that does not work, whatever its rate.
    """
    sound = portaudio()
    refused: Exception | None = None
    for rate in dict.fromkeys(rates):
        common: dict[str, Any] = {"dtype": "float32", "samplerate": rate}
        try:
            if source is not None:
                sound.check_input_settings(source.index, channels=1, **common)
            if sink is not None:
                sound.check_output_settings(sink.index, channels=min(2, sink.channels_out), **common)
        except sound.PortAudioError as error:
            refused = refused or error
            if _number(error) not in (BAD_RATE, UNANTICIPATED):
                there = [device for device in (source, sink) if device is not None]
                raise told(error, there[0], there[-1]) from error
            continue
        return rate
    assert refused is not None
    return refused


def gone(source: Device, sink: Device) -> DeviceError:
    """The error for devices that were there and are no more."""
    hint = "plug it in again; `--list-devices` says what is there"
    return DeviceError("gone", f"{_names(source, sink)} is gone: hint: {hint}")


def told(error: Exception, source: Device, sink: Device) -> DeviceError:
    """PortAudio's error, with its cause and a hint."""
    pair = _names(source, sink)
    text, number = str(error), _number(error)
    low = text.lower()
    if number == BAD_COMBINATION:
        return _unopened(source, sink, pair)
    if "permission" in low or "access denied" in low or "not permitted" in low:
        return _forbidden(pair)
    if number == UNAVAILABLE or "busy" in low or "in use" in low:
        hint = "close the program that has it, or take it through PipeWire, PulseAudio or JACK, which share it"
        return DeviceError("busy", f"{pair} is in use by another program: hint: {hint}")
    if number == BAD_RATE:
        hint = "say --rate with one that is taken, or take another host API's device"
        return DeviceError("rate", f"{pair} runs at none of the rates that were tried: hint: {hint}")
    if number == BAD_CHANNELS:
        return DeviceError("other", f"{pair} has not the channels that are asked for: hint: see `--list-devices`")
    if number in (BAD_DEVICE, TIMED_OUT) or "no such device" in low or "disconnected" in low:
        return gone(source, sink)
    return DeviceError("other", f"{pair}: {text}: hint: try another --block or --rate, or another host API's device")


def _names(source: Device, sink: Device) -> str:
    return f"'{source.name}'" if source == sink else f"'{source.name}' and '{sink.name}'"


def _forbidden(pair: str) -> DeviceError:
    hint = "on Linux join the group audio (`sudo usermod -aG audio $USER`, new login), elsewhere allow the "
    return DeviceError("permission", f"no permission for {pair}: hint: {hint}microphone in the privacy settings")


def _unopened(source: Device, sink: Device, pair: str) -> DeviceError:
    """The error for a device that ALSA will not open and no program holds; the card's device files say which it is."""
    for device, end in ((source, "c"), (sink, "p")):
        card = CARD.search(device.name)
        if card is None:
            continue
        file = f"/dev/snd/pcmC{card[1]}D{card[2]}{end}"
        if os.path.exists(file) and not os.access(file, os.R_OK | os.W_OK):
            return _forbidden(f"'{device.name}'")
    hint = "`--list-devices` says what is there; on Linux your user must be in the group audio"
    return DeviceError("gone", f"{pair} cannot be opened: gone, or not yours to open: hint: {hint}")


def _number(error: Exception) -> int:
    numbers = [part for part in error.args if isinstance(part, int)]
    return numbers[0] if numbers else 0


def _channels(device: Device, kind: str) -> int:
    return device.channels_in if kind == "input" else device.channels_out
