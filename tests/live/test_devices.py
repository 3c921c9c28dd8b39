"""Names of devices, the display of a run, and changes of voice, without any device."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import click
import numpy as np
import pytest
import soundfile

import astrape
from astrape.commands.live import live
from astrape.commands.live_view import Shown, lines, summary
from astrape.errors import AstrapeError, StreamError
from astrape.runtime.devices import Device, DeviceError, choose, once_more, share_clock, told
from astrape.runtime.engine import Engine
from astrape.runtime.rings import Ring
from astrape.runtime.round_trip import RoundTrip
from astrape.runtime.status import Status
from astrape.runtime.taps import LiveRecorder, Meter
from astrape.voice.errors import VoicebankError
from astrape.voice.live import LiveVoice


def device(index: int, name: str, api: str = "ALSA", ins: int = 2, outs: int = 2, **rest: bool) -> Device:
    defaults = {"default_in": False, "default_out": False, **rest}
    return Device(index, name, api, ins, outs, 48000.0, 0.01, 0.01, **defaults)


DEVICES = [
    device(0, "HDA Intel PCH: ALC257 (hw:0,0)"),
    device(1, "USB Microphone (hw:1,0)", outs=0, default_in=True),
    device(2, "pulse", default_out=True),
    device(3, "USB Headset (hw:2,0)"),
    device(4, "Speakers", "Windows WASAPI", ins=0),
    device(5, "Speakers", "MME", ins=0),
]


@pytest.mark.parametrize(
    ("wanted", "kind", "index"),
    [
        (None, "input", 1),
        (None, "output", 2),
        ("3", "output", 3),
        ("headset", "input", 3),
        ("USB Microphone (hw:1,0)", "input", 1),
        ("speakers mme", "output", 5),
        ("speakers", "output", 4),
    ],
)
def test_a_device_is_found_by_number_and_by_part_of_its_name(wanted, kind, index):
    assert choose(DEVICES, wanted, kind).index == index


@pytest.mark.parametrize(
    ("wanted", "kind", "words"),
    [
        ("usb", "input", "several input devices are 'usb'.*1 USB Microphone"),
        ("line 6", "output", "there is no output device 'line 6'.*2 pulse"),
        ("1", "output", "there is no output device '1'"),
        ("99", "input", "there is no input device '99'"),
    ],
)
def test_what_is_not_clear_is_asked_back(wanted, kind, words):
    with pytest.raises(DeviceError, match=words):
        choose(DEVICES, wanted, kind)


def test_no_device_at_all_has_a_cause_and_a_fix():
    with pytest.raises(DeviceError, match="no input device: hint"):
        choose([], None, "input")
    with pytest.raises(DeviceError, match="no input device, of 1 devices"):
        choose([DEVICES[4]], None, "input")


def test_a_device_that_comes_back_is_the_same_and_no_other():
    before = device(7, "USB Headset: Audio (hw:2,0)")
    again = device(3, "USB Headset: Audio (hw:3,0)")
    like = device(4, "USB Headset: Audio (hw:2,0)", "JACK Audio Connection Kit")
    longer = device(5, "USB Headset: Audio (hw:2,0) monitor")
    assert once_more([like, longer, again], before, "input") == again
    same = replace(before, index=9)
    assert once_more([again, same], before, "input") == same
    with pytest.raises(DeviceError, match="is gone: hint: plug it in again"):
        once_more([like, longer], before, "input")


def test_one_clock_is_known_of_one_device_and_of_jack():
    jack = [device(0, "system", "JACK Audio Connection Kit"), device(1, "other", "JACK Audio Connection Kit")]
    assert share_clock(*jack)
    assert share_clock(DEVICES[3], DEVICES[3])
    assert not share_clock(DEVICES[1], DEVICES[3])
    assert not share_clock(DEVICES[4], DEVICES[5])


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (("Error opening Stream: Device unavailable", -9985), "busy"),
        (("Error opening Stream: Invalid sample rate", -9997), "rate"),
        (("Error opening Stream: Unanticipated host error", -9999, (8, -13, "Permission denied")), "permission"),
        (("Error opening Stream: Invalid device", -9996), "gone"),
        (("Error opening Stream: Unanticipated host error", -9999, (8, -16, "Device or resource busy")), "busy"),
        (("Error opening Stream: Insufficient memory", -9992), "other"),
    ],
)
def test_errors_of_portaudio_have_a_cause_and_a_fix(said, kind):
    class PortAudioError(Exception):
        """An error like sounddevice's: message, number, and the host API's own message."""

    error = told(PortAudioError(*said), DEVICES[1], DEVICES[3])
    assert error.kind == kind
    assert "hint: " in str(error)
    assert "USB Microphone" in str(error)


STATUS = Status(Fraction(48000), 2985, 2505, 480, 2505, False, 0.21, 0.42, 480000, 2, 960, 480, 0, None)
SHOWN = Shown(
    "astrape-mini", "emma", 480, STATUS, 0.25, 1.2, 0, 3, 480, 512, 12.0, 1, True, [("pitch", -3.0, "semitones", True)]
)


@pytest.mark.parametrize("width", [40, 60, 100])
def test_the_display_fits(width):
    shown = replace(SHOWN, voice="a-voice-of-a-very-long-name-that-somebody-gave.astrape", notice="x" * 200)
    found = lines(shown, width)
    assert max(map(len, found)) <= width


def test_the_display_says_all_that_is_to_be_known():
    text = "\n".join(lines(SHOWN, 60))
    assert "82.9 ms\n         in 10.0 + graph 52.2 + worker 10.0 + out 10.7\n" in text
    for part in (
        "-12.0 dB",
        "clip 3",
        "21 % median",
        "42 % worst",
        "dropouts 2 (20 ms)",
        "+12 parts",
        "> pitch        -3.00 semitones",
        "BYPASS",
    ):
        assert part in text
    assert "2 dropouts (20 ms)" in summary(SHOWN)


def test_the_sum_is_the_total():
    assert SHOWN.total == 480 + 2985 + 512


def test_levels_and_recordings_are_what_was_written(tmp_path):
    ring = Ring(1, 48000)
    meter = Meter(ring)
    x = np.random.default_rng(0).uniform(-0.9, 0.9, (1, 60000)).astype(np.float32)
    x[0, 100] = 1.0
    x[0, 200:202] = np.nan, np.inf
    with LiveRecorder([(tmp_path / "a.wav", ring)], 48000) as recorder:
        for begin in range(0, 60000, 480):
            ring.write(x[:, begin : begin + 480])
            if begin % 4800 == 0:
                recorder.poll()
    meter.look()
    assert meter.peak <= 1.0
    assert recorder.lost == 0
    y, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == 48000
    # As it was heard: what is not finite is silence.
    assert not y[200:202].any()
    np.testing.assert_allclose(y, np.where(np.isfinite(x[0]), x[0], 0.0), atol=1 / 32768)


def test_a_meter_hears_each_frame_once():
    ring = Ring(1, 4096)
    meter = Meter(ring)
    ring.write(np.ones((1, 10), np.float32))
    meter.look()
    assert (meter.peak, meter.rms, meter.clipped) == (1.0, 1.0, 10)
    ring.write(np.full((1, 10), 0.5, np.float32))
    meter.look()
    assert (meter.peak, meter.rms, meter.clipped) == (0.5, 0.5, 10)


@pytest.mark.parametrize("delay", [480, 777, 9000])
def test_a_round_trip_is_measured_to_the_frame(delay):
    trip = RoundTrip(48000, clicks=3, every=0.3)
    rng = np.random.default_rng(0)
    cable = np.zeros((1, delay), np.float32)
    while not trip.done:
        y = np.zeros((1, 480), np.float32)
        trip.process(cable[:, :480] + 0.002 * rng.standard_normal((1, 480)).astype(np.float32), y)
        cable = np.concatenate((cable[:, 480:], 0.3 * y), axis=1)
    found = trip.result()
    assert found.frames == delay
    assert found.spread == 0
    assert found.level == pytest.approx(0.3, rel=0.05)


def test_a_cable_that_is_not_there_is_said():
    trip = RoundTrip(48000, clicks=2, every=0.2)
    while not trip.done:
        trip.process(np.zeros((1, 480), np.float32), np.zeros((1, 480), np.float32))
    with pytest.raises(AstrapeError, match="none of 2 clicks came back: hint: connect"):
        trip.result()


def test_voices_and_controls_are_those_of_the_recipe(tmp_path):
    speaking = LiveVoice(voice="george", controls={"pitch": 2.0})
    assert speaking.voices == ["emma", "george", "heart", "michael"]
    assert list(speaking.sliders) == ["pitch"]
    own = speaking.controls
    assert own["register"] == speaking.bank("george").metadata.median_f0_hz
    assert own["pitch"] == 2.0
    with pytest.raises(StreamError, match="above 24"):
        speaking.set("pitch", 25.0)
    with pytest.raises(AstrapeError, match="the speaker is what --voice gives"):
        LiveVoice(controls={"speaker": 1.0})


def test_a_voice_of_another_encoder_is_refused(tmp_path):
    rate = 16000
    time = np.arange(8 * rate) / rate
    wave = 0.3 * np.sin(2 * np.pi * 140 * time) * (1 + np.sin(2 * np.pi * 3 * time))
    soundfile.write(tmp_path / "me.wav", wave + 0.01 * np.random.default_rng(0).standard_normal(len(time)), rate)
    with pytest.raises(VoicebankError, match="astrape voicebank build"):
        LiveVoice(voice=tmp_path / "me.wav", encoder="mel-statistics")


def test_a_recipe_without_voices_runs_as_it_is():
    speaking = LiveVoice("robot-voice")
    assert speaking.voice is None
    assert speaking.voices == []
    engine = speaking.engine(48000, 480, hold=0)
    x = np.zeros((engine.heard.channels, 480), np.float32)
    engine.process(x, np.zeros((engine.made.channels, 480), np.float32))
    with pytest.raises(AstrapeError, match="speaks in no voice"):
        LiveVoice("robot-voice", voice="emma")


def test_turning_to_another_voice_while_it_runs_sounds_like_that_voice():
    speaking = LiveVoice(voice="emma")
    engine = speaking.engine(44100, 441, hold=0)
    speech, rate = soundfile.read(_sample(), dtype="float32")
    speech = np.repeat(speech, 3)[: 441 * 250]  # any sound will do
    assert rate == 16000
    x = speech[None]
    y = []

    def run(begin: int, end: int) -> None:
        for k in range(begin, end):
            out = np.empty((1, 441), np.float32)
            engine.process(np.ascontiguousarray(x[:, k * 441 : (k + 1) * 441]), out)
            y.append(out)

    run(0, 100)
    speaking.speak_as("michael")
    run(100, 250)
    turned = np.concatenate(y, axis=1)
    whole = LiveVoice(voice="michael").engine(44100, 441, hold=0)
    y = []
    engine = whole
    run(0, 250)
    always = np.concatenate(y, axis=1)

    # The decoder remembers some tenths of a second; the pulses' phase, for ever. So levels by band are compared.
    def bands(z: np.ndarray) -> np.ndarray:
        power = np.abs(np.fft.rfft(z[0, 441 * 170 : 441 * 250])) ** 2
        return 10 * np.log10(np.array([part.sum() for part in np.array_split(power[: len(power) // 4], 24)]) + 1e-9)

    assert np.abs(bands(turned) - bands(always)).mean() < 1.0
    assert engine.status().dropouts == 0


def _sample() -> str:
    from importlib import resources

    folder = resources.files("astrape") / "recipes" / "audio"
    return str(next(path for path in sorted(folder.iterdir(), key=str) if path.name.endswith((".flac", ".wav"))))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--seconds inf", "--seconds inf: must be above 0, and finite: hint"),
        ("--seconds nan", "--seconds nan: must be above 0"),
        ("--seconds 0", "--seconds 0: must be above 0"),
        ("--rate 0", "0 is not in the range 4000<=x<=768000"),
        ("--channel 0", "0 is not in the range x>=1"),
        ("--record mine.wav", "write it as IN.wav,OUT.wav"),
        ("--record mine.wav,./mine.wav", "both are the same file"),
    ],
)
def test_what_cannot_be_is_refused_before_a_device_is_opened(options, words):
    with pytest.raises((AstrapeError, click.UsageError), match=words):
        live.main(options.split(), standalone_mode=False)


def test_more_than_can_be_held_is_refused():
    with pytest.raises(AstrapeError, match=r"hold of 100000000000 frames.*at most 10 s: hint"):
        Engine(astrape.load("robot-voice"), 48000, 480, hold=10**11)
