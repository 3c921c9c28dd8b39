"""Degraded sources and baselines beside an evaluation, and their tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import welch

import astrape
from astrape.voice.evaluation import EvaluationError, Pair, Target
from astrape.voice.evaluation.baselines import SourceItself, WorldShift, in_own_voices, register
from astrape.voice.evaluation.comparison import check_beside
from astrape.voice.evaluation.conditions import CONDITIONS, degraded, noise_and_room
from astrape.voice.evaluation.pairs import all_pairs, read_sources, utterance
from astrape.voice.names import CONDITIONS as NAMED
from tests.voice.conversion_files import delaying
from tests.voice.evaluation.runs import run

RATE = 16000
SAMPLE = Path(astrape.__file__).parent / "recipes" / "audio" / "sense-and-sensibility.flac"
THROUGH = delaying(16000, 777)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe that only delays, two short sources of one speaker, and a target."""
    speech, _ = soundfile.read(SAMPLE, dtype="float32")
    for index in range(2):
        path = tmp_path / "speech" / "anna" / f"{index}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, speech[index * 8000 :][: 3 * RATE], RATE)
    soundfile.write(tmp_path / "target.wav", speech, RATE)
    (tmp_path / "through.yaml").write_text(THROUGH)
    return tmp_path


def hum(hertz: float, seconds: float = 2.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return 0.1 * sum(np.cos(2 * np.pi * k * hertz * time) / k for k in range(1, 20))


class TestCondition:
    def test_an_impulse_shows_the_room_and_its_level(self) -> None:
        impulse = np.zeros(4 * RATE)
        impulse[RATE] = 1.0
        heard = noise_and_room(impulse, RATE, 3)
        assert heard[RATE] == pytest.approx(1, abs=0.02)
        tail = np.square(heard[RATE + 32 : RATE + 32 + round(0.35 * RATE)])
        # The noise is 15 dB below what arrives, all over the recording, and small within a tail of a tenth of it.
        assert 10 * np.log10(tail.sum()) == pytest.approx(-3, abs=0.2)
        early, late = tail[: RATE // 50].mean(), tail[RATE // 10 : RATE // 10 + RATE // 50].mean()
        assert 10 * np.log10(early / late) == pytest.approx(60 * 0.1 / 0.35, abs=2.5)

    def test_the_noise_is_pink_and_15_db_below(self) -> None:
        random = np.random.default_rng(0)
        plain = random.standard_normal(20 * RATE)
        silence = np.zeros_like(plain)
        # The same seed gives the same room and the same noise, whose level follows the sound.
        heard = noise_and_room(plain, RATE, 3)
        louder = noise_and_room(10 * plain, RATE, 3)
        np.testing.assert_allclose(louder, 10 * heard, rtol=1e-9, atol=1e-9)
        assert not noise_and_room(silence, RATE, 3).any()
        wet = heard - _noise(plain, 3)
        noise = _noise(plain, 3)
        assert 10 * np.log10(np.square(wet).mean() / np.square(noise).mean()) == pytest.approx(15, abs=0.01)
        at, power = welch(noise, RATE, nperseg=4096)
        octaves = np.polyfit(np.log2(at[8:1024]), 10 * np.log10(power[8:1024]), 1)
        assert octaves[0] == pytest.approx(-3, abs=0.2)

    def test_a_source_sounds_alike_in_every_run_and_stays_in_time(self, folder: Path) -> None:
        pairs = all_pairs(read_sources([folder / "speech"]), [Target("t", (folder / "target.wav",))])
        first, again = (degraded(pairs, "noise-room", folder / name) for name in ("a", "b"))
        for one, other in zip(first, again, strict=True):
            # Not their bytes: libsndfile notes the second of writing.
            assert np.array_equal(soundfile.read(one.heard)[0], soundfile.read(other.heard)[0])
            assert one.source == other.source
            clean, heard = soundfile.read(one.source.path)[0], soundfile.read(one.heard)[0]
            assert len(clean) == len(heard)
            lags = np.correlate(heard[RATE : 2 * RATE], clean[RATE - 100 : 2 * RATE + 100], "valid")
            assert int(np.abs(lags).argmax()) == 100
        assert not np.array_equal(*(soundfile.read(one.heard)[0][: 2 * RATE] for one in first[:2]))
        with pytest.raises(EvaluationError, match="there is no condition 'rain'"):
            degraded(pairs, "rain", folder)

    def test_names_that_command_lines_offer_are_those_there_are(self) -> None:
        assert tuple(CONDITIONS) == NAMED


def _noise(plain: np.ndarray, seed: int) -> np.ndarray:
    """The noise alone: the room is taken away by its own impulse response."""
    impulse = np.zeros(len(plain))
    impulse[0] = 1e9
    room = noise_and_room(impulse, RATE, seed)[: round(0.35 * RATE)] / 1e9
    # The noise in the impulse's own answer is 15 dB below its energy over 20 s: a ten thousandth a sample.
    random = np.random.default_rng(seed)
    length = round(0.35 * RATE)
    tail = random.standard_normal(length) * 10 ** (-3 * np.arange(length) / (0.35 * RATE))
    tail[:32] = 0
    exact = tail * np.sqrt(10**-0.3 / np.square(tail).sum())
    exact[0] = 1
    np.testing.assert_allclose(room, exact, atol=0.02)
    return noise_and_room(plain, RATE, seed) - np.convolve(plain, exact)[: len(plain)]


class TestBaselines:
    def test_the_source_is_the_source(self, folder: Path) -> None:
        pair = Pair(utterance(folder / "target.wav"), None)
        assert SourceItself().render(pair).path == folder / "target.wav"
        assert SourceItself().render(Pair(pair.source, None, given=SAMPLE)).path == SAMPLE

    def test_world_moves_a_hum_to_the_targets_register(self, folder: Path) -> None:
        pytest.importorskip("pyworld", reason="pyworld is not installed")
        soundfile.write(folder / "low.wav", hum(110), RATE)
        soundfile.write(folder / "high.wav", hum(175), RATE)
        target = Target("high", (folder / "high.wav",), folder / "high.wav")
        done = WorldShift(folder / "world").render(Pair(utterance(folder / "low.wav"), target))
        assert done.path == folder / "world" / "high" / folder.name / "low.wav"
        assert soundfile.info(done.path).frames == soundfile.info(folder / "low.wav").frames
        assert register(folder / "low.wav") == pytest.approx(110, rel=0.01)
        assert register(done.path) == pytest.approx(175, rel=0.01)

    def test_what_has_no_pitch_has_no_register(self, folder: Path) -> None:
        pytest.importorskip("pyworld", reason="pyworld is not installed")
        soundfile.write(folder / "silence.wav", np.zeros(RATE), RATE)
        with pytest.raises(EvaluationError, match=r"silence\.wav: 0 frames are voiced, and a register takes 20"):
            register(folder / "silence.wav")

    def test_own_voices_are_each_source_once_in_its_condition(self, folder: Path) -> None:
        sources = read_sources([folder / "speech"])
        voices = [Target(name, (folder / "target.wav",)) for name in ("a", "b")]
        worse = degraded(all_pairs(sources, voices), "noise-room", folder / "worse")
        own = in_own_voices(worse)
        assert [pair.source.key for pair in own] == ["anna/0", "anna/1"]
        assert [pair.heard for pair in own] == [worse[0].heard, worse[2].heard]
        assert all(pair.own_voice for pair in own)


def test_everything_stands_beside_a_set(folder: Path) -> None:
    pytest.importorskip("pyworld", reason="pyworld is not installed")
    words = ("--sources", folder / "speech", "--targets", folder / "target.wav", "--recipe", folder / "through.yaml")
    beside = ("--baselines", "source,own-voice,world,trial,goal", "--conditions", "noise-room", "--metrics", "spectrum")
    result = run(*words, *beside, "-o", folder / "run")
    assert result.exit_code == 0, result.output
    found = json.loads((folder / "run" / "report.json").read_text())
    names = [(column["condition"], column["name"]) for column in found["beside"]]
    clean = [("clean", name) for name in ("source", "own-voice", "world")]
    assert names == clean + [("noise-room", name) for name in ("through", "source", "own-voice", "world")]
    distance = {
        name: column["aggregate"]["log_spectral_distance_source"]["value"]
        for name, column in zip(names, found["beside"], strict=True)
    }
    # Measured against is the clean source, in every condition.
    assert distance["clean", "source"] == 0
    assert found["aggregate"]["log_spectral_distance_source"]["value"] < 0.5
    assert distance["noise-room", "source"] > 5
    assert distance["noise-room", "through"] == pytest.approx(distance["noise-room", "source"], abs=0.5)
    assert found["settings"]["references"] == ["trial", "goal"]
    page = (folder / "run" / "index.html").read_text()
    for heading in ("own-voice", "trial, 44 core-minutes", "to reach (stretch)", "Sources: noise-room."):
        assert heading in page
        assert heading.removeprefix("Sources: ").removesuffix(".").split(",")[0].split(" (")[0] in result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--baselines", "echo"), "there is no baseline 'echo' (choose from: source, own-voice, world)"),
        (("--conditions", "rain"), "there is no condition 'rain' (choose from: noise-room)"),
    ],
)
def test_names_that_there_are_not(folder: Path, words: tuple[str, ...], said: str) -> None:
    rest = ("--sources", folder / "speech", "--targets", folder / "target.wav", "--recipe", folder / "through.yaml")
    result = run(*rest, *words, "-o", folder / "run")
    assert result.exit_code == 1
    assert said in result.stderr
    assert not (folder / "run" / "converted").exists()


def test_what_was_converted_elsewhere_has_no_own_voice_and_no_condition(folder: Path) -> None:
    words = ("--sources", folder / "speech", "--converted", folder / "speech", "-o", folder / "run")
    for option, name in (("--baselines", "own-voice"), ("--conditions", "noise-room")):
        result = run(*words, option, name)
        assert result.exit_code == 1
        assert f"'{name}' converts each source again, and --converted converts nothing" in result.stderr
    check_beside(["source", "world"], [], SourceItself())
